// Moments and how they combine, and the bins of magnitudes: shared by the CPU kernel and cuda/stats.cu.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

/// Number of elements, their mean, and the sum of squares about it.
struct Moments {
  double count, mean, squares;
};

/// Of both runs together (Chan, Golub, LeVeque 1979).
RUBRISCOPE_HD Moments combined(const Moments& a, const Moments& b) {
  if (a.count == 0) return b;
  if (b.count == 0) return a;
  const double count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
  return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}

/// Moments from sums of differences to a shift and of their squares.
RUBRISCOPE_HD Moments shifted_moments(double count, double shift, double sum, double squares) {
  if (count == 0) return {0, 0, 0};
  const double mean = sum / count, about = squares - sum * mean;
  return {count, shift + mean, about < 0 ? 0 : about};
}

/// Magnitudes fall into bins by powers of two: bin b has 2^(b − 64) ≤ |x| < 2^(b − 63), the first also
/// everything smaller but 0, the last everything greater but Inf.
constexpr int kMagnitudeBins = 128;

/// The float32 exponent with its bias, whatever the dtype: 0 below 2^−126 (and for 0), 254 from 2^127 on,
/// 255 for NaN and Inf.
RUBRISCOPE_HD int bin_of_exponent_byte(int byte) {
  const int bin = byte - 63;
  return bin < 0 ? 0 : bin < kMagnitudeBins ? bin : kMagnitudeBins - 1;
}

/// The same of a float64's 11 bits.
RUBRISCOPE_HD int exponent_byte_of_double(int bits) {
  if (bits == 2047) return 255;
  const int byte = bits - 1023 + 127;
  return byte < 0 ? 0 : byte > 254 ? 254 : byte;
}

}  // namespace rubriscope::ops
