#include "rubriscope/ops/mask/nearest.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>

namespace rubriscope::ops {

namespace {

using i64 = std::int64_t;
using u64 = std::uint64_t;

std::size_t size(i64 n) { return static_cast<std::size_t>(n); }

// Where each row of y begins in the order of the results.
std::vector<i64> offsets_by_y(const Surface& surface) {
  std::vector<i64> offsets(size(surface.y.size() + 1), 0);
  for (i64 z = surface.z.begin; z < surface.z.end; ++z) {
    for (i64 y = surface.y.begin; y < surface.y.end; ++y) {
      const u64* row = surface.grid().row(z, y);
      for (i64 word = 0; word < surface.words; ++word) {
        offsets[size(y - surface.y.begin + 1)] += std::popcount(row[word]);
      }
    }
  }
  for (std::size_t i = 1; i < offsets.size(); ++i) offsets[i] += offsets[i - 1];
  return offsets;
}

struct Points {
  std::vector<double> z, y, x;
};

// In the order of the results.
Points points_of(const Surface& surface) {
  Points points;
  for (i64 y = surface.y.begin; y < surface.y.end; ++y) {
    for (i64 z = surface.z.begin; z < surface.z.end; ++z) {
      const u64* row = surface.grid().row(z, y);
      for (i64 word = 0; word < surface.words; ++word) {
        for (u64 rest = row[word]; rest != 0; rest &= rest - 1) {
          points.z.push_back(static_cast<double>(z));
          points.y.push_back(static_cast<double>(y));
          points.x.push_back(static_cast<double>(word * 64 + std::countr_zero(rest)));
        }
      }
    }
  }
  return points;
}

std::vector<double> by_pairs(const Surface& from, const Surface& to, MaskMetric metric,
                             const MaskSteps& steps, const Parallel& parallel) {
  const Points queries = points_of(from), targets = points_of(to);
  std::vector<double> costs(size(from.count));
  const i64 piece = std::max<i64>(1, (i64{1} << 18) / to.count);
  for_pieces(parallel, from.count, piece, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const double query[3] = {queries.z[size(i)], queries.y[size(i)], queries.x[size(i)]};
      costs[size(i)] = RUBRISCOPE_CALL_ISA(nearest_point, metric, query, targets.z.data(), targets.y.data(),
                                           targets.x.data(), to.count, steps.unit);
    }
  });
  return costs;
}

template <class T>
std::vector<T> costs_of_axis(MaskMetric metric, double unit, i64 count) {
  std::vector<T> costs(size(count));
  for (i64 offset = 0; offset < count; ++offset) {
    const double cost = axis_cost(metric, offset, unit);
    if constexpr (std::numeric_limits<T>::is_integer) {
      // Beyond the farthest pair of voxels, where a row is padded, costs may wrap: nobody asks for them.
      costs[size(offset)] = static_cast<T>(static_cast<u64>(cost));
    } else {
      costs[size(offset)] = cost;
    }
  }
  return costs;
}

template <class T>
std::vector<double> by_sweep(const Surface& from, const Surface& to, MaskMetric metric,
                             const MaskSteps& steps, const Parallel& parallel) {
  Range x = from.x;
  x.cover(to.x.begin, to.x.end);
  Sweep<T> sweep{};
  sweep.metric = metric;
  sweep.queries = from.grid();
  sweep.first_word = x.begin / 64;
  sweep.words = (x.end + 63) / 64 - sweep.first_word;
  sweep.z0 = to.z.begin;
  sweep.nz = to.z.size();
  sweep.y0 = to.y.begin;
  sweep.ny = to.y.size();
  const i64 stride = sweep.words * 64;

  const auto cost_z = costs_of_axis<T>(metric, steps.unit[0], std::max(from.nz, to.nz) + 1);
  const auto cost_y = costs_of_axis<T>(metric, steps.unit[1], std::max(from.ny, to.ny) + 1);
  const auto rising = costs_of_axis<T>(metric, steps.unit[2], stride);
  const std::vector<T> falling(rising.rbegin(), rising.rend());
  sweep.cost_y = cost_y.data();
  sweep.cost_z = cost_z.data();

  const i64 rows = sweep.nz * sweep.ny;
  const std::unique_ptr<T[]> nearest(new T[size(rows * stride)]);
  std::vector<std::uint8_t> row_any(size(rows)), plane_any(size(sweep.nz));
  const i64 planes_a_piece = std::max<i64>(1, 8192 / (sweep.ny * stride));
  for_pieces(parallel, sweep.nz, planes_a_piece, [&](i64 begin, i64 end) {
    for (i64 row = begin * sweep.ny; row < end * sweep.ny; ++row) {
      const u64* bits =
          to.grid().row(sweep.z0 + row / sweep.ny, sweep.y0 + row % sweep.ny) + sweep.first_word;
      if (std::all_of(bits, bits + sweep.words, [](u64 word) { return word == 0; })) continue;
      row_any[size(row)] = 1;
      plane_any[size(row / sweep.ny)] = 1;
      RUBRISCOPE_CALL_ISA(nearest_in_row, bits, sweep.words, rising.data(), falling.data(),
                          nearest.get() + row * stride);
    }
  });
  sweep.nearest = nearest.get();
  sweep.row_any = row_any.data();
  sweep.plane_any = plane_any.data();

  const auto offsets = offsets_by_y(from);
  std::vector<double> costs(size(from.count));
  const i64 blocks = stride * static_cast<i64>(sizeof(T)) / 64;
  struct Scratch {
    std::unique_ptr<T[]> planes;
    std::vector<std::uint8_t> known;
  };
  std::vector<Scratch> scratch(size(parallel.threads()));
  for_pieces(parallel, from.y.size(), 4, [&](i64 begin, i64 end, int worker) {
    Scratch& mine = scratch[size(worker)];
    if (!mine.planes) mine.planes.reset(new T[size(sweep.nz * stride)]);
    Sweep<T> here = sweep;
    for (i64 y = begin; y < end; ++y) {
      double* out = costs.data() + offsets[size(y)];
      if (offsets[size(y)] == offsets[size(y + 1)]) continue;
      mine.known.assign(size(sweep.nz * blocks), 0);
      here.planes = mine.planes.get();
      here.known = mine.known.data();
      for (i64 z = from.z.begin; z < from.z.end; ++z) {
        out += RUBRISCOPE_CALL_ISA(sweep_row, here, z, from.y.begin + y, out);
      }
    }
  });
  return costs;
}

// The cost from one corner of the box around both surfaces to the other: the largest there can be.
double largest_cost(const Surface& from, const Surface& to, MaskMetric metric, const MaskSteps& steps) {
  Range box[3] = {from.z, from.y, from.x};
  box[0].cover(to.z.begin, to.z.end);
  box[1].cover(to.y.begin, to.y.end);
  box[2].cover(to.x.begin, to.x.end);
  double cost = 0;
  for (int axis = 0; axis < 3; ++axis) {
    cost = combined_cost(metric, cost, axis_cost(metric, box[axis].size() - 1, steps.unit[axis]));
  }
  return cost;
}

}  // namespace

std::vector<double> nearest_costs(const Surface& from, const Surface& to, MaskMetric metric,
                                  const MaskSteps& steps, const Parallel& parallel) {
  // A pair costs about as much as four cells of the sweep's table.
  const double cells =
      static_cast<double>(to.z.size()) * static_cast<double>(to.y.size()) *
      static_cast<double>(std::max(from.x.end, to.x.end) - std::min(from.x.begin, to.x.begin));
  if (4.0 * static_cast<double>(from.count) * static_cast<double>(to.count) < cells) {
    return by_pairs(from, to, metric, steps, parallel);
  }
  const double largest = largest_cost(from, to, metric, steps);
  if (steps.integral && largest <= std::numeric_limits<std::uint16_t>::max()) {
    return by_sweep<std::uint16_t>(from, to, metric, steps, parallel);
  }
  if (steps.integral && largest <= std::numeric_limits<std::uint32_t>::max()) {
    return by_sweep<std::uint32_t>(from, to, metric, steps, parallel);
  }
  return by_sweep<double>(from, to, metric, steps, parallel);
}

}  // namespace rubriscope::ops
