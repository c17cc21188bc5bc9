// Informational. What publishing a record costs the caller, and how much the pipe carries.
//
//   journal_bench [records = 4000000] [threads = 1] [folder = /tmp]
//
// Records are those of the 13-node tree (slots 13, no captures): 80 + 224 bytes. Prints one JSON object:
// nanoseconds for ticks(), checksum() of 400 bytes and publishing a record (median, p99, p99.9, p99.99 of
// single calls with the drain running, the timer's own cost taken off), and records a second through a null
// sink.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "rubriscope/core/clock.h"
#include "rubriscope/recorder/recorder.h"

namespace {

using namespace rubriscope;

constexpr std::uint16_t kSlots = 13;
constexpr std::size_t kBytes = sizeof(RecordHeader) + arrays_bytes(kSlots);

class NullSink : public Sink {
 public:
  std::string target() const override { return "null:"; }
  void open(const SessionInfo&, const WriterInfo&) override {}
  void write(const Batch& batch) override {
    for (const RecordView& record : batch.records) sum += record.scores()[0];
  }
  double sum = 0;
};

void publish(Recorder& recorder, std::uint32_t schema, std::int64_t step, std::uint64_t at) {
  RecordHeader* record = recorder.try_reserve(kBytes);
  while (record == nullptr && recorder.wait_for_room(kBytes)) record = recorder.try_reserve(kBytes);
  if (record == nullptr) std::abort();
  const ClockTimes times = clock_times(at);
  record->kind = RecordKind::snapshot;
  record->slots = kSlots;
  record->schema = schema;
  record->time_ns = times.wall_ns;
  record->monotonic_ns = times.monotonic_ns;
  record->step = step;
  record->group = kNoGroup;
  record->sample = kNoSample;
  record->thread = 1;
  record->extras_bytes = 0;
  auto* const scores = reinterpret_cast<double*>(record + 1);
  for (int i = 0; i < kSlots; ++i) scores[i] = 0.5;
  auto* const durations = reinterpret_cast<std::uint64_t*>(scores + kSlots);
  for (int i = 0; i < kSlots; ++i) durations[i] = 100;
  std::memset(durations + kSlots, 1, padded(kSlots));
  recorder.commit(record);
}

double percentile(const std::vector<std::uint32_t>& sorted, double fraction) {
  const auto index = static_cast<std::size_t>(fraction * static_cast<double>(sorted.size() - 1));
  return static_cast<double>(ticks_to_ns(sorted[index] * std::uint64_t{1000})) / 1000;
}

template <class Body>
double ns_each(int count, Body&& body) {
  const std::int64_t start = detail::read_clock(CLOCK_MONOTONIC);
  for (int i = 0; i < count; ++i) body(i);
  return static_cast<double>(detail::read_clock(CLOCK_MONOTONIC) - start) / count;
}

}  // namespace

int main(int argc, char** argv) {
  const std::int64_t records = argc > 1 ? std::atoll(argv[1]) : 4'000'000;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 1;
  const std::filesystem::path folder = std::filesystem::path(argc > 3 ? argv[3] : "/tmp") / "journal-bench";
  std::filesystem::remove_all(folder);
  refresh_clock();

  std::vector<std::uint64_t> buffer(50, 7);
  std::uint64_t kept = 0;
  const double ns_ticks = ns_each(1'000'000, [&](int) { kept += ticks(); });
  const double ns_times =
      ns_each(1'000'000, [&](int) { kept += static_cast<std::uint64_t>(clock_times(kept).wall_ns); });
  const double ns_checksum = ns_each(1'000'000, [&](int i) {
    buffer[0] = static_cast<std::uint64_t>(i);
    kept += checksum(buffer.data(), 400);
  });

  RecorderOptions options;
  options.journal_dir = folder;
  auto sink = std::make_shared<NullSink>();
  Recorder recorder({}, {}, {sink}, options);
  Schema tree;
  for (int i = 0; i < kSlots; ++i) tree.slots.push_back({{"node_" + std::to_string(i)}, "Bench"});
  const std::uint32_t schema = recorder.define(tree);

  // Latency of single calls, at a pace a fast training loop could have.
  std::vector<std::uint32_t> latencies;
  latencies.reserve(1'000'000);
  std::uint64_t timer = ~std::uint64_t{0};
  for (int i = 0; i < 1000; ++i) {
    const std::uint64_t before = ticks();
    timer = std::min(timer, ticks() - before);
  }
  for (int i = 0; i < 1'000'000; ++i) {
    const std::uint64_t before = ticks();
    publish(recorder, schema, i, before);
    const std::uint64_t spent = ticks() - before;
    latencies.push_back(static_cast<std::uint32_t>(spent - std::min(timer, spent)));
    const std::uint64_t resume = ticks() + 500;
    while (ticks() < resume) {
    }
  }
  std::sort(latencies.begin(), latencies.end());
  recorder.flush(60);

  const std::int64_t start = detail::read_clock(CLOCK_MONOTONIC);
  std::vector<std::thread> producers;
  for (int t = 0; t < threads; ++t) {
    producers.emplace_back([&, t] {
      for (std::int64_t i = t; i < records; i += threads) publish(recorder, schema, i, ticks());
    });
  }
  for (auto& producer : producers) producer.join();
  const std::int64_t produced = detail::read_clock(CLOCK_MONOTONIC);
  recorder.flush(60);
  const std::int64_t drained = detail::read_clock(CLOCK_MONOTONIC);

  std::printf(
      "{\"ticks_ns\": %.1f, \"clock_times_ns\": %.1f, \"checksum_400_ns\": %.1f, \"publish_ns\": "
      "{\"median\": %.0f, "
      "\"p99\": %.0f, \"p999\": %.0f, \"p9999\": %.0f, \"max\": %.0f}, \"threads\": %d, \"records\": %lld, "
      "\"publish_each_ns\": %.1f, \"durable_per_s\": %.0f, \"journal_bytes\": %llu, \"dropped\": %llu}\n",
      ns_ticks, ns_times, ns_checksum, percentile(latencies, 0.5), percentile(latencies, 0.99),
      percentile(latencies, 0.999), percentile(latencies, 0.9999), percentile(latencies, 1), threads,
      static_cast<long long>(records),
      static_cast<double>(produced - start) * threads / static_cast<double>(records),
      static_cast<double>(records) * 1e9 / static_cast<double>(drained - start),
      static_cast<unsigned long long>(recorder.stats().journal_bytes),
      static_cast<unsigned long long>(recorder.stats().dropped));
  recorder.close();
  std::filesystem::remove_all(folder);
  return sink->sum > 0 && kept != 0 ? 0 : 1;
}
