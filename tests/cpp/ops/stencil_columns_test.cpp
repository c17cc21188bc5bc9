// Statements with code of their own against the general code, bit for bit, on every instruction set there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
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

// The two-dimensional Navier–Stokes equations on rows with one more on each side: u, v, p and the old u, v.
template <class T>
struct Flow {
  static constexpr std::int64_t length = 256, margin = 32;
  std::vector<T> fields[5];
  std::vector<Tap<T>> taps;
  std::vector<Taps> pieces;
  std::vector<Step<T>> steps;
  std::vector<Statement> statements;
  alignas(64) T outputs[3][rows * length];

  // `moved` shifts one read by a column, which makes it other statements of the same form.
  explicit Flow(std::mt19937& random, int moved) {
    std::uniform_real_distribution<double> number(-2.0, 2.0);
    for (auto& field : fields) {
      field.resize(static_cast<std::size_t>((rows + 2) * length + 2 * margin));
      for (T& value : field) value = static_cast<T>(number(random));
    }
    int reads = 0;
    const auto at = [&](int field, std::int64_t row, std::int64_t column) {
      return begin(field) + row * length + column + (reads++ == moved ? 1 : 0);
    };
    const auto piece = [&](int differences, int sums, int singles, std::int16_t times) {
      pieces.push_back({static_cast<std::int32_t>(taps.size()), differences, sums, singles});
      steps.push_back({linear, times, -1, T(1)});
    };
    const auto pair = [&](int field, bool along_rows) {
      const T* const a = along_rows ? at(field, 0, -1) : at(field, -1, 0);
      const T* const b = along_rows ? at(field, 0, 1) : at(field, 1, 0);
      taps.push_back({a, b, static_cast<T>(number(random))});
    };
    for (int of = 0; of < 2; ++of) {
      statements.push_back({3 * of, 3, static_cast<std::int16_t>(5 + of), -1, 0, 0});
      piece(2, 2, 1, -1);
      const T* const old = at(3 + of, 0, 0);
      const T* const now = at(of, 0, 0);
      taps.push_back({old, now, static_cast<T>(number(random))});
      pair(2, of == 1);
      pair(of, true);
      pair(of, false);
      const T* const here = at(of, 0, 0);
      taps.push_back({here, here, static_cast<T>(number(random))});
      piece(1, 0, 0, 0);
      pair(of, false);
      piece(1, 0, 0, 1);
      pair(of, true);
    }
    statements.push_back({6, 1, 7, -1, 0, 0});
    piece(2, 0, 0, -1);
    pair(0, false);
    pair(1, true);
  }

  const T* begin(int field) const { return fields[field].data() + margin + length; }

  template <class Run>
  std::vector<T> result(Run&& run, std::int64_t from, std::int64_t to, bool together, bool streamed) {
    std::fill_n(outputs[0], 3 * rows * length, T(7));
    std::vector<Slot<T>> slots;
    for (int n = 0; n < 5; ++n) slots.push_back({const_cast<T*>(begin(n)), Slot<T>::operand});
    for (auto& output : outputs) slots.push_back({output, Slot<T>::output});
    const int count = together ? 3 : 1;
    for (int first = 0; first < 3; first += count) {
      const Columns<T> columns{statements.data() + first,
                               count,
                               1 << 30,
                               steps.data(),
                               pieces.data(),
                               taps.data(),
                               slots.data(),
                               rows,
                               length,
                               length,
                               nullptr,
                               streamed};
      run(columns, from, to);
    }
    return {outputs[0], outputs[0] + 3 * rows * length};
  }
};

template <class T, class Run>
void compare_flow(Run&& run) {
  std::mt19937 random(20261128);
  for (int moved = -1; moved < 30; ++moved) {
    const auto flow = std::make_unique<Flow<T>>(random, moved);
    for (const auto& [from, to] : {std::array<std::int64_t, 2>{0, 256}, {16, 240}, {5, 172}, {3, 4}}) {
      const std::vector<T> alone = flow->result(run, from, to, false, false);
      for (const bool streamed : {false, true}) {
        if (streamed && from % 16 != 0) continue;  // outputs are streamed from the beginning of a line on
        ASSERT_EQ(alone, flow->result(run, from, to, true, streamed))
            << "read " << moved << " moved, columns " << from << " to " << to << ", streamed " << streamed;
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

TEST(StencilColumns, StatementsEvaluatedTogetherGiveTheBitsOfEachAlone) {
  compare_flow<float>(EACH(isa_baseline::run_columns));
  compare_flow<double>(EACH(isa_baseline::run_columns));
#if !defined(RUBRISCOPE_ONE_ISA)
  if (isa() == Isa::baseline) return;
  compare_flow<float>(EACH(isa_avx2::run_columns));
  compare_flow<double>(EACH(isa_avx2::run_columns));
  if (isa() != Isa::avx512) return;
  compare_flow<float>(EACH(isa_avx512::run_columns));
  compare_flow<double>(EACH(isa_avx512::run_columns));
#endif
}

#undef EACH

}  // namespace
}  // namespace rubriscope::ops::stencil
