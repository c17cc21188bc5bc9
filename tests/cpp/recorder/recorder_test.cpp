// The recorder in one living process: delivery, failure of sinks, a full journal, threads.
#include "rubriscope/recorder/recorder.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <set>

#include "recorder/testing.h"
#include "rubriscope/recorder/drain.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

std::vector<std::int64_t> steps(const std::vector<Seen>& seen) {
  std::vector<std::int64_t> all;
  for (const Seen& record : seen) all.push_back(record.step);
  return all;
}

std::vector<std::int64_t> counting(std::int64_t n) {
  std::vector<std::int64_t> all(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) all[static_cast<std::size_t>(i)] = i;
  return all;
}

TEST(Recorder, DeliversInOrderAndLeavesNothingBehind) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  EXPECT_EQ(recorder.flush(10), 1000u);
  EXPECT_EQ(steps(sink->all()), counting(1000));
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(sink->seen[i].sequence, i);
  for (int i = 1000; i < 1010; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  recorder.close();
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(1010));
  EXPECT_EQ(sink->opens, 1);
  EXPECT_EQ(sink->closes, 1);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "journal"));
  const RecorderStats stats = recorder.stats();
  EXPECT_EQ(stats.accepted, 1010u);
  EXPECT_EQ(stats.durable, 1010u);
  EXPECT_EQ(stats.pending, 0u);
  EXPECT_EQ(stats.dropped, 0u);
  EXPECT_EQ(stats.journal_bytes, 0u);
}

TEST(Recorder, RefusesAfterClose) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  recorder.close();
  EXPECT_EQ(recorder.try_reserve(kOneSlotBytes), nullptr);
  EXPECT_FALSE(publish(recorder, schema, 0));
  EXPECT_EQ(recorder.stats().dropped, 1u);
  EXPECT_EQ(recorder.flush(1), 0u);
  EXPECT_TRUE(recorder.closed());
  EXPECT_EQ(recorder.define(one_slot_schema("Later")), 1u);  // a new tree after the end is no error
}

TEST(Recorder, GoesThroughManyLapsOfASmallJournal) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  constexpr int kRecords = 50000;  // about 80 times the journal
  for (int i = 0; i < kRecords; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  EXPECT_LE(recorder.stats().journal_bytes, options.journal_limit_bytes);
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(kRecords));
}

TEST(Recorder, RecordsOfEverySizeSurviveTheLaps) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  Recorder recorder({}, {}, {sink}, options);
  Schema wide;
  for (int i = 0; i < 300; ++i) wide.slots.push_back({{"n" + std::to_string(i)}, ""});
  const std::uint32_t schema = recorder.define(wide);
  for (int i = 0; i < 3000; ++i) {
    const auto slots = static_cast<std::uint16_t>(1 + i * 7 % 300);
    const std::size_t bytes = sizeof(RecordHeader) + arrays_bytes(slots);
    RecordHeader* record = nullptr;
    while ((record = recorder.try_reserve(bytes)) == nullptr) ASSERT_TRUE(recorder.wait_for_room(bytes));
    fill(record, schema, i, i);
    record->slots = slots;
    recorder.commit(record);
  }
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(3000));
}

TEST(Recorder, RefusesARecordNoSegmentCanHold) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  Recorder recorder({}, {}, {sink}, options);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(recorder.try_reserve(1 << 20), nullptr);
    EXPECT_FALSE(recorder.wait_for_room(1 << 20));
  }
  EXPECT_EQ(recorder.try_reserve(8), nullptr);
  EXPECT_EQ(recorder.stats().dropped, 3u);
  EXPECT_EQ(reports.count("is refused"), 1);
}

TEST(Recorder, EightThreadsLoseNothing) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 256 << 10;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  constexpr int kEach = 5000;
  std::vector<std::thread> producers;
  std::atomic<int> refused{0};
  for (int t = 0; t < 8; ++t) {
    producers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        if (!publish(recorder, schema, t * kEach + i, t)) ++refused;
      }
    });
  }
  for (auto& producer : producers) producer.join();
  recorder.close();
  EXPECT_EQ(refused, 0);
  const std::vector<Seen> seen = sink->all();
  ASSERT_EQ(seen.size(), 8u * kEach);
  std::map<int, std::int64_t> last;
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].sequence, i);
    const int thread = static_cast<int>(seen[i].score);
    const auto before = last.find(thread);
    EXPECT_EQ(seen[i].step, before == last.end() ? thread * kEach : before->second + 1);
    last[thread] = seen[i].step;
  }
}

TEST(Recorder, EverySinkGetsEverything) {
  TemporaryFolder folder;
  auto one = std::make_shared<MemorySink>("memory:one");
  auto two = std::make_shared<FileSink>(folder / "rows");
  Recorder recorder({}, {}, {one, two}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 100; ++i) publish(recorder, schema, i);
  recorder.close();
  EXPECT_EQ(one->all().size(), 100u);
  EXPECT_EQ(FileSink::rows(folder / "rows").size(), 100u);
}

TEST(Recorder, ASlowSinkDoesNotKeepTheOtherWaiting) {
  TemporaryFolder folder;
  auto slow = std::make_shared<MemorySink>("memory:slow");
  auto fast = std::make_shared<MemorySink>("memory:fast");
  std::atomic<bool> go{false};
  slow->keeps = true;
  slow->set_before_write([&](const Batch&) {
    if (!go) throw SinkError("busy", true);
  });
  Recorder recorder({}, {}, {slow, fast}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 100; ++i) publish(recorder, schema, i);
  EXPECT_TRUE(eventually([&] { return fast->all().size() == 100; }));
  EXPECT_EQ(slow->all().size(), 0u);
  go = true;
  EXPECT_EQ(recorder.flush(10), 100u);
  EXPECT_EQ(steps(slow->all()), counting(100));
}

TEST(Recorder, SinksShareTimeNotRecords) {
  TemporaryFolder folder;
  auto slow = std::make_shared<MemorySink>("memory:slow");
  auto fast = std::make_shared<MemorySink>("memory:fast");
  // A whole batch of 8192 takes 1.6 s, and all of them 8 s.
  slow->set_before_write([&](const Batch& batch) {
    std::this_thread::sleep_for(std::chrono::microseconds(200) * batch.records.size());
  });
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 16 << 20;
  Recorder recorder({}, {}, {slow, fast}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  constexpr int kRecords = 40'000;
  for (int i = 0; i < kRecords; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  EXPECT_TRUE(eventually([&] { return fast->all().size() == kRecords; }));
  const std::size_t taken = slow->all().size();
  EXPECT_LT(taken, kRecords / 2u);  // by records the slow one would have as many
  slow->set_before_write({});
  EXPECT_EQ(recorder.flush(30), std::uint64_t{kRecords});
  EXPECT_EQ(steps(slow->all()), counting(kRecords));
}

TEST(Recorder, ASinkWhoseWritesCostTheSameKeepsLargeBatches) {
  TemporaryFolder folder;
  auto far = std::make_shared<MemorySink>("memory:far");
  auto fast = std::make_shared<MemorySink>("memory:fast");
  std::size_t largest = 0;
  std::atomic<int> writes{0};
  far->set_before_write([&](const Batch& batch) {
    std::this_thread::sleep_for(std::chrono::milliseconds(210));
    ++writes;
    largest = std::max(largest, batch.records.size());
  });
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 16 << 20;
  Recorder recorder({}, {}, {far, fast}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  constexpr int kRecords = 60'000;
  for (int i = 0; i < kRecords; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  EXPECT_EQ(recorder.flush(60), std::uint64_t{kRecords});
  recorder.close();
  // Cut to half until a cut is found to be in vain, then whole batches: 8 of these would do for all.
  EXPECT_EQ(largest, 8192u);
  EXPECT_LT(writes, 20);
  EXPECT_EQ(steps(far->all()), counting(kRecords));
}

TEST(Recorder, SaysWhichSinkIsBehindWhileTheOtherGoesOn) {
  TemporaryFolder folder;
  ReportLog reports;
  auto down = std::make_shared<MemorySink>("memory:down");
  auto fine = std::make_shared<MemorySink>("memory:fine");
  std::atomic<bool> works{false};
  down->set_before_write([&](const Batch&) {
    if (!works) throw SinkError("connection refused", true);
  });
  RecorderOptions options = options_in(folder / "journal");
  options.lag_report_ms = 50;
  Recorder recorder({}, {}, {down, fine}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 10; ++i) publish(recorder, schema, i);
  // Once for each interval that it lasts.
  EXPECT_TRUE(eventually([&] { return reports.count("memory:down: 10 records behind, failing for ") >= 2; }));
  EXPECT_EQ(fine->all().size(), 10u);
  const RecorderStats stats = recorder.stats();
  EXPECT_EQ(stats.sinks.at(0).pending, 10u);
  EXPECT_EQ(stats.sinks.at(1).pending, 0u);
  EXPECT_GT(stats.journal_bytes, 0u);
  works = true;
  EXPECT_EQ(recorder.flush(10), 10u);
  EXPECT_EQ(steps(down->all()), counting(10));
  EXPECT_TRUE(eventually([&] { return reports.count("info: memory:down: has caught up") == 1; }));
  EXPECT_EQ(reports.count("memory:fine"), 0);
}

TEST(Recorder, AFailingSinkIsRetriedAndReportedOnce) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  std::atomic<bool> works{false};
  sink->set_before_write([&](const Batch&) {
    if (!works) throw SinkError("the database is locked", true);
  });
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 10; ++i) publish(recorder, schema, i);
  try {
    recorder.flush(0.2);
    FAIL() << "flush() must not succeed";
  } catch (const TimeoutError& error) {
    EXPECT_NE(std::string(error.what()).find("memory:: 10 outstanding (the database is locked)"),
              std::string::npos)
        << error.what();
  }
  const SinkStats failing = recorder.stats().sinks.at(0);
  EXPECT_TRUE(failing.failing);
  EXPECT_EQ(failing.last_error, "the database is locked");
  EXPECT_EQ(failing.pending, 10u);
  EXPECT_EQ(failing.durable, 0u);
  works = true;
  EXPECT_EQ(recorder.flush(10), 10u);
  EXPECT_FALSE(recorder.stats().sinks.at(0).failing);
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(10));
  EXPECT_EQ(reports.count("the database is locked"), 1);
  EXPECT_EQ(reports.count("info: memory:: works again"), 1);
}

TEST(Recorder, ASinkThatDoesNotKeepBatchesGivesUpAndCounts) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>("python:Broken");
  sink->keeps = false;
  sink->set_before_write([](const Batch& batch) {
    if (batch.records.front().header->step < 5) throw std::runtime_error("a bug");
  });
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 5; ++i) publish(recorder, schema, i);
  EXPECT_EQ(recorder.flush(10), 0u);
  for (int i = 5; i < 8; ++i) publish(recorder, schema, i);
  EXPECT_EQ(recorder.flush(10), 3u);
  EXPECT_EQ(recorder.stats().failed, 5u);
  EXPECT_EQ(recorder.stats().durable, 3u);
  recorder.close();
  EXPECT_EQ(steps(sink->all()), (std::vector<std::int64_t>{5, 6, 7}));
  EXPECT_EQ(reports.count("gave up 5 records"), 1);
}

TEST(Recorder, ARetryNeverWritesTwiceIntoASinkThatStoresIdentity) {
  TemporaryFolder folder;
  ReportLog reports;
  // Stores, then says that it failed.
  class Liar : public FileSink {
   public:
    using FileSink::FileSink;
    void write(const Batch& batch) override {
      FileSink::write(batch);
      if (lies-- > 0) throw SinkError("connection lost", true);
    }
    int lies = 1;
  };
  auto sink = std::make_shared<Liar>(folder / "rows");
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 20; ++i) publish(recorder, schema, i);
  EXPECT_EQ(recorder.flush(10), 20u);
  recorder.close();
  const auto rows = FileSink::rows(folder / "rows");
  ASSERT_EQ(rows.size(), 20u);
  for (std::size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].sequence, i);
}

TEST(Recorder, DropNewestRefusesAtOnce) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  std::atomic<bool> works{false};
  sink->set_before_write([&](const Batch&) {
    if (!works) throw SinkError("down", true);
  });
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  options.on_full = OnFull::drop_newest;
  options.block_timeout_s = 1000;  // would hang if it waited
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  int accepted = 0, refused = 0;
  while (refused < 10) (publish(recorder, schema, accepted) ? accepted : refused) += 1;
  EXPECT_GT(accepted, 400);
  EXPECT_EQ(recorder.stats().dropped, 10u);
  EXPECT_EQ(reports.count("is full"), 1);
  works = true;
  recorder.flush(10);
  EXPECT_TRUE(publish(recorder, schema, accepted));
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(accepted + 1));
}

TEST(Recorder, BlockWaitsOnceThenRefusesUntilThereIsRoom) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  std::atomic<bool> works{false};
  sink->set_before_write([&](const Batch&) {
    if (!works) throw SinkError("down", true);
  });
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  options.block_timeout_s = 1;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  int accepted = 0;
  while (publish(recorder, schema, accepted)) ++accepted;
  // The first refusal took a second; 1000 more that waited would take a quarter of an hour.
  for (int i = 0; i < 1000; ++i) ASSERT_FALSE(publish(recorder, schema, -1));
  EXPECT_EQ(recorder.stats().dropped, 1001u);
  works = true;
  recorder.flush(10);
  const int first_round = accepted;
  works = false;
  // Full again: it waits again instead of refusing, and is woken when the sink comes back.
  std::thread repair([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    works = true;
  });
  for (int i = 0; i < 2 * first_round; ++i) {
    if (publish(recorder, schema, accepted)) ++accepted;
  }
  repair.join();
  EXPECT_EQ(accepted, 3 * first_round);
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(accepted));
}

// The room that a waiting producer saw may be gone by its next look: it has to try, not to be refused.
TEST(Recorder, RoomThatWasSeenCountsAlsoWhenAnotherTakesIt) {
  Drain drain({}, {}, {std::make_shared<MemorySink>()}, [] { return std::vector<SchemaPtr>(); }, 1, 1000);
  int looks = 0;
  EXPECT_TRUE(drain.wait([&] { return ++looks == 1; }, 10));
  EXPECT_EQ(looks, 1);
}

TEST(Recorder, WaitingProducersAreWokenByClose) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  sink->set_before_write([&](const Batch&) { throw SinkError("down", true); });
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  options.block_timeout_s = 1000;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  std::atomic<int> accepted{0};
  std::thread producer([&] {
    while (publish(recorder, schema, accepted)) ++accepted;
  });
  eventually([&] { return accepted > 400; });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  recorder.close();
  producer.join();
  EXPECT_EQ(reports.count("the records stay in"), 1);
  EXPECT_EQ(sink->closes, 1);
  // What the sink did not take is there for recovery, in the same process too.
  sink->set_before_write({});
  const RecoveryReport report = recover(folder / "journal", std::vector<std::shared_ptr<Sink>>{sink});
  EXPECT_EQ(report.delivered, static_cast<std::uint64_t>(accepted));
  EXPECT_EQ(steps(sink->all()), counting(accepted));
}

TEST(Recorder, AnOpenThatMayBeRetriedDoesNotStopTheRun) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  std::atomic<bool> works{false};
  sink->before_open = [&] {
    if (!works) throw SinkError("locked", true);
  };
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  EXPECT_TRUE(recorder.stats().sinks.at(0).failing);
  works = true;
  EXPECT_EQ(recorder.flush(10), 1u);
}

TEST(Recorder, AnOpenThatCannotSucceedThrowsAndLeavesNothing) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  sink->before_open = [] { throw FormatError("not ours"); };
  EXPECT_THROW(Recorder({}, {}, {sink}, options_in(folder / "journal")), FormatError);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "journal"));
}

TEST(Recorder, FlushFromASinkIsRefused) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  std::atomic<bool> refused{false};
  sink->set_before_write([&](const Batch&) {
    try {
      recorder.flush(1);
    } catch (const TimeoutError&) {
      throw;
    } catch (const Error&) {
      refused = true;
    }
  });
  publish(recorder, schema, 0);
  EXPECT_EQ(recorder.flush(10), 1u);
  EXPECT_TRUE(refused);
}

TEST(Recorder, ARecordBeingFilledHoldsBackThoseBehindIt) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  RecordHeader* const open = recorder.try_reserve(kOneSlotBytes);
  publish(recorder, schema, 2);
  EXPECT_THROW(recorder.flush(0.2), TimeoutError);
  EXPECT_EQ(sink->all().size(), 1u);
  fill(open, schema, 1, 0.5);
  recorder.commit(open);
  EXPECT_EQ(recorder.flush(10), 3u);
  EXPECT_EQ(steps(sink->all()), counting(3));
}

TEST(Recorder, SchemasAreInternedByDefinition) {
  TemporaryFolder folder;
  Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
  const std::uint32_t a = recorder.define(one_slot_schema("A"));
  const std::uint32_t b = recorder.define(one_slot_schema("B"));
  EXPECT_NE(a, b);
  Schema again = one_slot_schema("A");
  again.id = 77;
  EXPECT_EQ(recorder.define(again), a);
  EXPECT_EQ(recorder.schema(b)->slots.at(0).class_name, "B");
  EXPECT_EQ(recorder.schema(b)->id, b);
  EXPECT_THROW(recorder.schema(2), KeyError);
}

TEST(Recorder, ThreadsDefineAtOnce) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        const std::uint32_t id = recorder.define(one_slot_schema("Class" + std::to_string(i)));
        publish(recorder, id, i);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  recorder.close();
  EXPECT_EQ(sink->all().size(), 200u);
  EXPECT_THROW(recorder.schema(50), KeyError);
}

TEST(Recorder, SaysWhatIsWrongWithItsOptions) {
  TemporaryFolder folder;
  const auto sink = std::make_shared<MemorySink>();
  const auto make = [&](auto&& change) {
    RecorderOptions options = options_in(folder / "journal");
    change(options);
    Recorder recorder({}, {}, {sink}, options);
  };
  EXPECT_THROW(make([](auto& o) { o.journal_limit_bytes = 1000; }), ValueError);
  EXPECT_THROW(make([](auto& o) { o.block_timeout_s = -1; }), ValueError);
  EXPECT_THROW(make([](auto& o) { o.flush_interval_ms = 0; }), ValueError);
  EXPECT_THROW(make([](auto& o) { o.journal_dir.clear(); }), ValueError);
  EXPECT_THROW(make([](auto& o) { o.segment_bytes = o.journal_limit_bytes; }), ValueError);
  EXPECT_THROW(Recorder({}, {}, {}, options_in(folder / "journal")), ValueError);
  EXPECT_THROW(Recorder({}, {}, {nullptr}, options_in(folder / "journal")), ValueError);
}

TEST(Recorder, AFolderThatCannotBeMadeIsASystemErrorWithThePath) {
  TemporaryFolder folder;
  std::ofstream(folder / "file") << "x";
  const auto in_the_way = folder / "file" / "journal";
  try {
    Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(in_the_way));
    FAIL();
  } catch (const SystemError& error) {
    EXPECT_EQ(error.code, ENOTDIR);
    EXPECT_NE(std::string(error.what()).find(folder.path().string()), std::string::npos) << error.what();
  }
}

/// Runs in a forked child, whose exit status is what `body` returns.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(Recorder, AReadOnlyFolderIsASystemError) {
  TemporaryFolder folder;
  ::chmod(folder.path().c_str(), 0555);
  EXPECT_EQ(in_child([&] {
              // Root may write anywhere.
              if (::geteuid() == 0 && ::seteuid(65534) != 0) return 2;
              try {
                Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
                return 1;
              } catch (const SystemError& error) {
                return error.code == EACCES && std::string(error.what()).find("journal") != std::string::npos
                           ? 0
                           : 3;
              }
            }),
            0);
  ::chmod(folder.path().c_str(), 0755);
}

TEST(Recorder, ADiskTooFullForTheJournalIsASystemErrorAndLeavesNothing) {
  TemporaryFolder folder;
  EXPECT_EQ(in_child([&] {
              ::signal(SIGXFSZ, SIG_IGN);
              const rlimit limit{16 << 10, 16 << 10};
              ::setrlimit(RLIMIT_FSIZE, &limit);
              try {
                Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
                return 1;
              } catch (const SystemError& error) {
                return error.code == EFBIG ? 0 : 2;
              }
            }),
            0);
  EXPECT_TRUE(std::filesystem::is_empty(folder / "journal"));
}

TEST(Recorder, ADiskThatFillsUpLaterRefusesAndGoesOn) {
  TemporaryFolder folder;
  const auto disk = folder / "disk";
  std::filesystem::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs here";
  {
    ReportLog reports;
    auto sink = std::make_shared<MemorySink>();
    std::atomic<bool> works{false};
    sink->set_before_write([&](const Batch&) {
      if (!works) throw SinkError("down", true);
    });
    RecorderOptions options = options_in(disk / "journal");
    options.journal_limit_bytes = 8 << 20;  // more than the disk holds
    options.segment_bytes = 64 << 10;
    options.block_timeout_s = 0.1;
    Recorder recorder({}, {}, {sink}, options);
    const std::uint32_t schema = recorder.define(one_slot_schema());
    int accepted = 0;
    while (publish(recorder, schema, accepted)) ++accepted;
    EXPECT_GT(accepted, 1000);
    EXPECT_GE(reports.count("cannot grow"), 1);
    works = true;
    recorder.flush(10);
    EXPECT_TRUE(publish(recorder, schema, accepted++));
    recorder.close();
    EXPECT_EQ(steps(sink->all()), counting(accepted));
  }
  ::umount(disk.c_str());
}

TEST(Recorder, DeletingTheJournalFolderDoesNotStopTheRun) {
  TemporaryFolder folder;
  ReportLog reports;
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 64 << 10;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  std::filesystem::remove_all(folder / "journal");
  for (int i = 1; i < 5000; ++i) ASSERT_TRUE(publish(recorder, schema, i));
  recorder.close();
  EXPECT_EQ(steps(sink->all()), counting(5000));
}

TEST(Recorder, MadeWithoutIdsFillsThemIn) {
  TemporaryFolder folder;
  Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
  EXPECT_EQ(recorder.session().id.size(), 36u);
  EXPECT_EQ(recorder.writer().id.size(), 36u);
  EXPECT_EQ(recorder.writer().pid, ::getpid());
  EXPECT_FALSE(recorder.writer().host.empty());
  EXPECT_GT(recorder.writer().started_ns, 0);
}

TEST(PositionCell, ChangesItsVersionWithEveryStore) {
  PositionCell cell;
  EXPECT_EQ(cell->episode(), "0");
  const std::uint64_t before = cell.version();
  cell.store(std::make_shared<Position>("ep-7"));
  EXPECT_NE(cell.version(), before);
  EXPECT_EQ(cell.load()->episode(), "ep-7");
}

}  // namespace
}  // namespace rubriscope
