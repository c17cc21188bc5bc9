// A bounding-volume hierarchy over at most three coordinates, as the vector code sees it: sixteen points a
// leaf, sixteen boxes a node, each stored coordinate by coordinate.
#pragma once

#include <cstdint>

namespace rubriscope::ops {

constexpr int kWidth = 16;      ///< points in a leaf, boxes in a node, queries in a packet
constexpr int kMaxLevels = 8;   ///< 16^8 leaves
constexpr int kLeafReals = 48;  ///< x[16] y[16] z[16]
constexpr int kNodeReals = 96;  ///< low x[16] y[16] z[16], high x[16] y[16] z[16]

template <class Real>
struct TreeView {
  std::int64_t count = 0;                      ///< points in the tree
  std::int64_t leaves = 0;                     ///< the last leaf is filled up with its last point
  const Real* coordinates = nullptr;           ///< leaf l at l * kLeafReals; multiplied by scale
  const std::int32_t* index = nullptr;         ///< of leaf l's points at l * kWidth
  int levels = 0;                              ///< level 0 holds the leaves' boxes, the last is one node
  const Real* boxes[kMaxLevels] = {};          ///< node b at b * kNodeReals; unused boxes are at infinity
  const std::int32_t* first[kMaxLevels] = {};  ///< lowest index in box c of node b, at b * kWidth + c
  const Real* points = nullptr;                ///< the points as given, `dimensions` apart
  std::int64_t dimensions = 0;
  double scale = 1;  ///< a power of two, the same for both sets
};

/// What a look over all points of a set tells.
struct Extent {
  double low[3];
  double high[3];
  bool nan = false;
};

}  // namespace rubriscope::ops
