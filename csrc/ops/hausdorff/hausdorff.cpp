#include "rubriscope/ops/hausdorff/hausdorff.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

#include "rubriscope/ops/hausdorff/brute.h"
#include "rubriscope/ops/hausdorff/buffer.h"
#include "rubriscope/ops/hausdorff/grid.h"
#include "rubriscope/ops/hausdorff/grid_search.h"
#include "rubriscope/ops/hausdorff/search.h"
#include "rubriscope/ops/hausdorff/set_info.h"
#include "rubriscope/ops/hausdorff/tree.h"

namespace rubriscope::ops {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kSmall = 1 << 22;  ///< work (coordinate differences, about) that more threads do not pay for
constexpr std::int64_t kLarge = 1 << 22;  ///< coordinates from which two threads screen faster than one
constexpr std::int64_t kPackets = 16;     ///< a thread takes at a time
constexpr std::int64_t kCells = 256;      ///< the same of a grid
constexpr std::int64_t kQueries = 64;     ///< the same where every pair is looked at
constexpr std::int64_t kSamples =
    64;  ///< packets spread over the queries that go first, for a high maximum early

/// What has to be known of a set before searching.
template <class Real>
struct Screened {
  PointSet<Real> set;
  Extent box;                        ///< of up to three dimensions, where all points are finite
  double largest = 0;                ///< |coordinate|
  std::int64_t first_infinite = -1;  ///< index of a point with an infinite coordinate
  std::vector<std::int32_t> finite;  ///< the other points, where there is such a point
  std::int64_t usable = 0;           ///< how many are finite

  const std::int32_t* chosen() const { return first_infinite < 0 ? nullptr : finite.data(); }
};

template <class Real>
Screened<Real> screen(PointSet<Real> set, std::int64_t dimensions) {
  Screened<Real> out;
  out.set = set;
  out.usable = set.count;
  // Points of four dimensions and more are one long row of numbers here.
  const std::int64_t width = std::min<std::int64_t>(dimensions, 3);
  const std::int64_t rows = dimensions <= 3 ? set.count : set.count * dimensions;
  const Extent found = RUBRISCOPE_CALL_ISA(extent, set.points, rows, dimensions <= 3 ? width : 1);
  out.box = found;
  for (int k = 0; k < (dimensions <= 3 ? width : 1); ++k) {
    out.largest = std::max({out.largest, std::abs(found.low[k]), std::abs(found.high[k])});
  }
  if (out.box.nan || out.largest != kInfinity) return out;
  out.largest = 0;
  for (std::int64_t i = 0; i < set.count; ++i) {
    const Real* const point = set.points + i * dimensions;
    if (std::any_of(point, point + dimensions, [](Real v) { return std::isinf(v); })) {
      if (out.first_infinite < 0) out.first_infinite = i;
      continue;
    }
    out.finite.push_back(static_cast<std::int32_t>(i));
    for (std::int64_t k = 0; k < dimensions; ++k) {
      out.largest = std::max(out.largest, std::abs(static_cast<double>(point[k])));
    }
  }
  out.usable = static_cast<std::int64_t>(out.finite.size());
  return out;
}

/// Two sets ready to be searched in either direction, x to y or with `back` y to x, in pieces that do not
/// depend on the threads. At least one point of each is finite.
class Searcher {
 public:
  virtual ~Searcher() = default;
  virtual std::int64_t pieces(bool back) const = 0;
  virtual void largest(bool back, std::int64_t piece, std::uint64_t* shared, PointPair* best) const = 0;
  virtual void each(bool back, std::int64_t piece, double* squared, std::int64_t* nearest) const = 0;
  /// The largest among a few queries spread over all.
  virtual void sample(bool back, std::uint64_t* shared, PointPair* best) const = 0;
};

std::int64_t pieces_of(std::int64_t count, std::int64_t piece) { return (count + piece - 1) / piece; }

template <class Real>
class TreeSearcher final : public Searcher {
 public:
  TreeSearcher(const Screened<Real>& x, const Screened<Real>& y, std::int64_t dimensions, double scale,
               const Parallel& parallel) {
    const Screened<Real>* const sets[2] = {&x, &y};
    for_pieces(parallel, 2, 1, [&](std::int64_t s, std::int64_t) {
      tree_[s] = std::make_unique<Tree<Real>>(sets[s]->set.points, sets[s]->usable, dimensions, scale,
                                              sets[s]->chosen());
    });
  }

  std::int64_t pieces(bool back) const override { return pieces_of(queries(back).leaves, kPackets); }

  void largest(bool back, std::int64_t piece, std::uint64_t* shared, PointPair* best) const override {
    const std::int64_t begin = piece * kPackets, end = std::min(begin + kPackets, queries(back).leaves);
    RUBRISCOPE_CALL_ISA(search_largest, queries(back), queries(!back), begin, end, 1, shared, best);
  }

  void each(bool back, std::int64_t piece, double* squared, std::int64_t* nearest) const override {
    const std::int64_t begin = piece * kPackets, end = std::min(begin + kPackets, queries(back).leaves);
    RUBRISCOPE_CALL_ISA(search_each, queries(back), queries(!back), begin, end, squared, nearest);
  }

  void sample(bool back, std::uint64_t* shared, PointPair* best) const override {
    const std::int64_t leaves = queries(back).leaves;
    if (leaves < 4 * kSamples) return;
    RUBRISCOPE_CALL_ISA(search_largest, queries(back), queries(!back), 0, leaves, leaves / kSamples, shared,
                        best);
  }

 private:
  const TreeView<Real>& queries(bool back) const { return tree_[back ? 1 : 0]->view(); }

  std::unique_ptr<Tree<Real>> tree_[2];
};

template <class Real>
class GridSearcher final : public Searcher {
 public:
  explicit GridSearcher(std::unique_ptr<Grid<Real>> grid) : grid_(std::move(grid)) {}

  std::int64_t pieces(bool back) const override {
    return pieces_of(grid_->view(back).geometry.count(), kCells);
  }

  void largest(bool back, std::int64_t piece, std::uint64_t* shared, PointPair* best) const override {
    const GridView<Real> view = grid_->view(back);
    const std::int64_t begin = piece * kCells, end = std::min(begin + kCells, view.geometry.count());
    RUBRISCOPE_CALL_ISA(grid_largest, view, begin, end, 1, shared, best);
  }

  void each(bool back, std::int64_t piece, double* squared, std::int64_t* nearest) const override {
    const GridView<Real> view = grid_->view(back);
    const std::int64_t begin = piece * kCells, end = std::min(begin + kCells, view.geometry.count());
    RUBRISCOPE_CALL_ISA(grid_each, view, begin, end, squared, nearest);
  }

  void sample(bool back, std::uint64_t* shared, PointPair* best) const override {
    const GridView<Real> view = grid_->view(back);
    const std::int64_t cells = view.geometry.count();
    if (cells < 4 * kSamples) return;
    RUBRISCOPE_CALL_ISA(grid_largest, view, 0, cells, cells / kSamples, shared, best);
  }

 private:
  std::unique_ptr<Grid<Real>> grid_;
};

template <class Real>
class BruteSearcher final : public Searcher {
 public:
  BruteSearcher(const Screened<Real>& x, const Screened<Real>& y, std::int64_t dimensions, double scale)
      : dimensions_(dimensions), scale_(scale) {
    const Screened<Real>* const sets[2] = {&x, &y};
    for (int s = 0; s < 2; ++s) {
      Side& side = side_[s];
      side.points = sets[s]->set.points;
      side.count = sets[s]->usable;
      side.block_count = (side.count + kWidth - 1) / kWidth;
      side.rows = Buffer<Real>(side.count * dimensions);
      side.blocks = Buffer<Real>(side.block_count * kWidth * dimensions);
      side.index = Buffer<std::int32_t>(side.block_count * kWidth);
      const std::int32_t* const chosen = sets[s]->chosen();
      for (std::int64_t at = 0; at < side.block_count * kWidth; ++at) {
        const std::int64_t row = std::min(at, side.count - 1);
        const std::int32_t i = chosen == nullptr ? static_cast<std::int32_t>(row) : chosen[row];
        side.index[at] = i;
        for (std::int64_t k = 0; k < dimensions; ++k) {
          const Real value = side.points[i * dimensions + k] * static_cast<Real>(scale);
          side.rows[row * dimensions + k] = value;
          side.blocks[(at / kWidth * dimensions + k) * kWidth + at % kWidth] = value;
        }
      }
    }
  }

  std::int64_t pieces(bool back) const override { return pieces_of(side_[back ? 1 : 0].count, kQueries); }

  void largest(bool back, std::int64_t piece, std::uint64_t* shared, PointPair* best) const override {
    const std::int64_t begin = piece * kQueries, end = std::min(begin + kQueries, side_[back ? 1 : 0].count);
    RUBRISCOPE_CALL_ISA(brute_largest, view(back), begin, end, shared, best);
  }

  void each(bool back, std::int64_t piece, double* squared, std::int64_t* nearest) const override {
    const std::int64_t begin = piece * kQueries, end = std::min(begin + kQueries, side_[back ? 1 : 0].count);
    RUBRISCOPE_CALL_ISA(brute_each, view(back), begin, end, squared, nearest);
  }

  void sample(bool, std::uint64_t*, PointPair*) const override {}

 private:
  struct Side {
    const Real* points;
    std::int64_t count, block_count;
    Buffer<Real> rows, blocks;
    Buffer<std::int32_t> index;
  };

  BruteView<Real> view(bool back) const {
    const Side& from = side_[back ? 1 : 0];
    const Side& to = side_[back ? 0 : 1];
    return {from.rows.get(), from.index.get(), to.blocks.get(), to.index.get(), to.block_count,
            from.points,     to.points,        dimensions_,     scale_};
  }

  std::int64_t dimensions_;
  double scale_;
  Side side_[2];
};

template <class Real>
std::unique_ptr<Searcher> make_searcher(const Screened<Real>& x, const Screened<Real>& y,
                                        std::int64_t dimensions, double scale, const Parallel& parallel) {
  if (dimensions <= 3) {
    if (x.first_infinite < 0 && y.first_infinite < 0) {
      const auto input = [](const Screened<Real>& set) {
        return GridInput<Real>{set.set.points, set.set.count, set.box};
      };
      if (auto grid = Grid<Real>::make(input(x), input(y), dimensions, scale, parallel)) {
        return std::make_unique<GridSearcher<Real>>(std::move(grid));
      }
    }
    return std::make_unique<TreeSearcher<Real>>(x, y, dimensions, scale, parallel);
  }
  return std::make_unique<BruteSearcher<Real>>(x, y, dimensions, scale);
}

/// The two sets screened, and whether that already decides everything.
template <class Real>
struct Problem {
  Screened<Real> x, y;
  bool decided = false;
  double value = 0;  ///< if decided

  Problem(PointSet<Real> a, PointSet<Real> b, std::int64_t dimensions, const Parallel& parallel) {
    const bool large = (a.count + b.count) * dimensions >= kLarge;
    for_pieces(large ? parallel : serial(), 2, 1,
               [&](std::int64_t s, std::int64_t) { (s == 0 ? x : y) = screen(s == 0 ? a : b, dimensions); });
    const bool empty = a.count == 0 || b.count == 0;
    decided = empty || x.box.nan || y.box.nan;
    const bool neither = a.count == 0 && b.count == 0;
    value = x.box.nan || y.box.nan || neither ? std::numeric_limits<double>::quiet_NaN() : kInfinity;
  }

  double scale() const { return scale_for<Real>(std::max(x.largest, y.largest)); }
};

/// The query that is infinitely far from every target, or -1: one at infinity, or any if all targets are.
template <class Real>
std::int64_t infinitely_far(const Screened<Real>& queries, const Screened<Real>& targets) {
  return targets.usable == 0 ? 0 : queries.first_infinite;
}

/// The threads that pay: none but the calling one for a small problem.
const Parallel& threads_for(std::int64_t n, std::int64_t m, std::int64_t dimensions,
                            const Parallel& parallel) {
  const double work = dimensions <= 3
                          ? 256.0 * static_cast<double>(n + m)
                          : static_cast<double>(n) * static_cast<double>(m) * static_cast<double>(dimensions);
  return work < kSmall ? serial() : parallel;
}

/// The largest of one direction or both, by pieces; shared by all pieces: what need not be looked at any
/// more.
void search_largest(const Searcher& searcher, bool symmetric, const Parallel& parallel, PointPair* there,
                    PointPair* back) {
  std::uint64_t shared = 0;
  searcher.sample(false, &shared, there);
  if (symmetric) searcher.sample(true, &shared, back);
  const std::int64_t first = searcher.pieces(false), all = first + (symmetric ? searcher.pieces(true) : 0);
  std::vector<PointPair> found(static_cast<std::size_t>(all));
  for_pieces(parallel, all, 1, [&](std::int64_t piece, std::int64_t) {
    const bool is_back = piece >= first;
    found[piece] = is_back ? *back : *there;
    searcher.largest(is_back, is_back ? piece - first : piece, &shared, &found[piece]);
  });
  for (std::int64_t piece = 0; piece < all; ++piece) {
    PointPair* const best = piece < first ? there : back;
    if (larger(found[piece], *best)) *best = found[piece];
  }
}

}  // namespace

template <class Real>
HausdorffPair hausdorff(PointSet<Real> x, PointSet<Real> y, std::int64_t dimensions, bool symmetric,
                        const Parallel& threads) {
  const Parallel& parallel = threads_for(x.count, y.count, dimensions, threads);
  const Problem<Real> problem(x, y, dimensions, parallel);
  if (problem.decided) return {problem.value, -1, -1};
  if (const std::int64_t far = infinitely_far(problem.x, problem.y); far >= 0) return {kInfinity, far, 0};
  if (symmetric) {
    if (const std::int64_t far = infinitely_far(problem.y, problem.x); far >= 0) return {kInfinity, 0, far};
  }
  const double scale = problem.scale();
  const auto searcher = make_searcher(problem.x, problem.y, dimensions, scale, parallel);
  PointPair there, back;
  search_largest(*searcher, symmetric, parallel, &there, &back);
  if (back.squared > there.squared) return {std::sqrt(back.squared) / scale, back.target, back.query};
  return {std::sqrt(there.squared) / scale, there.query, there.target};
}

template <class Real>
void nearest_neighbours(PointSet<Real> x, PointSet<Real> y, std::int64_t dimensions, bool symmetric,
                        const Parallel& threads, Neighbours* of_x, Neighbours* of_y) {
  const Parallel& parallel = threads_for(x.count, y.count, dimensions, threads);
  const Problem<Real> problem(x, y, dimensions, parallel);
  Neighbours* const outs[2] = {of_x, of_y};
  const Screened<Real>* const sets[2] = {&problem.x, &problem.y};
  const int directions = symmetric ? 2 : 1;
  for (int d = 0; d < directions; ++d) {
    outs[d]->value = problem.value;
    outs[d]->valid = !problem.decided;
    if (problem.decided) continue;
    // What is not searched for below is infinitely far from the first target.
    outs[d]->distance.assign(static_cast<std::size_t>(sets[d]->set.count), kInfinity);
    outs[d]->nearest.assign(static_cast<std::size_t>(sets[d]->set.count), 0);
  }
  if (problem.decided || problem.x.usable == 0 || problem.y.usable == 0) return;
  const double scale = problem.scale();
  const auto searcher = make_searcher(problem.x, problem.y, dimensions, scale, parallel);
  const std::int64_t first = searcher->pieces(false), all = first + (symmetric ? searcher->pieces(true) : 0);
  for_pieces(parallel, all, 1, [&](std::int64_t piece, std::int64_t) {
    const bool back = piece >= first;
    Neighbours& out = *outs[back ? 1 : 0];
    searcher->each(back, back ? piece - first : piece, out.distance.data(), out.nearest.data());
  });
  for (int d = 0; d < directions; ++d) {
    for (double& distance : outs[d]->distance) distance = std::sqrt(distance) / scale;
  }
}

#define RUBRISCOPE_INSTANTIATE(Real)                                                                     \
  template HausdorffPair hausdorff(PointSet<Real>, PointSet<Real>, std::int64_t, bool, const Parallel&); \
  template void nearest_neighbours(PointSet<Real>, PointSet<Real>, std::int64_t, bool, const Parallel&,  \
                                   Neighbours*, Neighbours*);
RUBRISCOPE_INSTANTIATE(float)
RUBRISCOPE_INSTANTIATE(double)
#undef RUBRISCOPE_INSTANTIATE

}  // namespace rubriscope::ops
