// The code that CUDA threads run, point by point, against the CPU's rows and tiles.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/ops/stencil/kernels.h"
#include "rubriscope/ops/stencil/parse.h"

namespace rubriscope::ops::stencil {
namespace {

constexpr std::int64_t rows = 9, columns = 37;
constexpr double step = 2.0;

// u ∇²u, its square's sum and half the square's gradient: rows masked, columns periodic, step 1.
struct Lists {
  std::vector<std::int64_t> code;
  std::vector<double> numbers;
};

Lists squared_program() {
  const std::vector<std::int64_t> identity = {0, 0, 1, 0};
  Lists lists;
  lists.code = {1,       1, 1, 0, 0,  // version, components, gradients: of input 0
                1,       0, 0,        // no third axis
                rows,    0, 1,        // masked
                columns, 1, 0};       // periodic
  const auto add = [&](std::initializer_list<std::int64_t> values) {
    lists.code.insert(lists.code.end(), values);
  };
  add({5});
  add({0, 0, 1, 0});                                         // 0: identity
  add({1, 1, 0, 3, -1, 0, 1, 0});                            // 1: second derivative, no rows at the ends
  add({0, 0, 3, -1, 0, 1});                                  // 2: periodic second derivative
  add({1, 1, 0, 1, 0, 0});                                   // 3: masked identity
  add({2, 2, 1, 1, 2, 0, 1, 3, -1, 0, 1, 2, -1, 0, 1, -1});  // 4: table 1 transposed
  lists.numbers = {1, 1, -2, 1, 1, -2, 1, 1, 1, -2, 1, 1, -2, 1, 1, -2, 1};
  add({2, -1, 0});  // scalars: 1, and parameter 0 times 2
  lists.numbers.push_back(1);
  lists.numbers.push_back(step);
  add({1, 0, 0});  // operand 0: input 0
  add({1, 0, 1});  // the sum of channel 0's squares
  // First stage: r = 2·p·u·∇²u, r·2·p·∇²u, r·2·p·u; a register holds ∇²u.
  add({3, 1, 1, 4, /* piece */ 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2});
  lists.numbers.insert(lists.numbers.end(), {1, 1});
  add({0, 4, -1, -1, -1, 0, 0});
  add({1, 1, 0, 4, -1, 1, -1});
  add({1, 2, 1, 4, -1, 1, -1});
  add({1, 3, 1, 0, -1, 1, -1});
  // Second stage: identityᵀ of channel 1 + ∇²ᵀ of channel 2.
  add({1, 0, 1, 1, 3, 1, 0, 0, 3, 0, 2, 0, 0, 4, 0, 2, 0, 0, 3, 2});
  lists.numbers.insert(lists.numbers.end(), {1, 1, 1});
  add({0, 1, -1, -1, -1, 0, 0});
  return lists;
}

template <class T>
void compare() {
  const Lists lists = squared_program();
  const std::shared_ptr<const Program> program =
      parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  const Prepared prepared(program);
  const std::int64_t points = rows * columns, batch = 2;
  std::vector<T> u(static_cast<std::size_t>(batch * points));
  for (std::size_t i = 0; i < u.size(); ++i)
    u[i] = static_cast<T>(std::sin(1.7 * static_cast<double>(i * i % 97)));
  const T param = static_cast<T>(0.5);
  const T* const inputs[] = {u.data()};
  const T* const params[] = {&param};
  const std::int64_t strides[] = {0};
  const Given<T> given{batch, inputs, params, strides, nullptr};
  std::vector<T> gradient(u.size());
  T* const gradients[] = {gradient.data()};
  double sum = 0;
  prepared.sweep(serial(), given, 1.0, gradients, &sum);

  // As a grid of threads does it: the first stage into whole channels, then the second.
  const T scalars[] = {T(1), static_cast<T>(step * 0.5)};
  std::vector<T> channels[3];
  for (auto& channel : channels) channel.assign(u.size(), T(0));
  const T* const from[] = {channels[0].data(), channels[1].data(), channels[2].data()};
  double expected_sum = 0, largest = 0;
  const auto each = [&](auto&& work) {
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t j = 0; j < rows; ++j) {
        for (std::int64_t k = 0; k < columns; ++k) work(b * points, j, k, b * points + j * columns + k);
      }
    }
  };
  each([&](std::int64_t origin, std::int64_t j, std::int64_t k, std::int64_t at) {
    if (is_masked(*program, 0, j, k)) return;
    T slots[Program::most_slots] = {u[static_cast<std::size_t>(at)]};
    run_at<T>(*program, program->point, inputs, origin, scalars, 0, j, k, slots);
    for (int c = 0; c < 3; ++c) channels[c][static_cast<std::size_t>(at)] = slots[1 + c];
    expected_sum += static_cast<double>(slots[1]) * static_cast<double>(slots[1]);
  });
  std::vector<T> expected(u.size());
  each([&](std::int64_t origin, std::int64_t j, std::int64_t k, std::int64_t at) {
    T slots[Program::most_slots] = {};
    run_at<T>(*program, program->gather, from, origin, scalars, 0, j, k, slots);
    expected[static_cast<std::size_t>(at)] = slots[1];
    largest = std::max(largest, std::abs(static_cast<double>(slots[1])));
  });
  const double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-15;
  EXPECT_GT(expected_sum, 1.0);
  EXPECT_NEAR(sum, expected_sum, 10 * tolerance * expected_sum);
  for (std::size_t i = 0; i < u.size(); ++i)
    EXPECT_NEAR(gradient[i], expected[i], 4 * tolerance * largest) << i;

  // And the gradient is that of half the sum: one difference quotient.
  if (sizeof(T) == 8) {
    const std::size_t at = 3 * columns + 5;
    double value[2];
    for (const int side : {0, 1}) {
      std::vector<T> moved = u;
      moved[at] += static_cast<T>(side == 0 ? -1e-5 : 1e-5);
      const T* const there[] = {moved.data()};
      prepared.sweep(serial(), Given<T>{batch, there, params, strides, nullptr}, 1.0, gradients,
                     &value[side]);
    }
    EXPECT_NEAR((value[1] - value[0]) / 4e-5, static_cast<double>(expected[at]), 1e-6 * largest);
  }
}

TEST(StencilPoint, AgreesWithTheRowsInFloat64) { compare<double>(); }
TEST(StencilPoint, AgreesWithTheRowsInFloat32) { compare<float>(); }

TEST(StencilParse, RefusesWhatLeadsOutOfTheGrid) {
  const Lists good = squared_program();
  const auto read = [](const Lists& lists) {
    return parse(lists.code.data(), lists.code.size(), lists.numbers.data(), lists.numbers.size());
  };
  EXPECT_NO_THROW(read(good));
  Lists bad = good;
  bad.code.pop_back();
  EXPECT_THROW(read(bad), ValueError);
  bad = good;
  bad.numbers.pop_back();
  EXPECT_THROW(read(bad), ValueError);
  bad = good;
  bad.code[8] = 2;  // rows: fewer than the table's ends
  EXPECT_THROW(read(bad), ValueError);
  bad = good;
  bad.code[11] = 2;  // columns: a tap would wrap around twice
  EXPECT_THROW(read(bad), ValueError);
}

}  // namespace
}  // namespace rubriscope::ops::stencil
