// From surface voxels of one mask to the nearest of another: the data the vector code works on.
#pragma once

#include <cstdint>

#include "rubriscope/ops/isa.h"
#include "rubriscope/ops/mask/geometry.h"

namespace rubriscope::ops {

/// One bit a voxel, rows padded to 64 bits.
struct BitGrid {
  const std::uint64_t* bits;
  std::int64_t ny;     ///< rows a plane
  std::int64_t words;  ///< words a row
  const std::uint64_t* row(std::int64_t z, std::int64_t y) const { return bits + (z * ny + y) * words; }
};

/// A search for the nearest surface voxels of a target. T holds the costs: uint16, uint32 or double.
///
/// A row of `nearest` has, per x, the cost along x to the row's nearest surface voxel. A query looks along z
/// for the best plane, and in a plane along y for the best row, from near to far, until a step alone costs
/// more than the best found. What is found in a plane is kept for the other queries of the same y.
template <class T>
struct Sweep {
  MaskMetric metric;
  BitGrid queries;
  std::int64_t first_word,
      words;  ///< of the rows, the part that holds any surface; lanes are counted from it
  // The target: rows z0 to z0 + nz, y0 to y0 + ny.
  std::int64_t z0, nz, y0, ny;
  const T* nearest;               ///< (nz, ny, 64 words)
  const std::uint8_t* row_any;    ///< (nz, ny): whether the row has a surface voxel
  const std::uint8_t* plane_any;  ///< (nz)
  const T* cost_y;                ///< per offset
  const T* cost_z;
  // Scratch of the worker.
  T* planes;            ///< (nz, 64 words): per plane the best cost at the present y
  std::uint8_t* known;  ///< (nz, blocks): whether `planes` has been computed there
};

RUBRISCOPE_DECLARE_ISA(
    /// One bit a byte that is not 0.
    void pack_row(const std::uint8_t* bytes, std::int64_t count, std::uint64_t* bits);

    /// Costs to the nearest set bit of a row. `rising` holds the cost per offset, `falling` the same
    /// backwards (falling[i] is the cost of offset length − 1 − i); the row has at least one bit.
    void nearest_in_row(const std::uint64_t* bits, std::int64_t words, const std::uint16_t* rising,
                        const std::uint16_t* falling, std::uint16_t* out);
    void nearest_in_row(const std::uint64_t* bits, std::int64_t words, const std::uint32_t* rising,
                        const std::uint32_t* falling, std::uint32_t* out);
    void nearest_in_row(const std::uint64_t* bits, std::int64_t words, const double* rising,
                        const double* falling, double* out);

    /// The costs of the queries of row (z, y), in the order of x; returns how many.
    std::int64_t sweep_row(const Sweep<std::uint16_t>& sweep, std::int64_t z, std::int64_t y, double* out);
    std::int64_t sweep_row(const Sweep<std::uint32_t>& sweep, std::int64_t z, std::int64_t y, double* out);
    std::int64_t sweep_row(const Sweep<double>& sweep, std::int64_t z, std::int64_t y, double* out);

    /// The least cost from one point to points (z, y, x arrays), whose coordinates are integers in doubles.
    double nearest_point(MaskMetric metric, const double query[3], const double* z, const double* y,
                         const double* x, std::int64_t count, const double unit[3]);)

}  // namespace rubriscope::ops
