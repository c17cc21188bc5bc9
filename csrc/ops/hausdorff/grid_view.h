// Two point sets counted into the cells of one uniform grid, as the vector code sees them.
#pragma once

#include <cstdint>

namespace rubriscope::ops {

constexpr std::int64_t kGridPad =
    16;  ///< points at infinity behind the last, for vector loads past a cell's end

/// Where the cells lie. Cell (cx, cy, cz) has the number (cz * cells[1] + cy) * cells[0] + cx.
template <class Real>
struct GridGeometry {
  Real low[3] = {0, 0, 0};       ///< scaled
  Real side[3] = {1, 1, 1};      ///< of a cell
  Real per_unit[3] = {0, 0, 0};  ///< cells a unit of length; 0 where there is one cell
  Real margin = 0;               ///< how far outside its cell rounding may have left a point
  std::int64_t cells[3] = {1, 1, 1};

  std::int64_t count() const { return cells[0] * cells[1] * cells[2]; }
};

template <class Real>
struct GridSet {
  const Real* coordinate[3] = {};       ///< in the order of the cells, within a cell in that of the indices
  const std::int32_t* index = nullptr;  ///< of each of them
  /// First point of each cell; also defined for the numbers -1 (0) and count(), count() + 1 (the number of
  /// points).
  const std::int32_t* start = nullptr;
  const Real* points = nullptr;  ///< as given, `dimensions` apart
};

template <class Real>
struct GridView {
  GridGeometry<Real> geometry;
  GridSet<Real> queries;
  GridSet<Real> targets;
  std::int64_t target_count = 0;
  std::int64_t dimensions = 0;
  double scale = 1;
};

}  // namespace rubriscope::ops
