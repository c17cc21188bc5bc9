// Question: how many snapshots a second does a sink make durable, from records that are already in memory?
//
//   sink_bench sqlite|jsonl|cbor PATH [--seconds 20] [--slots 15] [--batch 4096] [--text 0] [--repeat-steps
//   1] [--ledger 0]
//
// --ledger 1 keeps the session's Merkle tree (sqlite), unsigned;
// --text N adds an action and an observation of N characters; --repeat-steps N scores N samples a step.
// Prints one JSON line. The peer (Python's sqlite3.executemany, 15 rows a step) is in bench/.
#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "record_builder.h"
#include "rubriscope/core/cbor.h"
#include "rubriscope/sinks/jsonl/jsonl_sink.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"

namespace {

using namespace rubriscope;
using namespace rubriscope::testing;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + 1e-6 * t.tv_usec; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr,
                 "usage: %s sqlite|jsonl|cbor PATH [--seconds S] [--slots N] [--batch N] [--text N]\n",
                 argv[0]);
    return 2;
  }
  const std::string which = argv[1];
  const std::string path = argv[2];
  std::map<std::string, double> options{{"--seconds", 20}, {"--slots", 15},       {"--batch", 4096},
                                        {"--text", 0},     {"--repeat-steps", 1}, {"--episode-steps", 0},
                                        {"--ledger", 0}};
  for (int i = 3; i + 1 < argc; i += 2) options[argv[i]] = std::atof(argv[i + 1]);

  const auto batch_size = static_cast<std::size_t>(options["--batch"]);
  const auto slots = static_cast<std::size_t>(options["--slots"]);
  const auto repeat = static_cast<std::int64_t>(options["--repeat-steps"]);
  const auto episode_steps = static_cast<std::int64_t>(options["--episode-steps"]);
  const std::string text(static_cast<std::size_t>(options["--text"]), 'x');

  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> unit(0, 1);
  const SchemaPtr schema = make_tree(slots);
  std::vector<OwnedRecord> records;
  for (std::size_t i = 0; i < batch_size; ++i) {
    RecordBuilder builder(schema);
    builder.episode("0");
    for (std::size_t slot = 0; slot < slots; ++slot) builder.score(slot, unit(random), 100 + random() % 900);
    if (!text.empty()) builder.extra(ExtraTag::action, text).extra(ExtraTag::observation, text);
    records.push_back(builder.build());
  }
  const std::vector<RecordView> batch = views(records);

  SessionInfo session = make_session("bench");
  session.ledger = options["--ledger"] != 0;
  const WriterInfo writer = make_writer();
  std::unique_ptr<Sink> sink;
  if (which == "sqlite") sink = std::make_unique<SqliteSink>(path);
  if (which == "jsonl") sink = std::make_unique<JsonlSink>(path);
  if (sink) sink->open(session, writer);
  CborEncoder encoder(session, writer);
  std::vector<std::byte> bytes;

  std::uint64_t sequence = 0;
  const double cpu_before = cpu_seconds();
  const auto start = Clock::now();
  double slowest = 0;
  while (seconds_since(start) < options["--seconds"]) {
    for (auto& record : records) {
      record.header().sequence = sequence;
      record.header().step = static_cast<std::int64_t>(sequence) / repeat;
      if (episode_steps != 0) record.header().step %= episode_steps;
      record.header().time_ns += 3'000'000;
      ++sequence;
    }
    const auto before = Clock::now();
    if (sink) {
      sink->write({session, writer, batch});
    } else {
      for (const auto& record : batch) {
        bytes.clear();
        encoder.encode(record, bytes);
      }
    }
    slowest = std::max(slowest, seconds_since(before));
  }
  const double wall = seconds_since(start);
  const double cpu = cpu_seconds() - cpu_before;
  if (sink) sink->close();
  std::printf(
      "{\"bench\":\"sink\",\"sink\":\"%s\",\"slots\":%zu,\"batch\":%zu,\"text\":%zu,\"snapshots\":%llu,"
      "\"seconds\":%.2f,\"per_second\":%.0f,\"cpu_ns_per_snapshot\":%.0f,\"slowest_batch_ms\":%.1f}\n",
      which.c_str(), slots, batch_size, text.size(), static_cast<unsigned long long>(sequence), wall,
      static_cast<double>(sequence) / wall, cpu * 1e9 / static_cast<double>(sequence), slowest * 1e3);
  return 0;
}
