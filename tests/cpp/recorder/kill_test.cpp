// SIGKILL at every named point of the journal's protocol: each accepted record arrives once, in order.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <algorithm>

#include "recorder/testing.h"
#include "rubriscope/recorder/fault_point.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

#ifdef RUBRISCOPE_FAULT_POINTS

/// What a child tells its parent, in memory that outlives it.
struct Shared {
  std::atomic<std::int64_t> accepted;  ///< publish() has returned for all steps below this
  std::atomic<bool> finished;
};

class Kill : public ::testing::Test {
 protected:
  Kill() {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_ = new (memory) Shared{};
  }
  ~Kill() override { ::munmap(shared_, sizeof(Shared)); }

  /// Runs `body` in a child that dies at the nth pass through `point`; returns whether it was killed.
  bool killed_at(const char* point, unsigned long nth, const std::function<void()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      set_report([](std::string_view, std::string_view) {});
      arm_fault_point(point, nth);
      int status = 0;
      try {
        body();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "child: %s\n", error.what());
        status = 1;
      }
      ::_exit(status);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << point;
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }

  RecorderOptions options() const {
    RecorderOptions options = options_in(folder_ / "journal");
    options.journal_limit_bytes = 64 << 10;
    options.segment_bytes = 8 << 10;
    options.flush_interval_ms = 1;
    return options;
  }

  /// Records for a few laps, with schemas defined on the way, then closes.
  void record_a_run() {
    auto sink = std::make_shared<FileSink>(folder_ / "rows");
    Recorder recorder({}, {}, {sink}, options());
    std::uint32_t schema = recorder.define(one_slot_schema("First"));
    for (std::int64_t step = 0; step < 1500; ++step) {
      if (step % 100 == 50) schema = recorder.define(one_slot_schema("Class" + std::to_string(step)));
      RecordHeader* record = nullptr;
      while ((record = recorder.try_reserve(kOneSlotBytes)) == nullptr) {
        if (!recorder.wait_for_room(kOneSlotBytes)) throw std::runtime_error("refused");
      }
      fill(record, schema, step, 0.5);
      std::memset(reinterpret_cast<std::byte*>(record + 1) + 4, 0xee, 12);  // half a body
      RUBRISCOPE_FAULT_POINT("body.half");
      fill(record, schema, step, 0.5);
      recorder.commit(record);
      shared_->accepted.store(step + 1);
    }
    recorder.close();
    shared_->finished.store(true);
  }

  RecoveryReport recover_now() {
    return recover(folder_ / "journal",
                   std::vector<std::shared_ptr<Sink>>{std::make_shared<FileSink>(folder_ / "rows")});
  }

  /// Every accepted record is there once, in order; one more may be there: the one that was being accepted.
  void expect_everything_once(const std::string& where) {
    const auto rows = FileSink::rows(folder_ / "rows");
    const auto accepted = static_cast<std::uint64_t>(shared_->accepted.load());
    EXPECT_GE(rows.size(), accepted) << where;
    EXPECT_LE(rows.size(), accepted + 1) << where;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      ASSERT_EQ(rows[i].step, static_cast<std::int64_t>(i)) << where;
      ASSERT_EQ(rows[i].sequence, i) << where;
      ASSERT_EQ(rows[i].score, 0.5) << where;
    }
  }

  void expect_no_journal(const std::string& where) {
    std::error_code missing;
    if (!std::filesystem::exists(folder_ / "journal", missing)) return;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "journal")) {
      ADD_FAILURE() << where << " left " << entry.path();
    }
  }

  void start_over() {
    std::filesystem::remove_all(folder_ / "journal");
    std::filesystem::remove(folder_ / "rows");
    shared_->accepted = 0;
    shared_->finished = false;
  }

  TemporaryFolder folder_;
  Shared* shared_;
};

struct Point {
  const char* name;
  std::vector<unsigned long> passes;
};

TEST_F(Kill, AtEveryPointOfRecording) {
  const std::vector<unsigned long> records{1, 2, 60, 71, 72, 500, 777, 1499, 1500};
  const std::vector<Point> points{
      {"reserve.length", records},
      {"reserve.sequence", records},
      {"reserve.head", records},
      {"reserve.done", records},
      {"body.half", records},
      {"commit.before", records},
      {"commit.checksum", records},
      {"commit.done", records},
      {"switch.before", {1, 2, 3, 10, 20}},
      {"switch.after", {1, 2, 3, 10, 20}},
      {"drain.before_write", {1, 2, 3, 5}},
      {"drain.after_write", {1, 2, 3, 5}},
      {"cursor.before", {1, 2, 3, 5}},
      {"cursor.half", {1, 2, 3, 4, 5, 6}},
      {"cursor.after", {1, 2, 3, 5}},
      {"define.before", {1, 2, 3, 4, 5, 10}},
      {"define.half", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20}},
      {"define.copied", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20}},
      {"grow.created", {1, 2, 3}},
      {"grow.renamed", {1, 2, 3}},
      {"lap.half", {1, 2, 3, 4, 10}},
      {"lap.identity", {1, 2, 3, 4, 10}},
      {"recycle.before", {1, 2, 10}},
      {"recycle.lap", {1, 2, 10}},
      {"recycle.renamed", {1, 2, 10}},
      {"open.folder", {1}},
      {"open.locked", {1}},
      {"open.definitions", {1}},
      {"open.segments", {1}},
      {"open.renamed", {1}},
      {"close.sink", {1}},
      {"close.drained", {1}},
      {"close.renamed", {1}},
      {"close.removing", {1, 2, 3, 4}},
  };
  for (const Point& point : points) {
    int kills = 0;
    for (const unsigned long nth : point.passes) {
      const std::string where = std::string(point.name) + ":" + std::to_string(nth);
      start_over();
      const bool killed = killed_at(point.name, nth, [this] { record_a_run(); });
      kills += killed ? 1 : 0;
      EXPECT_TRUE(killed || shared_->finished.load()) << where;
      const RecoveryReport report = recover_now();
      EXPECT_EQ(report.damaged, 0u) << where;
      EXPECT_TRUE(report.set_aside.empty()) << where;
      EXPECT_TRUE(report.kept.empty())
          << where << ": " << (report.messages.empty() ? "" : report.messages[0]);
      EXPECT_LE(report.torn, 1u) << where;
      expect_everything_once(where);
      expect_no_journal(where);
    }
    // How often a point is passed varies with the drain's timing, but each one is passed.
    EXPECT_GT(kills, 0) << point.name << " was never reached";
  }
}

TEST_F(Kill, AtEveryPointOfRecovery) {
  const std::vector<Point> points{
      {"recover.taken", {1}},        {"recover.before_write", {1, 2, 3}}, {"recover.after_write", {1, 2, 3}},
      {"cursor.half", {1, 2, 3, 4}}, {"recover.after_cursor", {1, 2, 3}}, {"recover.delivered", {1}},
      {"recover.renamed", {1}},      {"close.removing", {1, 2, 5}},
  };
  for (const Point& point : points) {
    int kills = 0;
    for (const unsigned long nth : point.passes) {
      const std::string where = std::string(point.name) + ":" + std::to_string(nth);
      start_over();
      ASSERT_TRUE(killed_at("commit.done", 400, [this] {
        // A sink that never works: everything is left to recovery, over several segments.
        class Broken : public FileSink {
         public:
          using FileSink::FileSink;
          void write(const Batch&) override { throw SinkError("down", true); }
        };
        auto sink = std::make_shared<Broken>(folder_ / "rows");
        Recorder recorder({}, {}, {sink}, options());
        const std::uint32_t schema = recorder.define(one_slot_schema());
        for (std::int64_t step = 0;; ++step) {
          publish(recorder, schema, step);
          shared_->accepted.store(step + 1);
        }
      }));
      kills += killed_at(point.name, nth, [this] { recover_now(); }) ? 1 : 0;
      const RecoveryReport report = recover_now();
      EXPECT_EQ(report.damaged, 0u) << where;
      EXPECT_TRUE(report.kept.empty()) << where;
      expect_everything_once(where);
      expect_no_journal(where);
    }
    EXPECT_GT(kills, 0) << point.name << " was never reached";
  }
}

TEST_F(Kill, ASinkWithoutIdentityGetsEverythingAtLeastOnceAndInOrder) {
  for (const char* point : {"drain.before_write", "drain.after_write", "cursor.half", "cursor.after"}) {
    start_over();
    class Anonymous : public FileSink {
     public:
      using FileSink::FileSink;
      bool stores_identity() const override { return false; }
    };
    ASSERT_TRUE(killed_at(point, 2, [this] {
      auto sink = std::make_shared<Anonymous>(folder_ / "rows");
      Recorder recorder({}, {}, {sink}, options());
      const std::uint32_t schema = recorder.define(one_slot_schema());
      for (std::int64_t step = 0; step < 1000; ++step) {
        publish(recorder, schema, step);
        shared_->accepted.store(step + 1);
        if (step % 50 == 0) recorder.flush(10);
      }
    }));
    recover(folder_ / "journal",
            std::vector<std::shared_ptr<Sink>>{std::make_shared<Anonymous>(folder_ / "rows")});
    std::vector<std::uint64_t> firsts;
    for (const auto& row : FileSink::rows(folder_ / "rows")) {
      if (firsts.empty() || row.sequence > firsts.back()) firsts.push_back(row.sequence);
    }
    ASSERT_GE(firsts.size(), static_cast<std::size_t>(shared_->accepted.load())) << point;
    for (std::size_t i = 0; i < firsts.size(); ++i) ASSERT_EQ(firsts[i], i) << point;
  }
}

TEST_F(Kill, TwoSinksEachGetWhatTheyLack) {
  // One sink has everything, the other nothing when the process dies.
  ASSERT_TRUE(killed_at("commit.done", 300, [this] {
    class Broken : public FileSink {
     public:
      using FileSink::FileSink;
      void write(const Batch&) override { throw SinkError("down", true); }
    };
    auto works = std::make_shared<FileSink>(folder_ / "rows");
    auto broken = std::make_shared<Broken>(folder_ / "others");
    Recorder recorder({}, {}, {works, broken}, options());
    const std::uint32_t schema = recorder.define(one_slot_schema());
    for (std::int64_t step = 0;; ++step) {
      publish(recorder, schema, step);
      shared_->accepted.store(step + 1);
      if (step == 200) {
        EXPECT_THROW(recorder.flush(0.1), TimeoutError);
      }
    }
  }));
  const RecoveryReport report =
      recover(folder_ / "journal",
              std::vector<std::shared_ptr<Sink>>{std::make_shared<FileSink>(folder_ / "rows"),
                                                 std::make_shared<FileSink>(folder_ / "others")});
  EXPECT_EQ(report.delivered, 300u);
  expect_everything_once("rows");
  const auto others = FileSink::rows(folder_ / "others");
  ASSERT_EQ(others.size(), FileSink::rows(folder_ / "rows").size());
  for (std::size_t i = 0; i < others.size(); ++i) EXPECT_EQ(others[i].sequence, i);
}

#endif

}  // namespace
}  // namespace rubriscope
