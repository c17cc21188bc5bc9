// Two sets of points counted into the cells of one uniform grid: for sets that fill a common box about
// evenly.
#pragma once

#include <memory>

#include "rubriscope/ops/hausdorff/buffer.h"
#include "rubriscope/ops/hausdorff/grid_view.h"
#include "rubriscope/ops/hausdorff/tree_view.h"
#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

/// One set to be put into a grid.
template <class Real>
struct GridInput {
  const Real* points;
  std::int64_t count;
  Extent box;  ///< of the points as given
};

template <class Real>
class Grid {
 public:
  /// The grid of both sets, all points finite; null where a grid does not suit them: too few points, sizes
  /// that differ much, boxes that hardly overlap, or points crowded into few cells. `scale` as in TreeView.
  static std::unique_ptr<Grid> make(const GridInput<Real>& x, const GridInput<Real>& y,
                                    std::int64_t dimensions, double scale, const Parallel& parallel);

  /// x searched for in y, or with `back` y in x.
  GridView<Real> view(bool back) const;

 private:
  struct Side {
    const Real* points;
    std::int64_t count;
    Buffer<Real> coordinate[3];
    Buffer<std::int32_t> cell, index, start;
  };

  bool lay_out(const GridInput<Real>& x, const GridInput<Real>& y);
  void count(Side& side) const;
  void sort(Side& side) const;
  bool suits() const;

  GridGeometry<Real> geometry_;
  std::int64_t dimensions_;
  double scale_;
  Side side_[2];
};

extern template class Grid<float>;
extern template class Grid<double>;

}  // namespace rubriscope::ops
