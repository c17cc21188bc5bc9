// A search by trees as cuda/hausdorff_tree.cu runs it, kernel after kernel, on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "host_warp.h"
#include "rubriscope/ops/hausdorff/point_batch.h"

namespace rubriscope::ops {

/// A batch of pairs of sets, each of rows of `dimensions` numbers.
template <class Real>
struct Sets {
  std::vector<Real> x, y;
  std::int64_t batch, n, m, dimensions;
  std::vector<std::int64_t> x_lengths, y_lengths;
};

/// What the kernels of cuda/hausdorff_tree.cu do one after another.
template <class Real>
class Emulation {
 public:
  explicit Emulation(const Sets<Real>& from) : from_(from) {
    sets_ = {{from.batch, from.n, from.m},
             from.x.data(),
             from.y.data(),
             from.x_lengths.empty() ? nullptr : from.x_lengths.data(),
             from.y_lengths.empty() ? nullptr : from.y_lengths.data(),
             from.dimensions,
             nullptr};
    for (std::int64_t s = 0; s < sets_.segments(); ++s) info_.push_back(screen(s));
    sets_.info = info_.data();
    const ZLayout layout = z_layout(sets_.segments(), from.dimensions);
    order_ = z_order(sets_.all_rows(), [&](std::int64_t row) { return z_key_of_row(sets_, layout, row); });
    for (int y = 0; y < 2; ++y) {
      const WideShape shape = wide_shape(y == 0 ? from.n : from.m);
      const auto leaves = static_cast<std::size_t>(from.batch * shape.leaves);
      const auto nodes = static_cast<std::size_t>(from.batch * shape.all_nodes());
      // What is not written must be noticed.
      coordinates_[y].assign(leaves * kWideLeafReals, std::numeric_limits<Real>::quiet_NaN());
      index_[y].assign(leaves * kLanes, -7);
      boxes_[y].assign(nodes * kWideNodeReals, std::numeric_limits<Real>::quiet_NaN());
      first_[y].assign(nodes * kLanes, -7);
      forest_[y] = {shape, coordinates_[y].data(), index_[y].data(), boxes_[y].data(), first_[y].data()};
    }
    for (std::int64_t s = 0; s < sets_.segments(); ++s) {
      const WideTree<Real> tree = this->tree(s);
      const auto origin = static_cast<std::uint32_t>(sets_.origin(s));
      for (std::int64_t l = 0; l < tree.shape.nodes(0) * kLanes; ++l) {
        fill_wide_leaf(warp, tree, order_.data() + origin, origin, l);
      }
      for (int level = 1; level < tree.shape.levels; ++level) {
        for (std::int64_t slot = 0; slot < tree.shape.nodes(level) * kLanes; ++slot) {
          fill_wide_box(warp, tree, level, slot);
        }
      }
    }
  }

  /// A segment's nearest targets; -1 where there is nothing to search.
  void each(std::int64_t segment, std::vector<double>* squared, std::vector<std::int64_t>* near) {
    squared->assign(static_cast<std::size_t>(sets_.rows(segment)), -1);
    near->assign(squared->size(), -1);
    if (!sets_.searches(segment)) return;
    const WideTree<Real> queries = tree(segment);
    const WideTree<Real> targets = tree(sets_.other(segment));
    for (std::int64_t p = 0; p < queries.leaves(); ++p) {
      wide_each(warp, stack_.stack, queries, targets, p, squared->data(), near->data());
    }
  }

  /// A segment's farthest point, its packets in an order of their own, the largest known shared by all; from
  /// `known` on.
  PointPair largest(std::int64_t segment, std::uint64_t seed, double known = 0) {
    PointPair best;
    if (!sets_.searches(segment)) return best;
    const WideTree<Real> queries = tree(segment);
    const WideTree<Real> targets = tree(sets_.other(segment));
    std::vector<std::int64_t> packets(static_cast<std::size_t>(queries.leaves()));
    std::iota(packets.begin(), packets.end(), 0);
    std::mt19937_64 random(seed);
    std::shuffle(packets.begin(), packets.end(), random);
    for (const std::int64_t p : packets) {
      const PointPair pair = wide_largest(warp, stack_.stack, queries, targets, p, known);
      known = std::max(known, pair.squared);
      if (larger(pair, best)) best = pair;
    }
    return best;
  }

  const PointBatch<Real>& sets() const { return sets_; }
  const SetInfo& info(std::int64_t segment) const { return info_[static_cast<std::size_t>(segment)]; }
  WideTree<Real> tree(std::int64_t segment) const {
    return forest_[sets_.is_y(segment)].tree(sets_, segment);
  }

  HostWarp warp;

 private:
  /// In pieces that are merged from the last to the first.
  SetInfo screen(std::int64_t segment) const {
    SetInfo all;
    const std::int64_t count = sets_.length(segment), piece = 7;
    for (std::int64_t begin = (count + piece - 1) / piece * piece - piece; begin >= 0; begin -= piece) {
      SetInfo part;
      for (std::int64_t i = begin; i < std::min(begin + piece, count); ++i) {
        part.see(sets_.points(segment) + i * sets_.dimensions, sets_.dimensions, i);
      }
      all.merge(part);
    }
    return all;
  }

  const Sets<Real>& from_;
  PointBatch<Real> sets_;
  std::vector<SetInfo> info_;
  std::vector<std::uint32_t> order_;
  std::vector<Real> coordinates_[2], boxes_[2];
  std::vector<std::int32_t> index_[2], first_[2];
  WideForest<Real> forest_[2];
  HostStack<Real> stack_;
};

}  // namespace rubriscope::ops
