// A batch of pairs of point sets as the .cu files see it: what belongs to which item, and where its tree
// lies. A segment is one set of one item: those of x come first. Plain arithmetic, so that tests run it on
// the CPU.
#pragma once

#include <cstdint>

#include "rubriscope/ops/hausdorff/set_info.h"
#include "rubriscope/ops/hausdorff/wide_tree.h"
#include "rubriscope/ops/hausdorff/z_order.h"

namespace rubriscope::ops {

/// Rows of all segments in one line: n for each item of x, then m for each of y.
struct Segments {
  std::int64_t batch, n, m;

  RUBRISCOPE_HD std::int64_t segments() const { return 2 * batch; }
  RUBRISCOPE_HD std::int64_t all_rows() const { return batch * (n + m); }
  RUBRISCOPE_HD bool is_y(std::int64_t segment) const { return segment >= batch; }
  RUBRISCOPE_HD std::int64_t item(std::int64_t segment) const {
    return is_y(segment) ? segment - batch : segment;
  }
  RUBRISCOPE_HD std::int64_t rows(std::int64_t segment) const { return is_y(segment) ? m : n; }
  RUBRISCOPE_HD std::int64_t segment_of_row(std::int64_t row) const {
    return row < batch * n ? row / n : batch + (row - batch * n) / m;
  }
  /// A segment's first row.
  RUBRISCOPE_HD std::int64_t origin(std::int64_t segment) const {
    return is_y(segment) ? batch * n + (segment - batch) * m : segment * n;
  }
  /// The segment that a segment's points search.
  RUBRISCOPE_HD std::int64_t other(std::int64_t segment) const {
    return is_y(segment) ? segment - batch : segment + batch;
  }
};

/// The same with every `piece` rows of a segment as one.
RUBRISCOPE_HD Segments in_pieces(const Segments& of, std::int64_t piece) {
  return {of.batch, (of.n + piece - 1) / piece, (of.m + piece - 1) / piece};
}

template <class Real>
struct PointBatch : Segments {
  const Real* x;                  ///< (batch, n, dimensions)
  const Real* y;                  ///< (batch, m, dimensions)
  const std::int64_t* x_lengths;  ///< (batch,) or null; clamped to 0 … n
  const std::int64_t* y_lengths;
  std::int64_t dimensions;
  const SetInfo* info;  ///< of each segment

  RUBRISCOPE_HD const Real* points(std::int64_t segment) const {
    return (is_y(segment) ? y : x) + item(segment) * rows(segment) * dimensions;
  }
  /// How many of the segment's rows count.
  RUBRISCOPE_HD std::int64_t length(std::int64_t segment) const {
    const std::int64_t* const lengths = is_y(segment) ? y_lengths : x_lengths;
    if (lengths == nullptr) return rows(segment);
    const std::int64_t length = lengths[item(segment)];
    return length < 0 ? 0 : length > rows(segment) ? rows(segment) : length;
  }
  RUBRISCOPE_HD double scale(std::int64_t item) const {
    return scale_for<Real>(std::fmax(info[item].largest, info[batch + item].largest));
  }
  RUBRISCOPE_HD Decision decision(std::int64_t item) const {
    return decide(length(item), info[item], length(batch + item), info[batch + item]);
  }
  /// Whether neighbours of the segment's points have to be searched for: else all of their distances are
  /// known.
  RUBRISCOPE_HD bool searches(std::int64_t segment) const {
    return !decision(item(segment)).made && info[other(segment)].finite > 0;
  }
  RUBRISCOPE_HD bool is_finite(const Real* point) const {
    for (std::int64_t k = 0; k < dimensions; ++k) {
      if (std::isinf(point[k])) return false;
    }
    return true;
  }
};

/// The key of a row among those of all segments.
template <class Real>
RUBRISCOPE_HD ZKey z_key_of_row(const PointBatch<Real>& sets, const ZLayout& layout, std::int64_t row) {
  const std::int64_t segment = sets.segment_of_row(row), i = row - sets.origin(segment);
  const Real* const point = sets.points(segment) + i * sets.dimensions;
  if (i >= sets.length(segment) || sets.decision(sets.item(segment)).made || !sets.is_finite(point)) {
    return z_key_of_none(segment, layout);
  }
  const double scale = sets.scale(sets.item(segment));
  return z_key(point, scale, z_cube(sets.info[segment], scale, layout), segment, layout);
}

/// The memory of the trees of one side, item after item.
template <class Real>
struct WideForest {
  WideShape shape;
  Real* coordinates;
  std::int32_t* index;
  Real* boxes;
  std::int32_t* first;

  RUBRISCOPE_HD WideTree<Real> tree(const PointBatch<Real>& sets, std::int64_t segment) const {
    const std::int64_t item = sets.item(segment);
    const std::int64_t leaves = item * shape.leaves, nodes = item * shape.all_nodes();
    return {shape,
            sets.decision(item).made ? 0 : sets.info[segment].finite,
            coordinates + leaves * kWideLeafReals,
            index + leaves * kLanes,
            boxes + nodes * kWideNodeReals,
            first + nodes * kLanes,
            sets.points(segment),
            sets.dimensions,
            sets.scale(item)};
  }
};

/// Nanoseconds a search among all pairs and one by trees take on a large GPU, about: not measured, from
/// 2·10¹² pairs/s, 10 ns a target for the one block that few queries make, and 1 ns a point to sort and
/// search after 0.2 ms for some forty launches.
RUBRISCOPE_HD bool tree_pays(double batch, double n, double m, std::int64_t dimensions, bool symmetric) {
  if (dimensions > 3 || batch * (n + m) >= 4294967295.0) return false;
  const double pairs_each = batch / 2000;
  double every_pair = m * (10 + n * pairs_each);
  if (symmetric) every_pair += n * (10 + m * pairs_each);
  return every_pair > 200000 + batch * (n + m);
}

}  // namespace rubriscope::ops
