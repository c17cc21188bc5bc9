#include "rubriscope/core/clock.h"

#include <array>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace rubriscope {

namespace {

bool counter_is_invariant() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0x80000000u, &a, &b, &c, &d) == 0 || a < 0x80000007u) return false;
  __get_cpuid(0x80000007u, &a, &b, &c, &d);
  return (d & (1u << 8)) != 0;
#elif defined(__aarch64__)
  return true;  // the architecture's generic timer runs at a constant rate
#else
  return false;
#endif
}

// ns = ticks * ratio / 2^32
constexpr int kRatioBits = 32;

struct Anchor {
  std::atomic<std::uint64_t> ticks{0};
  std::atomic<std::int64_t> wall_ns{0};
  std::atomic<std::int64_t> monotonic_ns{0};
  std::atomic<std::uint64_t> ratio{std::uint64_t{1} << kRatioBits};
};

// Anchors are written round robin and never freed. A reader that finds its anchor overwritten while it read
// (it was stopped for many seconds) starts again; it never waits for a writer, so a writer that a fork cut
// off cannot hang it.
constexpr std::uint64_t kAnchors = 16;
std::array<Anchor, kAnchors> g_anchors;
std::atomic<std::uint64_t> g_current{0};  // number of the newest anchor
std::atomic_flag g_refreshing = ATOMIC_FLAG_INIT;

struct Sample {
  std::uint64_t ticks;
  std::int64_t wall_ns;
  std::int64_t monotonic_ns;
};

// The tightest of a few readings: an interrupt between the two clocks would skew the anchor.
Sample sample_clocks() {
  Sample best{};
  std::uint64_t best_width = ~std::uint64_t{0};
  for (int attempt = 0; attempt < 5; ++attempt) {
    const std::uint64_t before = ticks();
    const std::int64_t monotonic = detail::read_clock(CLOCK_MONOTONIC);
    const std::int64_t wall = detail::read_clock(CLOCK_REALTIME);
    const std::uint64_t after = ticks();
    if (after - before < best_width) {
      best_width = after - before;
      best = {before + (after - before) / 2, wall, monotonic};
    }
  }
  return best;
}

std::uint64_t ratio_between(const Sample& from, const Sample& to) {
  const std::uint64_t tick_count = to.ticks - from.ticks;
  if (tick_count == 0) return std::uint64_t{1} << kRatioBits;
  const auto ns = static_cast<unsigned __int128>(to.monotonic_ns - from.monotonic_ns);
  return static_cast<std::uint64_t>((ns << kRatioBits) / tick_count);
}

void publish(const Sample& sample, std::uint64_t ratio) {
  const std::uint64_t number = g_current.load(std::memory_order_relaxed) + 1;
  Anchor& anchor = g_anchors[number % kAnchors];
  anchor.ticks.store(sample.ticks, std::memory_order_relaxed);
  anchor.wall_ns.store(sample.wall_ns, std::memory_order_relaxed);
  anchor.monotonic_ns.store(sample.monotonic_ns, std::memory_order_relaxed);
  anchor.ratio.store(ratio, std::memory_order_relaxed);
  g_current.store(number, std::memory_order_release);
}

// The first sample stays as the far end of every calibration: the longer the base, the better the ratio.
Sample g_first;

Sample calibrate_at_load() {
  const Sample first = sample_clocks();
  // Half a millisecond gives about 1e-4; the first refresh_clock() makes it better.
  Sample later = first;
  while (later.monotonic_ns - first.monotonic_ns < 500'000) later = sample_clocks();
  publish(later, ratio_between(first, later));
  return first;
}

struct AnchorCopy {
  std::uint64_t ticks;
  std::int64_t wall_ns;
  std::int64_t monotonic_ns;
  std::uint64_t ratio;
};

AnchorCopy read_anchor() {
  for (;;) {
    const std::uint64_t number = g_current.load(std::memory_order_acquire);
    const Anchor& anchor = g_anchors[number % kAnchors];
    const AnchorCopy copy{
        anchor.ticks.load(std::memory_order_relaxed), anchor.wall_ns.load(std::memory_order_relaxed),
        anchor.monotonic_ns.load(std::memory_order_relaxed), anchor.ratio.load(std::memory_order_relaxed)};
    std::atomic_thread_fence(std::memory_order_acquire);
    if (g_current.load(std::memory_order_relaxed) - number < kAnchors - 1) return copy;
  }
}

std::int64_t scaled(std::int64_t tick_count, std::uint64_t ratio) {
  return static_cast<std::int64_t>((static_cast<__int128>(tick_count) * ratio) >> kRatioBits);
}

}  // namespace

namespace detail {
const bool kInvariantCounter = counter_is_invariant();
}  // namespace detail

namespace {
[[maybe_unused]] const bool g_calibrated = (g_first = calibrate_at_load(), true);
}  // namespace

std::uint64_t ticks_to_ns(std::uint64_t tick_count) {
  const std::uint64_t number = g_current.load(std::memory_order_acquire);
  const std::uint64_t ratio = g_anchors[number % kAnchors].ratio.load(std::memory_order_relaxed);
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(tick_count) * ratio) >> kRatioBits);
}

void ticks_to_ns(const std::uint64_t* tick_counts, std::uint64_t* ns, std::size_t count) {
  const std::uint64_t number = g_current.load(std::memory_order_acquire);
  const std::uint64_t ratio = g_anchors[number % kAnchors].ratio.load(std::memory_order_relaxed);
  for (std::size_t i = 0; i < count; ++i) {
    ns[i] =
        static_cast<std::uint64_t>((static_cast<unsigned __int128>(tick_counts[i]) * ratio) >> kRatioBits);
  }
}

ClockTimes clock_times(std::uint64_t at_ticks) {
  const AnchorCopy anchor = read_anchor();
  const std::int64_t since = scaled(static_cast<std::int64_t>(at_ticks - anchor.ticks), anchor.ratio);
  return {anchor.wall_ns + since, anchor.monotonic_ns + since};
}

std::int64_t wall_ns(std::uint64_t at_ticks) { return clock_times(at_ticks).wall_ns; }

std::int64_t monotonic_ns(std::uint64_t at_ticks) { return clock_times(at_ticks).monotonic_ns; }

void refresh_clock() {
  if (g_refreshing.test_and_set(std::memory_order_acquire)) return;  // another drain thread is at it
  const std::uint64_t now = ticks();
  const Anchor& current = g_anchors[g_current.load(std::memory_order_relaxed) % kAnchors];
  const std::uint64_t at = current.ticks.load(std::memory_order_relaxed);
  const std::uint64_t age = ticks_to_ns(now - at);
  const std::uint64_t base = ticks_to_ns(at - g_first.ticks);
  if (age >= 1'000'000'000 || age >= 8 * base) {  // sooner while the base of the ratio is short
    const Sample sample = sample_clocks();
    publish(sample, ratio_between(g_first, sample));
  }
  g_refreshing.clear(std::memory_order_release);
}

void reset_clock_after_fork() { g_refreshing.clear(std::memory_order_release); }

}  // namespace rubriscope
