#include "rubriscope/ops/hausdorff/grid.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "rubriscope/ops/hausdorff/grid_search.h"

namespace rubriscope::ops {

namespace {

constexpr double kPerCell = 4;         ///< points aimed at: a row of three cells is about one vector
constexpr std::int64_t kFewest = 512;  ///< points of a set below which sorting into cells does not pay
constexpr double kSizeRatio = 4;       ///< of the sets, at most
constexpr double kCrowding = 3;  ///< times more points in a point's cell than aimed at, at most on average
constexpr double kCommon = 0.6;  ///< share of points whose cell holds points of the other set, at least
constexpr std::int64_t kStartBefore = 16;  ///< entries before cell 0's start, so that the starts are aligned

}  // namespace

template <class Real>
std::unique_ptr<Grid<Real>> Grid<Real>::make(const GridInput<Real>& x, const GridInput<Real>& y,
                                             std::int64_t dimensions, double scale,
                                             const Parallel& parallel) {
  const auto few = static_cast<double>(std::min(x.count, y.count));
  const auto many = static_cast<double>(std::max(x.count, y.count));
  if (few < kFewest || many > kSizeRatio * few) return nullptr;
  std::unique_ptr<Grid> grid(new Grid);
  grid->dimensions_ = dimensions;
  grid->scale_ = scale;
  grid->side_[0].points = x.points;
  grid->side_[0].count = x.count;
  grid->side_[1].points = y.points;
  grid->side_[1].count = y.count;
  if (!grid->lay_out(x, y)) return nullptr;
  // Counted and sorted in one go: threads that meet cost more than sorting in vain.
  for_pieces(parallel, 2, 1, [&](std::int64_t s, std::int64_t) {
    grid->count(grid->side_[s]);
    grid->sort(grid->side_[s]);
  });
  if (!grid->suits()) return nullptr;
  return grid;
}

template <class Real>
bool Grid<Real>::lay_out(const GridInput<Real>& x, const GridInput<Real>& y) {
  double low[3], extent[3], longest = 0, magnitude = 0;
  for (int k = 0; k < dimensions_; ++k) {
    low[k] = std::min(x.box.low[k], y.box.low[k]) * scale_;
    const double high = std::max(x.box.high[k], y.box.high[k]) * scale_;
    extent[k] = high - low[k];
    longest = std::max(longest, extent[k]);
    magnitude = std::max({magnitude, std::abs(low[k]), std::abs(high)});
    // Much of the box belongs to one set alone.
    const double own = std::max(x.box.high[k] - x.box.low[k], y.box.high[k] - y.box.low[k]) * scale_;
    if (own < 0.5 * extent[k]) return false;
  }
  // Below this, cells would be of the size of the coordinates' own rounding.
  const double unit = std::numeric_limits<Real>::epsilon();
  if (!(longest > 1e4 * unit * magnitude)) return false;
  const double cells =
      std::sqrt(static_cast<double>(side_[0].count) * static_cast<double>(side_[1].count)) / kPerCell;
  // The side that gives so many cells, over the dimensions that are longer than it.
  double side = 0;
  bool flat[3] = {false, false, false};
  for (int round = 0; round < 3; ++round) {
    double volume = 1;
    int axes = 0;
    for (int k = 0; k < dimensions_; ++k) {
      if (flat[k]) continue;
      volume *= extent[k] / longest;
      ++axes;
    }
    if (axes == 0) return false;
    side = longest * std::pow(volume / cells, 1.0 / axes);
    for (int k = 0; k < dimensions_; ++k) flat[k] = flat[k] || extent[k] <= side;
  }
  geometry_ = {};
  for (int k = 0; k < dimensions_; ++k) {
    geometry_.low[k] = static_cast<Real>(low[k]);
    geometry_.side[k] = static_cast<Real>(side);
    if (flat[k]) continue;
    geometry_.cells[k] = static_cast<std::int64_t>(extent[k] / side) + 1;
    geometry_.per_unit[k] = static_cast<Real>(1 / side);
  }
  geometry_.margin = static_cast<Real>(8 * unit * (longest + magnitude));
  return static_cast<double>(geometry_.count()) < 4 * cells + 64 &&
         side > 1e3 * static_cast<double>(geometry_.margin);
}

template <class Real>
void Grid<Real>::count(Side& side) const {
  const std::int64_t cells = geometry_.count();
  side.cell = Buffer<std::int32_t>(side.count);
  RUBRISCOPE_CALL_ISA(grid_cells, geometry_, side.points, side.count, dimensions_, scale_, side.cell.get());
  const std::int64_t entries = kStartBefore + cells + 3;
  side.start = Buffer<std::int32_t>(entries);
  std::memset(side.start.get(), 0, static_cast<std::size_t>(entries) * sizeof(std::int32_t));
  // Two places on: the sums then put a cell's start one place on, and sorting moves it to the next cell's.
  std::int32_t* const counts = side.start.get() + kStartBefore + 2;
  for (std::int64_t i = 0; i < side.count; ++i) ++counts[side.cell[i]];
}

template <class Real>
bool Grid<Real>::suits() const {
  const std::int64_t cells = geometry_.count();
  const std::int32_t* const start_x = side_[0].start.get() + kStartBefore;
  const std::int32_t* const start_y = side_[1].start.get() + kStartBefore;
  double crowd_x = 0, crowd_y = 0;
  std::int64_t common_x = 0, common_y = 0;
  for (std::int64_t c = 0; c < cells; ++c) {
    const std::int32_t x = start_x[c + 1] - start_x[c], y = start_y[c + 1] - start_y[c];
    crowd_x += static_cast<double>(x) * x;
    crowd_y += static_cast<double>(y) * y;
    common_x += y > 0 ? x : 0;
    common_y += x > 0 ? y : 0;
  }
  const auto n = static_cast<double>(side_[0].count), m = static_cast<double>(side_[1].count);
  // Evenly spread points have their cell's mean and one more around them.
  const auto crowded = [cells](double crowd, double points) {
    return crowd / points > kCrowding * (std::max(points / static_cast<double>(cells), kPerCell) + 1);
  };
  return !crowded(crowd_x, n) && !crowded(crowd_y, m) && static_cast<double>(common_x) >= kCommon * n &&
         static_cast<double>(common_y) >= kCommon * m;
}

template <class Real>
void Grid<Real>::sort(Side& side) const {
  const std::int64_t cells = geometry_.count();
  std::int32_t* const next = side.start.get() + kStartBefore + 1;
  std::int32_t sum = 0;
  for (std::int64_t c = 0; c <= cells + 1; ++c) next[c] = sum += next[c];
  for (Buffer<Real>& coordinate : side.coordinate) coordinate = Buffer<Real>(side.count + kGridPad);
  side.index = Buffer<std::int32_t>(side.count + kGridPad);
  const auto scale = static_cast<Real>(scale_);
  Real* const out[3] = {side.coordinate[0].get(), side.coordinate[1].get(), side.coordinate[2].get()};
  std::int32_t* const index = side.index.get();
  const Real* point = side.points;
  for (std::int64_t i = 0; i < side.count; ++i, point += dimensions_) {
    const std::int64_t at = next[side.cell[i]]++;
    index[at] = static_cast<std::int32_t>(i);
    for (int k = 0; k < dimensions_; ++k) out[k][at] = point[k] * scale;
  }
  for (int k = static_cast<int>(dimensions_); k < 3; ++k) std::fill_n(out[k], side.count, Real(0));
  for (Real* const coordinate : out) {
    std::fill_n(coordinate + side.count, kGridPad, std::numeric_limits<Real>::infinity());
  }
  std::fill_n(index + side.count, kGridPad, 0);
}

template <class Real>
GridView<Real> Grid<Real>::view(bool back) const {
  const auto set = [](const Side& side) {
    return GridSet<Real>{{side.coordinate[0].get(), side.coordinate[1].get(), side.coordinate[2].get()},
                         side.index.get(),
                         side.start.get() + kStartBefore,
                         side.points};
  };
  const Side& queries = side_[back ? 1 : 0];
  const Side& targets = side_[back ? 0 : 1];
  return {geometry_, set(queries), set(targets), targets.count, dimensions_, scale_};
}

template class Grid<float>;
template class Grid<double>;

}  // namespace rubriscope::ops
