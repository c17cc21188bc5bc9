// A percentile's two order statistics among many numbers, found by counting eight bits at a time from the
// highest: the numbers are not negative, so a double's bits are in its order. Counts and minima are of
// integers and do not depend on who counts first. For the .cu files and what checks them on the CPU.
#pragma once

#include <cmath>
#include <cstdint>

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

constexpr int kDigits = 256;
constexpr int kFirstShift = 56;  ///< of the highest digit; then 48, … 0

RUBRISCOPE_HD unsigned long long bits_of(double value) {
#ifdef __CUDA_ARCH__
  return static_cast<unsigned long long>(__double_as_longlong(value));
#else
  unsigned long long bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

RUBRISCOPE_HD double from_bits(unsigned long long bits) {
#ifdef __CUDA_ARCH__
  return __longlong_as_double(static_cast<long long>(bits));
#else
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

struct Rank {
  unsigned long long prefix;      ///< the bits known so far: in the end the lower statistic
  unsigned long long place;       ///< among the numbers that begin with them
  unsigned long long equal;       ///< how many those are
  unsigned long long next;        ///< the least number above the lower statistic, once found
  unsigned long long first_low;   ///< index of the first number that is the lower statistic, once found
  unsigned long long first_high;  ///< and of the upper one
  double fraction;                ///< of the way from the lower to the upper

  /// Whether a number has the digits known before `shift`.
  RUBRISCOPE_HD bool begins(unsigned long long bits, int shift) const {
    return shift == kFirstShift || (bits >> (shift + 8)) == (prefix >> (shift + 8));
  }
  RUBRISCOPE_HD static int digit(unsigned long long bits, int shift) {
    return static_cast<int>(bits >> shift & (kDigits - 1));
  }
  /// Goes on to the digit in which the place lies, by how often each digit occurs.
  RUBRISCOPE_HD void pick(const unsigned int* counts, int shift) {
    int d = 0;
    while (place >= counts[d]) place -= counts[d++];
    equal = counts[d];
    prefix |= static_cast<unsigned long long>(d) << shift;
  }
  RUBRISCOPE_HD double low() const { return from_bits(prefix); }
  /// The lower statistic again where it occurs once more behind its place, or is the last number.
  RUBRISCOPE_HD double high() const { return place + 1 < equal || next == ~0ull ? low() : from_bits(next); }
};

/// Before the first digit.
RUBRISCOPE_HD Rank start_rank(double percentile, std::int64_t count) {
  const double place = percentile / 100.0 * static_cast<double>(count > 0 ? count - 1 : 0);
  return {0, static_cast<unsigned long long>(place), 0, ~0ull, ~0ull, ~0ull, place - std::floor(place)};
}

}  // namespace rubriscope::ops
