#include "rubriscope/ops/mask/surfel.h"

#include <array>
#include <bit>
#include <cmath>
#include <vector>

namespace rubriscope::ops {

namespace {

using Corner = std::array<int, 3>;
using Point = std::array<double, 3>;

int corner_index(const Corner& c) { return 4 * c[0] + 2 * c[1] + c[2]; }

bool inside(int code, const Corner& c) { return ((code >> (7 - corner_index(c))) & 1) != 0; }

// A cell's edge, by the two corners it joins.
int edge_index(const Corner& a, const Corner& b) {
  const int i = corner_index(a), j = corner_index(b);
  return i < j ? i * 8 + j : j * 8 + i;
}

Point middle(int edge) {
  const int a = edge / 8, b = edge % 8;
  Point p{};
  for (int axis = 0; axis < 3; ++axis) {
    const int shift = 2 - axis;
    p[axis] = 0.5 * (((a >> shift) & 1) + ((b >> shift) & 1));
  }
  return p;
}

// The corners of a face, counter-clockwise as seen from outside the cell.
std::array<Corner, 4> face(int axis, int side) {
  static constexpr int around[4][2] = {{0, 0}, {1, 0}, {1, 1}, {0, 1}};
  std::array<Corner, 4> corners{};
  for (int i = 0; i < 4; ++i) {
    const int* step = around[side == 1 ? i : 3 - i];
    corners[i][axis] = side;
    corners[i][(axis + 1) % 3] = step[0];
    corners[i][(axis + 2) % 3] = step[1];
  }
  return corners;
}

// The polygons in which the surface crosses the cell, each as the edges its vertices are in the middle of.
std::vector<std::vector<int>> polygons(int code) {
  const bool join = std::popcount(static_cast<unsigned>(code)) > 4;
  int next[64];
  for (int& n : next) n = -1;
  for (int axis = 0; axis < 3; ++axis) {
    for (int side = 0; side < 2; ++side) {
      const auto corners = face(axis, side);
      const auto edge = [&](int i) { return edge_index(corners[i & 3], corners[(i + 1) & 3]); };
      const auto in = [&](int i) { return inside(code, corners[i & 3]); };
      for (int i = 0; i < 4; ++i) {
        if (!in(i) || in(i + 1)) continue;
        // The contour leaves through edge i; it came in through the nearest entering edge behind it, or,
        // where the inside corners of a face are joined, through the one before it.
        int entering = i;
        const int step = join ? 1 : 3;
        do entering += step;
        while (in(entering) || !in(entering + 1));
        next[edge(i)] = edge(entering);
      }
    }
  }
  std::vector<std::vector<int>> found;
  for (int start = 0; start < 64; ++start) {
    if (next[start] < 0) continue;
    auto& polygon = found.emplace_back();
    for (int e = start; next[e] >= 0;) {
      polygon.push_back(e);
      const int after = next[e];
      next[e] = -1;
      e = after;
    }
  }
  return found;
}

double triangle(const Point& a, const Point& b, const Point& c, const double spacing[3]) {
  double u[3], v[3];
  for (int axis = 0; axis < 3; ++axis) {
    u[axis] = (b[axis] - a[axis]) * spacing[axis];
    v[axis] = (c[axis] - a[axis]) * spacing[axis];
  }
  const double x = u[1] * v[2] - u[2] * v[1], y = u[2] * v[0] - u[0] * v[2], z = u[0] * v[1] - u[1] * v[0];
  return 0.5 * std::sqrt(x * x + y * y + z * z);
}

double fan(const std::vector<int>& polygon, std::size_t apex, const double spacing[3]) {
  const std::size_t n = polygon.size();
  double area = 0;
  for (std::size_t i = 1; i + 1 < n; ++i) {
    area += triangle(middle(polygon[apex]), middle(polygon[(apex + i) % n]),
                     middle(polygon[(apex + i + 1) % n]), spacing);
  }
  return area;
}

double polygon_area(const std::vector<int>& polygon, const double spacing[3]) {
  static constexpr double unit[3] = {1, 1, 1};
  std::size_t best = 0;
  double largest = -1;
  for (std::size_t apex = 0; apex < polygon.size(); ++apex) {
    const double area = fan(polygon, apex, unit);
    if (area > largest + 1e-9) {
      largest = area;
      best = apex;
    }
  }
  return fan(polygon, best, spacing);
}

}  // namespace

void surfel_areas(const double spacing[3], double areas[256]) {
  for (int code = 0; code < 256; ++code) {
    areas[code] = 0;
    for (const auto& polygon : polygons(code)) areas[code] += polygon_area(polygon, spacing);
  }
}

void surfel_lengths(const double spacing[2], double lengths[16]) {
  const double diagonal = 0.5 * std::sqrt(spacing[0] * spacing[0] + spacing[1] * spacing[1]);
  for (int code = 0; code < 16; ++code) {
    const int count = std::popcount(static_cast<unsigned>(code));
    if (count == 0 || count == 4) {
      lengths[code] = 0;
    } else if (count != 2) {
      lengths[code] = diagonal;
    } else if (code == 0b0110 || code == 0b1001) {
      lengths[code] = 2 * diagonal;
    } else {
      lengths[code] = code == 0b0011 || code == 0b1100 ? spacing[1] : spacing[0];
    }
  }
}

}  // namespace rubriscope::ops
