// Question: what does the Merkle tree cost beside the hashes it cannot do without?
//
//   ledger_bench [RECORDS 200000] [BYTES 512] [TURNS 7]
//
// In turns: SHA-256 of each record, one after the other, with one OpenSSL context; and the same records
// appended to a tree in memory. CPU time of one thread. Prints one JSON line.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "rubriscope/ledger/log.h"
#include "rubriscope/ledger/merkle_tree.h"

namespace {

using namespace rubriscope::ledger;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

template <class Body>
double timed(Body&& body) {
  const double before = cpu_seconds();
  body();
  return cpu_seconds() - before;
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t records = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200000;
  const std::size_t bytes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 512;
  const int turns = argc > 3 ? std::atoi(argv[3]) : 7;
  std::mt19937_64 random(7);
  std::vector<std::uint8_t> data(records * bytes);
  for (auto& byte : data) byte = static_cast<std::uint8_t>(random());
  const auto record = [&](std::size_t i) { return Bytes(data.data() + i * bytes, bytes); };

  std::vector<double> hashed, tree, tail;
  std::uint8_t sum = 0;
  for (int turn = 0; turn < turns; ++turn) {
    hashed.push_back(timed([&] {
      Hasher hasher;
      for (std::size_t i = 0; i < records; ++i) sum ^= hasher.plain(record(i))[0];
    }));
    tree.push_back(timed([&] {
      MerkleTree merkle;
      for (std::size_t i = 0; i < records; ++i) merkle.append(record(i));
      sum ^= merkle.root()[0];
    }));
    tail.push_back(timed([&] {
      LogTail log;
      for (std::size_t i = 0; i < records; ++i) log.append(record(i));
      sum ^= log.root()[0];
    }));
  }
  const auto rate = [&](const std::vector<double>& seconds) {
    return static_cast<double>(records) / median(seconds);
  };
  std::printf(
      "{\"bench\":\"ledger\",\"records\":%zu,\"bytes\":%zu,\"sha256_per_s\":%.0f,\"tree_per_s\":%.0f,"
      "\"log_per_s\":%.0f,\"sum\":%d}\n",
      records, bytes, rate(hashed), rate(tree), rate(tail), sum);
  return 0;
}
