// The process that the crash campaign (tests/crash/campaign.py) kills.
//
//   crash_child record FOLDER SEED   records from several threads, forks now and then, until it is killed
//   crash_child recover FOLDER       brings what is left into the rows file; prints the report
//   crash_child check FOLDER         compares the rows with what was accepted; exit status 1 when they differ
//
// FOLDER/accepted-<writer> is mapped memory in which every thread notes how many of its records were
// accepted; FOLDER/rows is the sink's file; FOLDER/journal the journal.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdio>
#include <random>

#include "recorder/testing.h"

namespace {

using namespace rubriscope;
using namespace rubriscope::testing;

constexpr int kThreads = 3;
constexpr std::int64_t kThreadStride = std::int64_t{1} << 40;

struct Accepted {
  std::atomic<std::int64_t> counts[kThreads];
};

Accepted* map_accepted(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
  if (file < 0 || ::ftruncate(file, sizeof(Accepted)) != 0)
    throw std::runtime_error("cannot make " + path.string());
  void* const memory = ::mmap(nullptr, sizeof(Accepted), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  if (memory == MAP_FAILED) throw std::runtime_error("cannot map " + path.string());
  return static_cast<Accepted*>(memory);
}

/// A record with captures of changing length, so that sizes and alignments vary.
bool publish_varied(Recorder& recorder, std::uint32_t schema, std::int64_t step, std::uint32_t random) {
  const std::uint32_t text = random % 700;
  const std::size_t extras = sizeof(ExtraHeader) + padded(text);
  const std::size_t bytes = kOneSlotBytes + extras;
  RecordHeader* record = nullptr;
  while ((record = recorder.try_reserve(bytes)) == nullptr) {
    if (!recorder.wait_for_room(bytes)) return false;
  }
  fill(record, schema, step, static_cast<double>(step));
  record->extras_bytes = static_cast<std::uint32_t>(extras);
  auto* const at = reinterpret_cast<std::byte*>(record) + kOneSlotBytes;
  const ExtraHeader header{ExtraTag::action, 0, 0, text};
  std::memcpy(at, &header, sizeof header);
  std::memset(at + sizeof header, 'x', padded(text));
  recorder.commit(record);
  return true;
}

int record(const std::filesystem::path& folder, unsigned seed) {
  std::mt19937 random(seed);
  RecorderOptions options;
  options.journal_dir = folder / "journal";
  options.journal_limit_bytes = (64u << 10) << random() % 6;
  options.flush_interval_ms = 1 + static_cast<int>(random() % 20);
  options.block_timeout_s = 60;
  auto sink = std::make_shared<FileSink>(folder / "rows");
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  const auto run = [&](unsigned run_seed) {
    Accepted* const accepted = map_accepted(folder / ("accepted-" + recorder.writer().id));
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::mt19937 mine(run_seed * kThreads + static_cast<unsigned>(t));
        for (std::int64_t i = 0;; ++i) {
          if (!publish_varied(recorder, schema, t * kThreadStride + i, static_cast<std::uint32_t>(mine()))) {
            std::fprintf(stderr, "refused\n");
            ::_exit(3);
          }
          accepted->counts[t].store(i + 1, std::memory_order_release);
          if (mine() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(mine() % 300));
          if (mine() % 512 == 0) recorder.define(one_slot_schema("C" + std::to_string(mine() % 100)));
        }
      });
    }
    for (auto& thread : threads) thread.join();
  };
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // see fork_test.cpp
  // Half of the runs have a child that records beside its parent.
  if (random() % 2 == 0 && ::fork() == 0) run(seed + 1);
#endif
  std::printf("recording\n");
  std::fflush(stdout);
  run(seed);
  return 0;
}

int recover_all(const std::filesystem::path& folder) {
  const RecoveryReport report = recover(
      folder / "journal", std::vector<std::shared_ptr<Sink>>{std::make_shared<FileSink>(folder / "rows")});
  std::printf("{\"journals\": %llu, \"delivered\": %llu, \"torn\": %llu, \"damaged\": %llu, \"kept\": %zu}\n",
              static_cast<unsigned long long>(report.journals),
              static_cast<unsigned long long>(report.delivered), static_cast<unsigned long long>(report.torn),
              static_cast<unsigned long long>(report.damaged), report.kept.size());
  for (const auto& message : report.messages) std::fprintf(stderr, "%s\n", message.c_str());
  return report.damaged == 0 && report.kept.empty() && report.set_aside.empty() ? 0 : 1;
}

int check(const std::filesystem::path& folder) {
  struct Stream {
    std::uint64_t next_sequence = 0;
    std::int64_t counts[kThreads] = {};
  };
  std::map<std::string, Stream> streams;
  for (const auto& row : FileSink::rows(folder / "rows")) {
    Stream& stream = streams[row.writer];
    if (row.sequence < stream.next_sequence) {
      std::fprintf(stderr, "%s: sequence %llu came twice or late\n", row.writer,
                   static_cast<unsigned long long>(row.sequence));
      return 1;
    }
    stream.next_sequence = row.sequence + 1;
    const auto thread = static_cast<std::size_t>(row.step / kThreadStride);
    if (row.step % kThreadStride != stream.counts[thread] || row.score != static_cast<double>(row.step)) {
      std::fprintf(stderr, "%s: thread %zu: record %lld, expected %lld\n", row.writer, thread,
                   static_cast<long long>(row.step % kThreadStride),
                   static_cast<long long>(stream.counts[thread]));
      return 1;
    }
    ++stream.counts[thread];
  }
  std::int64_t total = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("accepted-")) continue;
    const Accepted* const accepted = map_accepted(entry.path());
    const Stream& stream = streams[name.substr(9)];
    for (int t = 0; t < kThreads; ++t) {
      const std::int64_t count = accepted->counts[t].load();
      // The record that was being noted when the process died may be there as well.
      if (stream.counts[t] < count || stream.counts[t] > count + 1) {
        std::fprintf(stderr, "%s: thread %d: %lld accepted, %lld stored\n", name.c_str(), t,
                     static_cast<long long>(count), static_cast<long long>(stream.counts[t]));
        return 1;
      }
      total += count;
    }
  }
  std::error_code error;
  if (std::filesystem::exists(folder / "journal", error) && !std::filesystem::is_empty(folder / "journal")) {
    std::fprintf(stderr, "the journal folder is not empty\n");
    return 1;
  }
  std::printf("%lld\n", static_cast<long long>(total));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string what = argv[1];
  const std::filesystem::path folder = argv[2];
  try {
    if (what == "record" && argc == 4) return record(folder, static_cast<unsigned>(std::atoi(argv[3])));
    if (what == "recover") return recover_all(folder);
    if (what == "check") return check(folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 4;
  }
  return 2;
}
