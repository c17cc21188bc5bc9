#include "rubriscope/trace/trace_id.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/trace/layer.h"
#include "rubriscope/trace/summary.h"
#include "rubriscope/trace/timestamp.h"

namespace rubriscope {
namespace {

std::string id_of(const char* layer, std::int64_t seconds, std::uint64_t random) {
  char text[kMostTraceId];
  return {text, write_trace_id(text, layer, seconds, random)};
}

TEST(TraceId, HasLayerSecondsAndSixteenDigits) {
  EXPECT_EQ(id_of("alt", 1705180800, 0x9f86), "alt_1705180800_0000000000009f86");
  EXPECT_EQ(random_part("alt_1705180800_0000000000009f86"), 0x9f86U);
  EXPECT_EQ(random_part("alt_1705180800_a3f2"), 0U);
  EXPECT_EQ(random_part("9f86d081884c7d65"), 0x9f86d081884c7d65U);
}

TEST(TraceId, TheTreesNumberFollowsFromItsRoot) {
  const TraceNumber number = trace_number_of_root("alt_1705180800_9f86d081884c7d65");
  EXPECT_EQ(number.hex(), "65a2fe80616c74009f86d081884c7d65");
  EXPECT_EQ(trace_number_of_root("alt_1_a3f2"), trace_number_of_root("alt_1_a3f2"));
  EXPECT_FALSE(trace_number_of_root("alt_1_a3f2") == trace_number_of_root("alt_1_a3f3"));
  EXPECT_NE(trace_number_of_root("").low, 0U);
}

TEST(TraceId, TheRootFollowsFromTheTreesNumber) {
  for (const char* root : {"alt_1705180800_9f86d081884c7d65", "mem_1_0000000000000001"}) {
    EXPECT_EQ(root_of_trace(trace_number_of_root(root)), root);
  }
  const TraceNumber foreign{0xABABABABABABABABU, 0xCDCDCDCDCDCDCDCDU};
  EXPECT_EQ(root_of_trace(foreign), foreign.hex());
  const TraceNumber none{trace_number_of_root("alt_1_0000000000000001").high, 0};
  EXPECT_EQ(root_of_trace(none), none.hex());
  register_layer("plan", "planner");
  const TraceNumber planned = trace_number_of_root("plan_1_00000000000000ff");
  EXPECT_EQ(root_of_trace(planned), "plan_1_00000000000000ff");
  register_layer("planning", "long_planner");  // the number has its first four characters only
  EXPECT_EQ(root_of_trace(planned), planned.hex());
}

TEST(TraceId, AMillionOfFourThreadsDiffer) {
  std::vector<std::vector<std::uint64_t>> found(4);
  std::vector<std::thread> threads;
  for (auto& own : found) {
    threads.emplace_back([&own] {
      for (int i = 0; i < 250'000; ++i) own.push_back(random_span_id());
    });
  }
  for (auto& thread : threads) thread.join();
  std::vector<std::uint64_t> all;
  for (const auto& own : found) all.insert(all.end(), own.begin(), own.end());
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::adjacent_find(all.begin(), all.end()), all.end());
  EXPECT_NE(all.front(), 0U);
}

TEST(TraceId, AForkedChildHasItsOwn) {
  random_span_id();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::uint64_t own = random_span_id();
    _exit(write(ends[1], &own, sizeof own) == static_cast<ssize_t>(sizeof own) ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  std::uint64_t of_child = 0;
  ASSERT_EQ(read(ends[0], &of_child, sizeof of_child), static_cast<ssize_t>(sizeof of_child));
  EXPECT_NE(of_child, random_span_id());
  close(ends[0]);
  close(ends[1]);
}

TEST(Layer, IsFoundByCodeAndName) {
  EXPECT_EQ(find_layer("mem").name, "memory");
  EXPECT_EQ(find_layer("memory").code, "mem");
  EXPECT_THROW(find_layer("m"), ValueError);
  EXPECT_THROW(register_layer("mem", "other"), ValueError);
  EXPECT_THROW(register_layer("new", "altitude"), ValueError);
  EXPECT_THROW(register_layer("a_b", "ab"), ValueError);
  register_layer("net", "network");
  EXPECT_EQ(find_layer("network").code, "net");
}

TEST(Summary, IsCutBetweenCharacters) {
  EXPECT_EQ(cut_summary("abc", 3), "abc");
  EXPECT_EQ(cut_summary("aé€😀x", 4), "aé€😀");
  EXPECT_EQ(cut_summary("aé€😀x", 2), "aé");
  EXPECT_EQ(cut_summary("", 2), "");
}

TEST(Timestamp, IsIsoInUtc) {
  std::string text;
  append_timestamp(text, 1'768'312'800'000'001'999);
  EXPECT_EQ(text, "2026-01-13T14:00:00.000001+00:00");
  text.clear();
  append_timestamp(text, -1);
  EXPECT_EQ(text, "1969-12-31T23:59:59.999999+00:00");
}

TEST(Timestamp, MillisecondsKeepEveryNanosecond) {
  const auto shown = [](std::uint64_t ns) {
    std::string text;
    append_ms(text, ns);
    return text;
  };
  EXPECT_EQ(shown(0), "0");
  EXPECT_EQ(shown(5'000'000), "5");
  EXPECT_EQ(shown(12'500), "0.0125");
  EXPECT_EQ(shown(1), "0.000001");
}

}  // namespace
}  // namespace rubriscope
