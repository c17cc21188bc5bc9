// Time for the hot path: a counter that costs a few nanoseconds to read, and its conversion to real time.
//
// ticks() reads the processor's invariant counter (TSC on x86-64, CNTVCT on aarch64) where there is one, else
// the monotonic clock in nanoseconds. An anchor (ticks, wall, monotonic, ratio) maps ticks to time; the drain
// thread renews it about once a second with refresh_clock(). Readers are wait-free.
#pragma once

#include <time.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace rubriscope {

namespace detail {

/// Whether the processor's counter runs at a constant rate in every state; found once when the library loads.
extern const bool kInvariantCounter;

/// Nanoseconds of a POSIX clock.
inline std::int64_t read_clock(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace detail

/// A point in time in counter units. Only differences and conversions have a meaning.
inline std::uint64_t ticks() {
#if defined(__x86_64__)
  if (detail::kInvariantCounter) return __rdtsc();
#elif defined(__aarch64__)
  if (detail::kInvariantCounter) {
    std::uint64_t value;
    asm volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
  }
#endif
  return static_cast<std::uint64_t>(detail::read_clock(CLOCK_MONOTONIC));
}

/// A duration in ticks as nanoseconds.
std::uint64_t ticks_to_ns(std::uint64_t tick_count);

/// `count` durations at once, with one look at the ratio.
void ticks_to_ns(const std::uint64_t* tick_counts, std::uint64_t* ns, std::size_t count);

/// Wall clock (ns since the Unix epoch) at a point given by ticks().
std::int64_t wall_ns(std::uint64_t at_ticks);

/// Monotonic clock (ns) at a point given by ticks().
std::int64_t monotonic_ns(std::uint64_t at_ticks);

/// Both clocks at a point given by ticks(), from one anchor.
struct ClockTimes {
  std::int64_t wall_ns;
  std::int64_t monotonic_ns;
};
ClockTimes clock_times(std::uint64_t at_ticks);

/// Renews the anchor and the ratio if the anchor is older than a second; cheap to call often. Any thread.
void refresh_clock();

/// Clears what another thread may have held at the fork. Called in a forked child.
void reset_clock_after_fork();

}  // namespace rubriscope
