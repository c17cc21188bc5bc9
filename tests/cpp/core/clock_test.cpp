// The clock against the system's own clocks.
#include "rubriscope/core/clock.h"

#include <gtest/gtest.h>
#include <time.h>

#include <thread>
#include <vector>

namespace rubriscope {
namespace {

TEST(Clock, TicksNeverGoBackInOneThread) {
  std::uint64_t last = ticks();
  for (int i = 0; i < 100000; ++i) {
    const std::uint64_t now = ticks();
    ASSERT_GE(now, last);
    last = now;
  }
}

TEST(Clock, TheInvariantCounterIsUsedWhereTheKernelTrustsIt) {
#if defined(__x86_64__)
  // The kernel's own verdict, by another way than CPUID.
  FILE* const info = fopen("/proc/cpuinfo", "r");
  ASSERT_NE(info, nullptr);
  bool constant = false, nonstop = false;
  char line[8192];
  while (fgets(line, sizeof line, info) != nullptr) {
    const std::string text = line;
    if (text.rfind("flags", 0) != 0) continue;
    constant = text.find(" constant_tsc") != std::string::npos;
    nonstop = text.find(" nonstop_tsc") != std::string::npos;
    break;
  }
  fclose(info);
  EXPECT_EQ(detail::kInvariantCounter, constant && nonstop);
#else
  GTEST_SKIP() << "x86-64 only";
#endif
}

// Between two readings of the system's clock lies ours, give or take the error of a ratio measured over a
// short time: 1e-3 of the interval plus 50 microseconds.
TEST(Clock, DurationsAgreeWithTheMonotonicClock) {
  const std::int64_t before = detail::read_clock(CLOCK_MONOTONIC);
  const std::uint64_t start = ticks();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  const std::uint64_t end = ticks();
  const std::int64_t after = detail::read_clock(CLOCK_MONOTONIC);
  const auto measured = static_cast<std::int64_t>(ticks_to_ns(end - start));
  EXPECT_LE(measured, (after - before) + (after - before) / 1000 + 50'000);
  EXPECT_GE(measured, 29'000'000);
}

TEST(Clock, TimesLieBetweenTheSystemsReadings) {
  for (int i = 0; i < 20; ++i) {
    refresh_clock();
    const std::int64_t wall_before = detail::read_clock(CLOCK_REALTIME);
    const std::int64_t monotonic_before = detail::read_clock(CLOCK_MONOTONIC);
    const std::uint64_t now = ticks();
    const std::int64_t wall_after = detail::read_clock(CLOCK_REALTIME);
    const std::int64_t monotonic_after = detail::read_clock(CLOCK_MONOTONIC);
    constexpr std::int64_t kError = 1'000'000;  // a millisecond, after at most a second since the anchor
    EXPECT_GE(wall_ns(now), wall_before - kError);
    EXPECT_LE(wall_ns(now), wall_after + kError);
    EXPECT_GE(monotonic_ns(now), monotonic_before - kError);
    EXPECT_LE(monotonic_ns(now), monotonic_after + kError);
    const ClockTimes both = clock_times(now);
    EXPECT_EQ(both.wall_ns, wall_ns(now));
    EXPECT_EQ(both.monotonic_ns, monotonic_ns(now));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(Clock, APointBeforeTheAnchorIsEarlier) {
  const std::uint64_t early = ticks();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  refresh_clock();  // the anchor may now lie after `early`
  const std::uint64_t late = ticks();
  const std::int64_t apart = wall_ns(late) - wall_ns(early);
  EXPECT_GT(apart, 15'000'000);
  EXPECT_LT(apart, 20'000'000'000);
}

TEST(Clock, ReadersAndRefreshersRunAtOnce) {
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      while (!stop) refresh_clock();
    });
  }
  const std::int64_t start = detail::read_clock(CLOCK_MONOTONIC);
  for (int i = 0; i < 200000; ++i) {
    const std::int64_t now = monotonic_ns(ticks());
    ASSERT_GT(now, start - 1'000'000'000);
    ASSERT_LT(now, start + 60'000'000'000);
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace rubriscope
