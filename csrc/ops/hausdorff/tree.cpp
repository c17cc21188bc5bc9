#include "rubriscope/ops/hausdorff/tree.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "rubriscope/ops/hausdorff/search.h"

namespace rubriscope::ops {

namespace {

constexpr std::int64_t kRadixFrom = 1024;  ///< entries from which counting beats comparing

/// A point in the making of the order: its Morton key in the high half, its index in the low one.
using Entry = std::uint64_t;

/// Sorts by key; equal keys stay in the order of their indices, in which they come.
void sort(Entry* entries, Entry* spare, std::int64_t count, int key_bits) {
  if (count < kRadixFrom) {
    std::sort(entries, entries + count);
    return;
  }
  const int passes = key_bits > 22 ? 3 : 2;
  const int digit_bits = (key_bits + passes - 1) / passes;
  const std::uint32_t digits = 1u << digit_bits;
  std::vector<std::uint32_t> starts(static_cast<std::size_t>(passes) << digit_bits);
  for (std::int64_t e = 0; e < count; ++e) {
    std::uint32_t key = static_cast<std::uint32_t>(entries[e] >> 32);
    for (int p = 0; p < passes; ++p, key >>= digit_bits) ++starts[p * digits + (key & (digits - 1))];
  }
  Entry* from = entries;
  Entry* to = spare;
  for (int p = 0; p < passes; ++p) {
    std::uint32_t* const start = starts.data() + p * digits;
    std::uint32_t sum = 0;
    for (std::uint32_t d = 0; d < digits; ++d) sum += std::exchange(start[d], sum);
    const int shift = 32 + p * digit_bits;
    for (std::int64_t e = 0; e < count; ++e) to[start[(from[e] >> shift) & (digits - 1)]++] = from[e];
    std::swap(from, to);
  }
  if (from != entries) std::memcpy(entries, from, static_cast<std::size_t>(count) * sizeof(Entry));
}

template <class Real>
class Order {
 public:
  Order(const Real* points, std::int64_t count, std::int64_t dimensions, double scale)
      : points_(points),
        dimensions_(dimensions),
        scale_(scale),
        bits_(count <= (1 << 18) ? 7 : 10),
        spare_(count) {}

  /// Puts entries into Morton order of the box low … high; runs of one key are put in that of their own box,
  /// so that a far outlier or a dense cluster costs no resolution.
  void make(Entry* entries, std::int64_t count, const double* low, const double* high) {
    double extent = 0;
    for (int k = 0; k < dimensions_; ++k) extent = std::max(extent, high[k] - low[k]);
    if (!(extent > 0)) return;
    const double per_unit = (1 << bits_) / extent;
    if (!(per_unit <= 0x1p100)) return;
    RUBRISCOPE_CALL_ISA(morton, points_, dimensions_, scale_, low, per_unit, bits_, count, entries);
    sort(entries, spare_.get(), count, 3 * bits_);
    for (std::int64_t begin = 0; begin < count;) {
      std::int64_t end = begin + 1;
      while (end < count && (entries[end] >> 32) == (entries[begin] >> 32)) ++end;
      if (end - begin > kWidth) refine(entries + begin, end - begin, extent);
      begin = end;
    }
  }

 private:
  void refine(Entry* entries, std::int64_t count, double parent) {
    double low[3], high[3], extent = 0;
    for (int k = 0; k < dimensions_; ++k) {
      low[k] = high[k] = at(entries[0], k);
      for (std::int64_t e = 1; e < count; ++e) {
        low[k] = std::min(low[k], at(entries[e], k));
        high[k] = std::max(high[k], at(entries[e], k));
      }
      extent = std::max(extent, high[k] - low[k]);
    }
    if (extent < 0.5 * parent) make(entries, count, low, high);  // else rounding keeps them together
  }

  double at(Entry entry, int k) const {
    const auto i = static_cast<std::int64_t>(static_cast<std::uint32_t>(entry));
    return static_cast<double>(points_[i * dimensions_ + k]) * scale_;
  }

  const Real* points_;
  std::int64_t dimensions_;
  double scale_;
  int bits_;
  Buffer<Entry> spare_;
};

}  // namespace

template <class Real>
Tree<Real>::Tree(const Real* points, std::int64_t count, std::int64_t dimensions, double scale,
                 const std::int32_t* chosen) {
  view_.count = count;
  view_.leaves = (count + kWidth - 1) / kWidth;
  view_.points = points;
  view_.dimensions = dimensions;
  view_.scale = scale;

  const Buffer<Entry> entries(count);
  double low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
  if (chosen == nullptr) {
    for (std::int64_t i = 0; i < count; ++i) entries[i] = static_cast<Entry>(i);
    const Extent found = RUBRISCOPE_CALL_ISA(extent, points, count, dimensions);
    for (int k = 0; k < dimensions; ++k) {
      low[k] = found.low[k] * scale;
      high[k] = found.high[k] * scale;
    }
  } else {
    for (std::int64_t i = 0; i < count; ++i) {
      entries[i] = static_cast<Entry>(chosen[i]);
      for (int k = 0; k < dimensions; ++k) {
        const double value = static_cast<double>(points[chosen[i] * dimensions + k]) * scale;
        low[k] = i == 0 ? value : std::min(low[k], value);
        high[k] = i == 0 ? value : std::max(high[k], value);
      }
    }
  }
  Order<Real>(points, count, dimensions, scale).make(entries.get(), count, low, high);
  fill_leaves(entries.get());
  build_levels();
}

template <class Real>
void Tree<Real>::fill_leaves(const Entry* entries) {
  coordinates_ = Buffer<Real>(view_.leaves * kLeafReals);
  index_ = Buffer<std::int32_t>(view_.leaves * kWidth);
  const auto scale = static_cast<Real>(view_.scale);
  for (std::int64_t l = 0; l < view_.leaves; ++l) {
    Real* const leaf = coordinates_.get() + l * kLeafReals;
    for (int t = 0; t < kWidth; ++t) {
      const auto i = static_cast<std::int32_t>(entries[std::min(l * kWidth + t, view_.count - 1)]);
      const Real* const point = view_.points + i * view_.dimensions;
      for (int k = 0; k < 3; ++k) leaf[k * kWidth + t] = k < view_.dimensions ? point[k] * scale : 0;
      index_[l * kWidth + t] = i;
    }
  }
  view_.coordinates = coordinates_.get();
  view_.index = index_.get();
}

template <class Real>
void Tree<Real>::build_levels() {
  std::int64_t boxes = view_.leaves;
  for (int level = 0;; ++level) {
    const std::int64_t nodes = (boxes + kWidth - 1) / kWidth;
    boxes_[level] = Buffer<Real>(nodes * kNodeReals);
    first_[level] = Buffer<std::int32_t>(nodes * kWidth);
    view_.boxes[level] = boxes_[level].get();
    view_.first[level] = first_[level].get();
    if (level == 0) {
      RUBRISCOPE_CALL_ISA(box_leaves, view_.coordinates, boxes, boxes_[0].get());
    } else {
      RUBRISCOPE_CALL_ISA(box_nodes, view_.boxes[level - 1], boxes, boxes_[level].get());
    }
    const std::int32_t* const below = level == 0 ? view_.index : view_.first[level - 1];
    for (std::int64_t b = 0; b < boxes; ++b) {
      first_[level][b] = *std::min_element(below + b * kWidth, below + (b + 1) * kWidth);
    }
    for (std::int64_t b = boxes; b < nodes * kWidth; ++b) first_[level][b] = INT32_MAX;
    if (nodes == 1) {
      view_.levels = level + 1;
      return;
    }
    boxes = nodes;
  }
}

template class Tree<float>;
template class Tree<double>;

}  // namespace rubriscope::ops
