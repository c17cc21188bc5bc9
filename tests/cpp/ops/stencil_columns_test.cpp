// Statements with code of their own against the general code, bit for bit, on every instruction set there is.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

#include "rubriscope/ops/stencil/columns.h"

namespace rubriscope::ops::stencil {
namespace {

constexpr std::int64_t rows = 3, row_length = 220, halo = 24;

// One linear piece of a statement: its numbers of taps, and whether it is multiplied by a field.
struct Part {
  int differences, sums, singles;
  bool times;
};

template <class T>
struct Case {
  std::vector<T> fields[3];
  std::vector<T> zeros;
  std::vector<Tap<T>> taps;
  std::vector<Taps> pieces;
  std::vector<Step<T>> steps;

  Case(const std::vector<Part>& parts, std::mt19937& random) {
    std::uniform_real_distribution<double> number(-2.0, 2.0);
    std::uniform_int_distribution<int> field(0, 2), offset(-static_cast<int>(halo), static_cast<int>(halo));
    for (auto& values : fields) {
      values.resize(static_cast<std::size_t>(rows * row_length + 2 * halo));
      for (T& value : values) value = static_cast<T>(number(random));
    }
    zeros.assign(static_cast<std::size_t>(rows * row_length + 2 * halo), T(0));
    const auto place = [&] { return fields[field(random)].data() + halo + offset(random); };
    for (const Part& part : parts) {
      pieces.push_back({static_cast<std::int32_t>(taps.size()), part.differences, part.sums, part.singles});
      for (int n = 0; n < part.differences + part.sums + part.singles; ++n) {
        taps.push_back({place(), place(), static_cast<T>(number(random))});
      }
      // Slots: 0 to 2 the fields, 3 zeros, 4 the output.
      const auto a = static_cast<std::int16_t>(part.times ? field(random) : -1);
      steps.push_back({linear, a, -1, T(1)});
    }
  }

  // With `general`, zeros are what the sum begins with: no code of its own is for that.
  template <class Run>
  std::vector<T> result(Run&& run, std::int64_t begin, std::int64_t end, bool general) {
    std::vector<T> output(static_cast<std::size_t>(rows * row_length), T(7));
    const Slot<T> slots[] = {{fields[0].data() + halo, Slot<T>::operand},
                             {fields[1].data() + halo, Slot<T>::operand},
                             {fields[2].data() + halo, Slot<T>::operand},
                             {zeros.data() + halo, Slot<T>::operand},
                             {output.data(), Slot<T>::output}};
    const Statement statement{
        0, static_cast<std::int32_t>(steps.size()), 4, static_cast<std::int16_t>(general ? 3 : -1), 0, 0};
    const Columns<T> columns{&statement, 1,    1 << 30,    steps.data(), pieces.data(), taps.data(),
                             slots,      rows, row_length, row_length,   nullptr,       false};
    run(columns, begin, end);
    return output;
  }
};

template <class T, class Run>
void compare(Run&& run) {
  std::mt19937 random(20261128);
  const auto same = [&](const std::vector<Part>& parts) {
    Case<T> made(parts, random);
    for (const auto& [begin, end] : {std::array<std::int64_t, 2>{0, row_length}, {5, 172}, {3, 4}, {7, 10}}) {
      const std::vector<T> own = made.result(run, begin, end, false),
                           any = made.result(run, begin, end, true);
      ASSERT_EQ(std::memcmp(own.data(), any.data(), own.size() * sizeof(T)), 0)
          << parts[0].differences << ' ' << parts[0].sums << ' ' << parts[0].singles << ", " << parts.size()
          << " parts, columns " << begin << " to " << end;
    }
  };
  for (int d = 0; d <= 6; ++d) {
    for (int s = 0; s <= 6; ++s) {
      for (int n = 0; n <= 3; ++n) {
        if (d + s + n == 0) continue;
        same({{d, s, n, false}});
        for (const int slopes : {1, 2}) {
          const Part product{slopes, 0, 0, true};
          same({{d, s, n, false}, product});
          same({{d, s, n, false}, product, product});
          same({{d, s, n, false}, product, product, product});
        }
      }
    }
  }
}

#define EACH(function) \
  [](const auto& columns, std::int64_t begin, std::int64_t end) { function(columns, begin, end); }

TEST(StencilColumns, OwnCodeGivesTheGeneralCodesBits) {
  compare<float>(EACH(isa_baseline::run_columns));
  compare<double>(EACH(isa_baseline::run_columns));
#if !defined(RUBRISCOPE_ONE_ISA)
  if (isa() == Isa::baseline) return;
  compare<float>(EACH(isa_avx2::run_columns));
  compare<double>(EACH(isa_avx2::run_columns));
  if (isa() != Isa::avx512) return;
  compare<float>(EACH(isa_avx512::run_columns));
  compare<double>(EACH(isa_avx512::run_columns));
#endif
}

#undef EACH

}  // namespace
}  // namespace rubriscope::ops::stencil
