// The surface of a mask: bits of a grid, and where they are.
#pragma once

#include <cstdint>
#include <vector>

#include "rubriscope/ops/mask/mask.h"
#include "rubriscope/ops/mask/sweep.h"

namespace rubriscope::ops {

struct Range {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
  void cover(std::int64_t from, std::int64_t to) {
    if (size() == 0) {
      begin = from;
      end = to;
    } else {
      begin = begin < from ? begin : from;
      end = end > to ? end : to;
    }
  }
};

/// A mask as bits, with one word a row to spare for the corners beyond its last voxel.
struct MaskBits {
  std::int64_t nz, ny, nx, words;
  std::vector<std::uint64_t> bits;
  BitGrid grid() const { return {bits.data(), ny, words}; }
};

MaskBits pack_mask(const std::uint8_t* bytes, const MaskShape& shape, const Parallel& parallel);

/// The surface voxels (MONAI, MedPy: foreground with a face neighbour that is background or outside), or the
/// surface corners (DeepMind: corners whose voxels, 0 outside, differ), on a grid that is one larger.
struct Surface {
  std::int64_t nz, ny, words;
  std::vector<std::uint64_t> bits;
  std::int64_t count = 0;
  Range z, y, x;  ///< where there is any; x in whole bits
  BitGrid grid() const { return {bits.data(), ny, words}; }
};

Surface find_surface(const MaskBits& mask, int dimensions, bool corners, const Parallel& parallel);

/// The code of each surface corner (surfel.h), rows in the order y, z, then x.
std::vector<std::uint8_t> corner_codes(const MaskBits& mask, const Surface& surface, int dimensions);

}  // namespace rubriscope::ops
