// A stage in flat form, as CUDA runs it on periodic grids, against run_at point by point.
#include "rubriscope/ops/stencil/flat.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "rubriscope/ops/stencil/parse.h"

namespace rubriscope::ops::stencil {
namespace {

struct Lists {
  std::vector<std::int64_t> code;
  std::vector<double> numbers;
};

/// Of inputs u and v: r0 = p u ∇²u + ∂v, r1 = sin(u / (2 + v²)) − 3 ∂²u/∂x∂y, both with terms that meet at a
/// node.
Lists residual_program(std::int64_t planes, std::int64_t rows, std::int64_t columns, bool periodic) {
  Lists lists;
  const auto add = [&](std::initializer_list<std::int64_t> values) {
    lists.code.insert(lists.code.end(), values);
  };
  const auto weigh = [&](std::initializer_list<double> values) {
    lists.numbers.insert(lists.numbers.end(), values);
  };
  add({1, 2, 0});  // version, components, gradients
  add({planes, planes > 1, 0, rows, 1, 0, columns, periodic, 0});
  add({3});
  add({0, 0, 1, 0});  // 0: identity
  weigh({1});
  add({0, 0, 3, -1, 0, 1});  // 1: second derivative
  weigh({1, -2, 1});
  if (periodic) {
    // 2: a difference that leans to one side, far where there is room: no lane may read beyond its grid.
    add({0, 0, 2, -2, columns > 120 ? 60 : 1});
    weigh({-0.25, 0.5});
  } else {
    add({2, 1, 1, 0, 1, 0, 2, -2, 1, 1, 0});  // the same with rows at the ends
    weigh({3, 5, -0.25, 0.5, 7});
  }
  add({3, -1, 0, -1});  // scalars: 1, parameter 0 times 2, −3
  weigh({1, 2, -3});
  add({2, 0, 0, 0, 1});  // operands 0 and 1: u and v
  add({0});              // no sums
  // Slots: operands 0 and 1, outputs 2 and 3, registers 4 to 6.
  const std::int64_t third = planes > 1 ? 1 : 0;
  add({2, 3, 3, 8});
  add({3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, third, 0, 0});  // u, u along y, u along z (or u again)
  weigh({0.5, 1, 1.5});
  add({1, 1, 0, 0, 0, 2});
  weigh({1});
  add({1, 0, 0, 0, 1, 2});
  weigh({1});
  add({0, 4, -1, -1, -1, 0, 0});   // register 4 = ∇²u
  add({0, 2, -1, -1, -1, 0, 1});   // r0 = ∂v
  add({1, 2, 0, 4, 2, 1, -1});     // r0 += 2 p u ∇²u
  add({1, 5, -1, -1, -1, 1, -1});  // register 5 = 2 p
  add({1, 5, 1, 1, 5, 0, -1});     // … + v²
  add({2, 6, 0, 5, -1, 0, -1});    // register 6 = u / register 5
  add({3, 3, 6, -1, -1, 0, -1});   // r1 = sin
  add({0, 3, -1, -1, 3, 2, 2});    // r1 −= 3 ∂²u/∂x∂y
  add({0, 0, 0, 0});               // no second stage
  return lists;
}

/// Every point by the lanes of warps, as cuda/stencil_flat.cu maps them.
template <class T, int Columns>
void compare(std::int64_t planes, std::int64_t rows, std::int64_t columns) {
  constexpr int step = 32;
  const Lists lists = residual_program(planes, rows, columns, true);
  const auto program =
      parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  FlatStage<T> flat{};
  ASSERT_TRUE(flatten(*program, program->point, &flat));
  const std::int64_t points = planes * rows * columns, batch = 2;
  std::vector<T> u, v;
  for (std::int64_t i = 0; i < batch * points; ++i) {
    u.push_back(static_cast<T>(std::sin(0.7 * static_cast<double>(i * i % 101))));
    v.push_back(static_cast<T>(std::cos(1.3 * static_cast<double>(i * i % 89))));
  }
  const T* const inputs[] = {u.data(), v.data()};
  const T scalars[] = {T(1), T(2 * 0.75), T(-3)};
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-14;
  std::vector<int> seen(static_cast<std::size_t>(points));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t origin = b * points;
    for (std::int32_t i = 0; i < planes; ++i) {
      for (std::int32_t j = 0; j < rows; ++j) {
        for (std::int32_t k = 0; k < columns; ++k) {
          if (k % (step * Columns) >= step) continue;  // no lane's first column
          const std::int64_t point = (i * rows + j) * columns + k;
          T slots[Program::most_slots][Columns];
          for (int c = 0; c < Columns; ++c) {
            const bool there = k + c * step < columns;
            slots[0][c] = there ? u[static_cast<std::size_t>(origin + point + c * step)] : T(0);
            slots[1][c] = there ? v[static_cast<std::size_t>(origin + point + c * step)] : T(0);
          }
          run_flat<Columns, step>(flat, inputs, origin, scalars, i, j, k,
                                  static_cast<std::int32_t>(columns - 1), slots);
          for (int c = 0; c < Columns && k + c * step < columns; ++c) {
            const auto at = static_cast<std::size_t>(point + c * step);
            ++seen[at];
            T expected[Program::most_slots] = {u[static_cast<std::size_t>(origin) + at],
                                               v[static_cast<std::size_t>(origin) + at]};
            run_at<T>(*program, program->point, inputs, origin, scalars, i, j, k + c * step, expected);
            for (int o = 2; o < 4; ++o) {
              ASSERT_NEAR(slots[o][c], expected[o], tolerance * 8)
                  << "output " << o - 2 << " at " << i << ", " << j << ", " << k + c * step << " of "
                  << planes << " × " << rows << " × " << columns;
            }
          }
        }
      }
    }
  }
  for (const int times : seen) ASSERT_EQ(times, batch);
}

TEST(StencilFlat, IsRunAtOnPeriodicGrids) {
  for (std::int64_t columns : {128, 129, 131, 160, 224, 255, 256, 300}) {
    compare<float, 4>(1, 5, columns);
    compare<double, 4>(6, 5, columns);
  }
  for (std::int64_t columns : {5, 31, 32, 33, 64, 100}) {
    compare<float, 1>(1, 7, columns);
    compare<double, 1>(5, 6, columns);
  }
}

TEST(StencilFlat, ReadsWhatMeetsOnceAndEqualWeightsTogether) {
  const Lists lists = residual_program(6, 5, 128, true);
  const auto program =
      parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  FlatStage<float> flat{};
  ASSERT_TRUE(flatten(*program, program->point, &flat));
  // u at 1, 3 and 3 nodes, of which three are one; its neighbours in two sums, the centre alone.
  EXPECT_EQ(flat.piece[0].count, 3);
  EXPECT_EQ(flat.tap[0].sign, 1);
  EXPECT_EQ(flat.tap[1].sign, 1);
  EXPECT_EQ(flat.tap[2].sign, 0);
  EXPECT_EQ(flat.tap[2].weight, 0.5f - 2 - 3);
  EXPECT_EQ(flat.piece[1].count, 2);
}

// u_now and u_next over a step of 2⁻²⁰, where one unit in the last place is all they differ by.
TEST(StencilFlat, TakesDifferencesBeforeItScalesThem) {
  Lists lists;
  lists.code = {1,
                1,
                0,
                1,
                0,
                0,
                1,
                0,
                0,
                8,
                1,
                0,
                /* tables */ 1,
                0,
                0,
                1,
                0,
                /* scalars */ 1,
                -1,
                /* operands, sums */ 0,
                0,
                /* stage */ 1,
                0,
                1,
                1,
                2,
                0,
                0,
                0,
                0,
                0,
                1,
                0,
                0,
                0,
                0,
                0,
                0,
                -1,
                -1,
                -1,
                0,
                0,
                /* none */ 0,
                0,
                0,
                0};
  const double by = 1000003.0;  // no power of two: what is scaled is rounded
  lists.numbers = {1, 1, -by, by};
  const auto program =
      parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  FlatStage<float> flat{};
  ASSERT_TRUE(flatten(*program, program->point, &flat));
  std::vector<float> now(8, 1.1f), next(8, std::nextafter(1.1f, 2.0f));
  const float* const inputs[] = {now.data(), next.data()};
  const float scalars[] = {1};
  float slots[1][1];
  run_flat<1, 32>(flat, inputs, 0, scalars, 0, 0, 3, 7, slots);
  EXPECT_EQ(slots[0][0], static_cast<float>(by) * (next[0] - now[0]));
}

TEST(StencilFlat, IsLeftWhereNodesAreSpecial) {
  const Lists lists = residual_program(1, 5, 128, false);
  const auto program =
      parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  FlatStage<float> flat{};
  EXPECT_FALSE(flatten(*program, program->point, &flat));
  Lists periodic = residual_program(1, 5, 128, true);
  periodic.code[8] = 1;  // masked rows
  const auto masked =
      parse(periodic.code.data(), periodic.code.size(), periodic.numbers.data(), periodic.numbers.size());
  EXPECT_FALSE(flatten(*masked, masked->point, &flat));
}

}  // namespace
}  // namespace rubriscope::ops::stencil
