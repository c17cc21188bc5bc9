#include "rubriscope/trace/trace_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>

#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

std::string event(const std::string& id, const std::string& parent, std::size_t padding = 0) {
  return "{\"trace_id\":\"" + id + "\",\"parent_id\":" + (parent.empty() ? "null" : "\"" + parent + "\"") +
         ",\"hrm_layer\":\"memory\",\"duration_ms\":1.5,\"status\":\"success\",\"metadata\":{\"x\":\"" +
         std::string(padding, 'y') + "\"}}";
}

std::vector<std::string> ids_of(TraceFile& file, bool forwards) {
  std::vector<std::string> ids;
  const TraceFile::Visit visit = [&](const TraceLine& line, std::string_view) {
    ids.emplace_back(line.trace_id);
    return true;
  };
  if (forwards) {
    file.forwards(0, visit, {});
  } else {
    file.backwards(visit, {});
  }
  return ids;
}

TEST(TraceFile, BothDirectionsSeeEveryLineAcrossBlocks) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "t.jsonl").string();
  std::mt19937 dice(7);
  std::vector<std::string> expected;
  {
    std::ofstream out(path);
    for (int i = 0; i < 2000; ++i) {
      expected.push_back("x_" + std::to_string(i));
      // Some lines are longer than a block.
      out << event(expected.back(), "", i % 500 == 3 ? 3'000'000 : dice() % 3000) << '\n';
    }
  }
  TraceFile file(path);
  EXPECT_EQ(ids_of(file, true), expected);
  std::reverse(expected.begin(), expected.end());
  EXPECT_EQ(ids_of(file, false), expected);
  EXPECT_EQ(file.corrupt(), 0U);
}

TEST(TraceFile, ATreeIsFoundFromAnyOfItsIds) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "t.jsonl").string();
  // Parents before and after their children, as processes that share a file write them.
  std::ofstream(path) << event("c", "b") << '\n'
                      << event("other", "") << '\n'
                      << event("a", "") << "\nbroken\n"
                      << event("b", "a") << '\n'
                      << event("d", "c") << '\n';
  TraceFile file(path);
  for (const char* id : {"a", "b", "c", "d"}) EXPECT_EQ(file.tree(id, {}).size(), 4U) << id;
  EXPECT_EQ(file.tree("other", {}).size(), 1U);
  EXPECT_TRUE(file.tree("none", {}).empty());
  EXPECT_GT(file.corrupt(), 0U);
}

TEST(TraceFile, EmptyAndUnfinished) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder.path() / "t.jsonl").string();
  std::ofstream(path).flush();
  EXPECT_TRUE(ids_of(*std::make_unique<TraceFile>(path), true).empty());
  EXPECT_TRUE(ids_of(*std::make_unique<TraceFile>(path), false).empty());
  const std::string whole = event("a", "") + "\n";
  std::ofstream(path) << whole << event("b", "");
  TraceFile file(path);
  EXPECT_EQ(ids_of(file, true), std::vector<std::string>{"a"});
  EXPECT_EQ(file.forwards(0, [](const TraceLine&, std::string_view) { return true; }, {}), whole.size());
}

TEST(TraceLine, TakesAnyOrderAndRefusesWhatIsNoEvent) {
  TraceLine line;
  ASSERT_TRUE(read_trace_line(
      R"( {"status" : "error", "more":[{"trace_id":"no"},"]"], "hrm_layer":"a\"b", "trace_id":"t" } )",
      line));
  EXPECT_EQ(line.trace_id, "t");
  EXPECT_EQ(line.layer, R"(a\"b)");
  EXPECT_EQ(line.parent_id.data(), nullptr);
  const std::string good = event("a", "b");
  ASSERT_TRUE(read_trace_line(good, line));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(read_trace_line(std::string_view(good).substr(0, size), line)) << size;
  }
}

TEST(TraceLine, ReadsIsoTimes) {
  EXPECT_EQ(read_timestamp("2026-01-13T14:00:00"), 1'768'312'800'000'000'000);
  EXPECT_EQ(read_timestamp("2026-01-13T15:30:00.5+01:30"), 1'768'312'800'500'000'000);
  EXPECT_EQ(read_timestamp("2026-01-13 14:00:00.000000001Z"), 1'768'312'800'000'000'001);
  for (const char* bad :
       {"", "2026", "2026-02-30T00:00:00", "2026-01-13T24:00:00", "2026-01-13T14:00:00+1"}) {
    EXPECT_EQ(read_timestamp(bad), std::nullopt) << bad;
  }
}

TEST(DurationSketch, QuantilesAreWithinOnePercent) {
  std::mt19937_64 dice(3);
  std::lognormal_distribution<double> draw(12, 3);
  DurationSketch sketch;
  std::vector<double> all;
  EXPECT_EQ(sketch.quantile(0.5), 0);
  for (int i = 0; i < 20'001; ++i) {
    all.push_back(std::floor(draw(dice)));
    sketch.add(static_cast<std::uint64_t>(all.back()));
  }
  std::sort(all.begin(), all.end());
  for (const double share : {0.01, 0.5, 0.95, 0.99}) {
    const double exact = all[static_cast<std::size_t>(std::ceil(share * 20'001)) - 1];
    EXPECT_NEAR(sketch.quantile(share), exact, exact * 0.01) << share;
  }
}

}  // namespace
}  // namespace rubriscope
