// Recovery: who may take a journal, where its records go, what stays.
#include "rubriscope/recorder/recovery.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>

#include "recorder/testing.h"
#include "rubriscope/recorder/owner.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

class Recovery : public ::testing::Test {
 protected:
  std::filesystem::path base() const { return folder_ / "journal"; }

  /// A process that publishes `count` records into sinks of these targets, none of which takes any, and dies.
  void leave_journal(int count, const std::vector<std::string>& targets = {"memory:"}) {
    const pid_t child = ::fork();
    if (child == 0) {
      set_report([](std::string_view, std::string_view) {});
      std::vector<std::shared_ptr<Sink>> sinks;
      for (const auto& target : targets) {
        auto sink = std::make_shared<MemorySink>(target);
        sink->set_before_write([](const Batch&) { throw SinkError("down", true); });
        sinks.push_back(sink);
      }
      SessionInfo session;
      session.name = "run";
      session.metadata_json = R"({"lr":1})";
      WriterInfo writer;
      writer.rank = 2;
      writer.world_size = 4;
      Recorder recorder(session, writer, sinks, options_in(base()));
      const std::uint32_t schema = recorder.define(one_slot_schema());
      for (int i = 0; i < count; ++i) publish(recorder, schema, i, i);
      ::kill(::getpid(), SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
  }

  bool is_empty() const {
    std::error_code error;
    return !std::filesystem::exists(base(), error) || std::filesystem::is_empty(base());
  }

  TemporaryFolder folder_;
};

TEST_F(Recovery, BringsSessionWriterSchemaAndRecords) {
  leave_journal(50);
  const std::vector<JournalInfo> listed = list_journals(base());
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_FALSE(listed[0].owner_alive);
  EXPECT_EQ(listed[0].pending_records, 50u);
  EXPECT_EQ(listed[0].session.name, "run");
  EXPECT_EQ(listed[0].targets, std::vector<std::string>{"memory:"});
  EXPECT_GT(listed[0].bytes, 0u);

  class Checking : public MemorySink {
   public:
    void open(const SessionInfo& session, const WriterInfo& writer) override {
      EXPECT_EQ(session.name, "run");
      EXPECT_EQ(session.metadata_json, R"({"lr":1})");
      EXPECT_EQ(writer.rank, 2);
      EXPECT_EQ(writer.world_size, 4);
      EXPECT_NE(writer.pid, ::getpid());
      MemorySink::open(session, writer);
    }
    void write(const Batch& batch) override {
      for (const RecordView& record : batch.records) {
        EXPECT_EQ(record.schema->slots.at(0).paths.at(0), "root");
      }
      MemorySink::write(batch);
    }
  };
  auto sink = std::make_shared<Checking>();
  std::vector<std::uint64_t> progress;
  const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{sink},
                                        [&](const auto&, std::uint64_t done, std::uint64_t total) {
                                          progress.push_back(done);
                                          EXPECT_EQ(total, 50u);
                                        });
  EXPECT_EQ(report.journals, 1u);
  EXPECT_EQ(report.delivered, 50u);
  EXPECT_EQ(progress.back(), 50u);
  const std::vector<Seen> seen = sink->all();
  ASSERT_EQ(seen.size(), 50u);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    EXPECT_EQ(seen[i].sequence, i);
    EXPECT_EQ(seen[i].score, static_cast<double>(i));
    EXPECT_TRUE(seen[i].recovered);
  }
  EXPECT_TRUE(is_empty());
  EXPECT_EQ(recover(base(), std::vector<std::shared_ptr<Sink>>{sink}).journals, 0u);
  EXPECT_EQ(sink->closes, 0);
}

TEST_F(Recovery, AFolderThatIsNotThereHoldsNoJournals) {
  EXPECT_EQ(recover(folder_ / "nothing", std::vector<std::shared_ptr<Sink>>{}).journals, 0u);
  EXPECT_TRUE(list_journals(folder_ / "nothing").empty());
}

TEST_F(Recovery, LeavesALivingWriterAloneInThisProcessToo) {
  auto sink = std::make_shared<MemorySink>();
  RecorderOptions options = options_in(base());
  options.flush_interval_ms = 60000;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  auto other = std::make_shared<MemorySink>();
  for (int i = 0; i < 3; ++i) {
    const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{other});
    EXPECT_EQ(report.left_alone.size(), 1u);
    EXPECT_TRUE(list_journals(base()).at(0).owner_alive);
  }
  // And from another process, before and after this one has looked at its own lock.
  const pid_t child = ::fork();
  if (child == 0) {
    auto mine = std::make_shared<MemorySink>();
    const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{mine});
    ::_exit(report.left_alone.size() == 1 && report.delivered == 0 && list_journals(base()).at(0).owner_alive
                ? 0
                : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(other->all().empty());
  EXPECT_EQ(recorder.flush(10), 1u);
}

TEST_F(Recovery, AFailingSinkKeepsTheJournalAndTheOthersGoOn) {
  leave_journal(20, {"memory:bad", "memory:good"});
  auto bad = std::make_shared<MemorySink>("memory:bad");
  auto good = std::make_shared<MemorySink>("memory:good");
  bad->set_before_write([](const Batch&) { throw SinkError("still down", true); });
  const RecoveryReport first = recover(base(), std::vector<std::shared_ptr<Sink>>{bad, good});
  ASSERT_EQ(first.kept.size(), 1u);
  EXPECT_EQ(good->all().size(), 20u);
  ASSERT_FALSE(first.messages.empty());
  EXPECT_NE(first.messages[0].find("still down"), std::string::npos);
  bad->set_before_write({});
  const RecoveryReport second = recover(base(), std::vector<std::shared_ptr<Sink>>{bad, good});
  EXPECT_EQ(second.delivered, 20u);
  EXPECT_EQ(bad->all().size(), 20u);
  EXPECT_EQ(good->all().size(), 20u);  // its cursor says that it has them
  EXPECT_TRUE(is_empty());
}

TEST_F(Recovery, ATargetThatCannotBeOpenedHereDoesNotHoldTheJournalIfAnotherTookIt) {
  leave_journal(20, {"python:Mine", "memory:good"});
  auto good = std::make_shared<MemorySink>("memory:good");
  const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{good});
  EXPECT_EQ(good->all().size(), 20u);
  EXPECT_TRUE(report.kept.empty());
  EXPECT_TRUE(is_empty());
}

TEST_F(Recovery, WithoutAnySinkTheJournalStays) {
  leave_journal(20, {"python:Mine"});
  const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{});
  EXPECT_EQ(report.kept.size(), 1u);
  EXPECT_EQ(report.delivered, 0u);
  auto mine = std::make_shared<MemorySink>("python:Mine");
  EXPECT_EQ(recover(base(), std::vector<std::shared_ptr<Sink>>{mine}).delivered, 20u);
}

TEST_F(Recovery, AFactoryThatThrowsKeepsTheJournal) {
  leave_journal(5);
  const RecoveryReport report = recover(
      base(), [](const std::string&) -> std::shared_ptr<Sink> { throw FormatError("not a database"); });
  ASSERT_EQ(report.kept.size(), 1u);
  EXPECT_NE(report.messages.at(0).find("not a database"), std::string::npos);
}

TEST_F(Recovery, TheConsoleIsNotReplayed) {
  leave_journal(20, {"console:"});
  auto console = std::make_shared<MemorySink>("console:");
  console->recovers = false;
  const RecoveryReport report = recover(base(), std::vector<std::shared_ptr<Sink>>{console});
  EXPECT_TRUE(console->all().empty());
  EXPECT_TRUE(report.kept.empty());
  EXPECT_TRUE(is_empty());
}

TEST_F(Recovery, OlderWritersComeFirst) {
  leave_journal(3);
  leave_journal(3);
  leave_journal(3);
  std::vector<std::string> expected;
  for (const JournalInfo& info : list_journals(base())) expected.push_back(info.writer.id);
  auto sink = std::make_shared<MemorySink>();
  EXPECT_EQ(recover(base(), std::vector<std::shared_ptr<Sink>>{sink}).journals, 3u);
  std::vector<std::string> order;
  for (const Seen& seen : sink->all()) {
    if (order.empty() || order.back() != seen.writer) order.push_back(seen.writer);
  }
  EXPECT_EQ(order, expected);
}

TEST_F(Recovery, SeveralAtOnceTakeEachJournalOnce) {
  for (int i = 0; i < 6; ++i) leave_journal(30);
  auto sink = std::make_shared<FileSink>(folder_ / "rows");
  const std::string target = "memory:";
  std::vector<pid_t> children;
  for (int c = 0; c < 3; ++c) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::vector<std::thread> threads;
      std::atomic<int> wrong{0};
      for (int t = 0; t < 2; ++t) {
        threads.emplace_back([&] {
          const RecoveryReport report = recover(
              base(), [&](const std::string&) { return std::make_shared<FileSink>(folder_ / "rows"); });
          if (!report.kept.empty() || !report.set_aside.empty()) ++wrong;
        });
      }
      for (auto& thread : threads) thread.join();
      ::_exit(wrong);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  std::map<std::string, std::uint64_t> next;
  for (const auto& row : FileSink::rows(folder_ / "rows")) EXPECT_EQ(row.sequence, next[row.writer]++);
  EXPECT_EQ(next.size(), 6u);
  for (const auto& [writer, count] : next) EXPECT_EQ(count, 30u);
  EXPECT_TRUE(is_empty());
}

TEST_F(Recovery, LeavesOtherPeoplesFilesAlone) {
  std::filesystem::create_directories(base() / "notes");
  std::ofstream(base() / "notes" / "a.txt") << "mine";
  std::ofstream(base() / "segment-1") << "mine";
  leave_journal(3);
  auto sink = std::make_shared<MemorySink>();
  recover(base(), std::vector<std::shared_ptr<Sink>>{sink});
  EXPECT_EQ(sink->all().size(), 3u);
  EXPECT_TRUE(std::filesystem::exists(base() / "notes" / "a.txt"));
  EXPECT_TRUE(std::filesystem::exists(base() / "segment-1"));
}

TEST(JournalDir, StandsBesideAFileAndElsewhereForTheRest) {
  EXPECT_EQ(journal_dir_for("sqlite:///data/runs.db"), "/data/runs.db.rubriscope");
  EXPECT_EQ(journal_dir_for("jsonl:/data/run.jsonl"), "/data/run.jsonl.rubriscope");
  EXPECT_EQ(journal_dir_for("/data/runs.db"), "/data/runs.db.rubriscope");
  EXPECT_EQ(journal_dir_for("runs.db"), std::filesystem::absolute("runs.db.rubriscope"));
  ::setenv("XDG_STATE_HOME", "/state", 1);
  const auto one = journal_dir_for("postgresql://me:secret@host/db");
  EXPECT_EQ(one.parent_path(), "/state/rubriscope");
  EXPECT_EQ(one, journal_dir_for("postgresql://me:changed@host/db"));
  EXPECT_EQ(one, journal_dir_for("postgresql://me@host/db"));
  EXPECT_NE(one, journal_dir_for("postgresql://me:secret@host/other"));
  ::unsetenv("XDG_STATE_HOME");
  ::setenv("HOME", "/home/me", 1);
  EXPECT_EQ(journal_dir_for("console:").parent_path(), "/home/me/.local/state/rubriscope");
}

}  // namespace
}  // namespace rubriscope
