// Z-order (Morton) keys of 42 bits a dimension in two words, for the tree that the .cu files build: sorting
// by `low` and then, stably, by `high` puts the points of all items and both sets into their order at once.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/set_info.h"
#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

constexpr int kZBits = 21;  ///< a dimension in a word

struct ZKey {
  std::uint64_t high, low;
};

/// How the words are used. A segment is one set of one item; its number leads the key.
struct ZLayout {
  int dimensions;
  int high_bits;     ///< a dimension in the high word, after the segment
  int segment_bits;  ///< of the segment's number

  RUBRISCOPE_HD int low_end() const { return kZBits * dimensions; }
  RUBRISCOPE_HD int high_end() const { return high_bits * dimensions + segment_bits; }
};

RUBRISCOPE_HD ZLayout z_layout(std::int64_t segments, std::int64_t dimensions) {
  ZLayout out{static_cast<int>(dimensions), kZBits, 1};
  while (out.segment_bits < 62 && (segments - 1) >> out.segment_bits != 0) ++out.segment_bits;
  const int left = (64 - out.segment_bits) / out.dimensions;
  if (left < out.high_bits) out.high_bits = left;
  return out;
}

/// Bit i of the lowest 21 of `bits` to place i * dimensions.
RUBRISCOPE_HD std::uint64_t z_spread(std::uint64_t bits, int dimensions) {
  if (dimensions == 2) {
    bits = (bits | bits << 16) & 0x0000ffff0000ffffu;
    bits = (bits | bits << 8) & 0x00ff00ff00ff00ffu;
    bits = (bits | bits << 4) & 0x0f0f0f0f0f0f0f0fu;
    bits = (bits | bits << 2) & 0x3333333333333333u;
    bits = (bits | bits << 1) & 0x5555555555555555u;
  } else if (dimensions == 3) {
    bits = (bits | bits << 32) & 0x001f00000000ffffu;
    bits = (bits | bits << 16) & 0x001f0000ff0000ffu;
    bits = (bits | bits << 8) & 0x100f00f00f00f00fu;
    bits = (bits | bits << 4) & 0x10c30c30c30c30c3u;
    bits = (bits | bits << 2) & 0x1249249249249249u;
  }
  return bits;
}

/// The cube of a segment that the keys divide.
struct ZCube {
  double low[3];
  double per_unit;  ///< cells
};

RUBRISCOPE_HD ZCube z_cube(const SetInfo& info, double scale, const ZLayout& layout) {
  ZCube out{{0, 0, 0}, 0};
  double extent = 0;
  for (int k = 0; k < 3; ++k) {
    if (k >= layout.dimensions || info.finite == 0) break;
    out.low[k] = info.low[k] * scale;
    extent = std::fmax(extent, info.high[k] * scale - out.low[k]);
  }
  if (extent > 0) out.per_unit = std::ldexp(1.0, layout.high_bits + kZBits) / extent;
  // Points so near each other that this overflows stay in the order in which they came.
  if (std::isinf(out.per_unit)) out.per_unit = 0;
  return out;
}

/// The key of a point that is not in the tree: behind all others of its segment.
RUBRISCOPE_HD ZKey z_key_of_none(std::int64_t segment, const ZLayout& layout) {
  const int bits = layout.high_bits * layout.dimensions;
  return {static_cast<std::uint64_t>(segment) << bits | ((std::uint64_t{1} << bits) - 1),
          (std::uint64_t{1} << layout.low_end()) - 1};
}

/// The key of a finite point. Never that of none: the last cell of each dimension stays empty.
template <class Real>
RUBRISCOPE_HD ZKey z_key(const Real* point, double scale, const ZCube& cube, std::int64_t segment,
                         const ZLayout& layout) {
  const std::uint64_t last = (std::uint64_t{1} << (layout.high_bits + kZBits)) - 2;
  ZKey out{static_cast<std::uint64_t>(segment) << layout.high_bits * layout.dimensions, 0};
  for (int k = 0; k < 3; ++k) {
    if (k >= layout.dimensions) break;
    const double place = (static_cast<double>(point[k]) * scale - cube.low[k]) * cube.per_unit;
    const std::uint64_t cell = place < static_cast<double>(last) ? static_cast<std::uint64_t>(place) : last;
    out.high |= z_spread(cell >> kZBits, layout.dimensions) << k;
    out.low |= z_spread(cell & ((std::uint64_t{1} << kZBits) - 1), layout.dimensions) << k;
  }
  return out;
}

}  // namespace rubriscope::ops
