// Question: what does encryption cost the caller, and how many bytes?
//
//   seal_bench [RECORDS 200000] [BYTES 618] [TURNS 7]
//
// In turns: AES-256-GCM of BYTES alone, with one OpenSSL context; and a snapshot of that size sealed as the
// recorder does it (memory of the thread, header, additional data, cipher). CPU time of one thread. Prints
// one JSON line.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "record_builder.h"
#include "rubriscope/vault/sealer.h"

namespace {

using namespace rubriscope;
using namespace rubriscope::testing;

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t records = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200000;
  const std::size_t bytes = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 618;
  const int turns = argc > 3 ? std::atoi(argv[3]) : 7;

  // A tree of 13 nodes, filled up with a captured action.
  RecordBuilder empty(make_tree(13));
  const std::size_t without = empty.build().view().header->length() + sizeof(ExtraHeader);
  RecordBuilder builder(make_tree(13));
  for (std::size_t i = 0; i < 13; ++i) builder.score(i, 0.1 * static_cast<double>(i), 100);
  builder.extra(ExtraTag::action, std::string(bytes > without ? bytes - without : 0, 'x'));
  const OwnedRecord plain = builder.build();
  const std::size_t length = plain.view().header->length();
  const std::size_t sealed_length = vault::Sealer::sealed_bytes(length);
  std::vector<std::uint64_t> journal(sealed_length / 8);
  auto* const reserved = reinterpret_cast<RecordHeader*>(journal.data());

  const auto keys = std::make_shared<vault::Vault>(vault::Kek(vault::Secret::random()));
  const vault::Sealer sealer(keys, make_session(), make_writer());
  vault::Aead aead(vault::Secret::random());
  std::vector<std::uint8_t> out(length + vault::kTagBytes);
  std::vector<double> bare, whole;
  std::uint64_t sum = 0;
  for (int turn = 0; turn < turns; ++turn) {
    double before = cpu_seconds();
    for (std::size_t i = 0; i < records; ++i) {
      vault::Nonce nonce{};
      std::memcpy(nonce.data(), &i, sizeof i);
      aead.seal(nonce, {}, {reinterpret_cast<const std::uint8_t*>(plain.view().header), length}, out.data());
      sum += out[0];
    }
    bare.push_back(cpu_seconds() - before);
    before = cpu_seconds();
    for (std::size_t i = 0; i < records; ++i) {
      reserved->length_and_state = static_cast<std::uint32_t>(sealed_length) | RecordHeader::kReserved;
      reserved->sequence = i;
      RecordHeader* const filled = vault::Sealer::scratch_for(reserved, length);
      std::memcpy(reinterpret_cast<std::byte*>(filled) + 24,
                  reinterpret_cast<const std::byte*>(plain.view().header) + 24, length - 24);
      filled->kind = RecordKind::snapshot;
      filled->slots = 13;
      filled->schema = 0;
      sum += sealer.seal(filled)->extras_bytes;
    }
    whole.push_back(cpu_seconds() - before);
  }
  const auto nanoseconds = [&](const std::vector<double>& seconds) {
    return 1e9 * median(seconds) / static_cast<double>(records);
  };
  std::printf(
      "{\"bench\":\"seal\",\"record_bytes\":%zu,\"sealed_bytes\":%zu,\"aead_ns\":%.1f,\"seal_ns\":%.1f,"
      "\"sum\":%llu}\n",
      length, sealed_length, nanoseconds(bare), nanoseconds(whole), static_cast<unsigned long long>(sum));
  return 0;
}
