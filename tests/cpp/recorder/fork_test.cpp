// Forks: a child records as a writer of its own, and neither it nor its end disturbs the parent.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <set>

#include "recorder/testing.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

std::map<std::string, std::vector<std::int64_t>> by_writer(const std::filesystem::path& path) {
  std::map<std::string, std::vector<std::int64_t>> all;
  for (const auto& row : FileSink::rows(path)) all[row.writer].push_back(row.step);
  return all;
}

/// Forks and waits; the child's status is what `body` returns.
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

// A child's first record starts a thread, which gets the stack, and so the id, of a thread its parent had.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
// ThreadSanitizer dies of a thread that a forked child starts; AddressSanitizer's allocator locks are not
// taken over a fork, so a child hangs when another thread was inside malloc.
#define SKIP_UNDER_SANITIZER() GTEST_SKIP() << "the sanitizer's run-time does not survive a fork with threads"
#else
#define SKIP_UNDER_SANITIZER() static_cast<void>(0)
#endif

TEST(Fork, AChildIsAWriterOfItsOwn) {
  SKIP_UNDER_SANITIZER();
  TemporaryFolder folder;
  auto sink = std::make_shared<FileSink>(folder / "rows");
  WriterInfo writer;
  writer.rank = 3;
  Recorder recorder({}, writer, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 100; ++i) publish(recorder, schema, i);
  EXPECT_EQ(in_child([&] {
              if (recorder.flush(1) != 0) return 1;
              if (recorder.writer().pid != ::getpid() || recorder.writer().rank != 3) return 2;
              if (recorder.schema(schema)->slots.size() != 1) return 3;
              for (int i = 1000; i < 1050; ++i) {
                if (!publish(recorder, schema, i)) return 4;
              }
              const std::uint32_t another = recorder.define(one_slot_schema("Child"));
              if (another != schema + 1) return 5;
              publish(recorder, another, 1050);
              if (recorder.flush(10) != 51) return 6;
              if (recorder.stats().accepted != 51) return 7;
              recorder.close();
              return 0;
            }),
            0);
  for (int i = 100; i < 200; ++i) publish(recorder, schema, i);
  recorder.close();
  const auto rows = by_writer(folder / "rows");
  ASSERT_EQ(rows.size(), 2u);
  const std::vector<std::int64_t>& parent = rows.at(recorder.writer().id);
  ASSERT_EQ(parent.size(), 200u);
  for (std::size_t i = 0; i < parent.size(); ++i) EXPECT_EQ(parent[i], static_cast<std::int64_t>(i));
  for (const auto& [id, steps] : rows) {
    if (id == recorder.writer().id) continue;
    ASSERT_EQ(steps.size(), 51u);
    EXPECT_EQ(steps.front(), 1000);
    EXPECT_EQ(steps.back(), 1050);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder / "journal"));
}

TEST(Fork, AChildThatNeverRecordsExitsCleanly) {
  TemporaryFolder folder;
  auto sink = std::make_shared<MemorySink>();
  auto recorder = std::make_unique<Recorder>(
      SessionInfo{}, WriterInfo{}, std::vector<std::shared_ptr<Sink>>{sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder->define(one_slot_schema());
  publish(*recorder, schema, 0);
  EXPECT_EQ(in_child([&] {
              recorder.reset();  // as at interpreter exit
              return sink->abandons == 1 && sink->closes == 0 ? 0 : 1;
            }),
            0);
  EXPECT_EQ(in_child([&] {
              recorder.release();
              return 0;
            }),
            0);
  publish(*recorder, schema, 1);
  EXPECT_EQ(recorder->flush(10), 2u);
  EXPECT_EQ(list_journals(folder / "journal").size(), 1u);
}

TEST(Fork, AChildDoesNotHaveTheParentsMap) {
  TemporaryFolder folder;
  Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
  const auto mapped_segments = [] {
    std::ifstream maps("/proc/self/maps");
    int found = 0;
    for (std::string line; std::getline(maps, line);) found += line.find("/segment-") != std::string::npos;
    return found;
  };
  EXPECT_GT(mapped_segments(), 0);
  EXPECT_EQ(in_child(mapped_segments), 0);
}

TEST(Fork, ForkingInTheMiddleOfEverythingDisturbsNobody) {
  SKIP_UNDER_SANITIZER();
  TemporaryFolder folder;
  auto sink = std::make_shared<FileSink>(folder / "rows");
  RecorderOptions options = options_in(folder / "journal");
  options.journal_limit_bytes = 128 << 10;
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> published{0};
  std::vector<std::thread> producers;
  for (int t = 0; t < 3; ++t) {
    producers.emplace_back([&, t] {
      while (!stop) {
        recorder.define(one_slot_schema("T" + std::to_string(t)));
        if (publish(recorder, schema, published)) ++published;
        std::this_thread::sleep_for(std::chrono::microseconds(50));  // the children read all rows
      }
    });
  }
  constexpr int kChildren = 20;
  for (int c = 0; c < kChildren; ++c) {
    EXPECT_EQ(in_child([&] {
                for (int i = 0; i < 20; ++i) {
                  if (!publish(recorder, schema, -1 - c)) return 1;
                }
                recorder.close();
                return 0;
              }),
              0)
        << c;
  }
  stop = true;
  for (auto& producer : producers) producer.join();
  recorder.close();
  const auto rows = by_writer(folder / "rows");
  EXPECT_EQ(rows.size(), 1u + kChildren);
  EXPECT_EQ(rows.at(recorder.writer().id).size(), static_cast<std::size_t>(published));
  for (const auto& [id, steps] : rows) {
    if (id == recorder.writer().id) continue;
    EXPECT_EQ(steps.size(), 20u);
  }
}

TEST(Fork, AKilledChildIsRecoveredWhileTheParentLives) {
  SKIP_UNDER_SANITIZER();
  TemporaryFolder folder;
  auto sink = std::make_shared<FileSink>(folder / "rows");
  RecorderOptions options = options_in(folder / "journal");
  options.flush_interval_ms = 60000;  // so that nothing is drained
  Recorder recorder({}, {}, {sink}, options);
  const std::uint32_t schema = recorder.define(one_slot_schema());
  for (int i = 0; i < 10; ++i) publish(recorder, schema, i);
  EXPECT_EQ(in_child([&] {
              for (int i = 100; i < 110; ++i) publish(recorder, schema, i);
              ::kill(::getpid(), SIGKILL);
              return 0;
            }),
            -SIGKILL);
  EXPECT_EQ(list_journals(folder / "journal").size(), 2u);
  const RecoveryReport report = recover(
      folder / "journal", std::vector<std::shared_ptr<Sink>>{std::make_shared<FileSink>(folder / "rows")});
  EXPECT_EQ(report.delivered, 10u);
  ASSERT_EQ(report.left_alone.size(), 1u);
  EXPECT_EQ(report.left_alone[0].filename(), recorder.writer().id);
  EXPECT_EQ(recorder.flush(10), 10u);
  recorder.close();
  EXPECT_EQ(by_writer(folder / "rows").size(), 2u);
}

TEST(Fork, AGrandchildWorksToo) {
  SKIP_UNDER_SANITIZER();
  TemporaryFolder folder;
  auto sink = std::make_shared<FileSink>(folder / "rows");
  Recorder recorder({}, {}, {sink}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  EXPECT_EQ(in_child([&] {
              publish(recorder, schema, 1);
              const int grandchild = in_child([&] {
                publish(recorder, schema, 2);
                recorder.close();
                return 0;
              });
              recorder.close();
              return grandchild;
            }),
            0);
  recorder.close();
  EXPECT_EQ(by_writer(folder / "rows").size(), 3u);
}

TEST(Fork, AfterCloseAChildRecordsNothing) {
  TemporaryFolder folder;
  ReportLog reports;
  Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  recorder.close();
  EXPECT_EQ(in_child([&] { return publish(recorder, schema, 0) ? 1 : 0; }), 0);
}

TEST(Fork, AChildThatCannotMakeAJournalSaysSoAndGoesOn) {
  TemporaryFolder folder;
  ReportLog reports;
  Recorder recorder({}, {}, {std::make_shared<MemorySink>()}, options_in(folder / "journal"));
  const std::uint32_t schema = recorder.define(one_slot_schema());
  publish(recorder, schema, 0);
  EXPECT_EQ(in_child([&] {
              std::filesystem::remove_all(folder / "journal");
              std::ofstream(folder / "journal") << "in the way";
              for (int i = 0; i < 5; ++i) {
                if (publish(recorder, schema, i)) return 1;
              }
              const int status =
                  recorder.stats().dropped == 5 && reports.count("a forked child cannot record") == 1 ? 0 : 2;
              recorder.close();
              return status;
            }),
            0);
}

}  // namespace
}  // namespace rubriscope
