// A bounding-volume hierarchy over points of up to three dimensions: Morton order, sixteen points a leaf.
#pragma once

#include "rubriscope/ops/hausdorff/buffer.h"
#include "rubriscope/ops/hausdorff/tree_view.h"

namespace rubriscope::ops {

template <class Real>
class Tree {
 public:
  /// `points`: finite, `dimensions` (1 to 3) apart, count ≥ 1; `scale` as in TreeView. The points must
  /// outlive the tree. `chosen`, where not null, names the points to take, `count` of them in ascending
  /// order.
  Tree(const Real* points, std::int64_t count, std::int64_t dimensions, double scale,
       const std::int32_t* chosen = nullptr);

  const TreeView<Real>& view() const { return view_; }

 private:
  void fill_leaves(const std::uint64_t* entries);
  void build_levels();

  TreeView<Real> view_;
  Buffer<Real> coordinates_;
  Buffer<std::int32_t> index_;
  Buffer<Real> boxes_[kMaxLevels];
  Buffer<std::int32_t> first_[kMaxLevels];
};

extern template class Tree<float>;
extern template class Tree<double>;

}  // namespace rubriscope::ops
