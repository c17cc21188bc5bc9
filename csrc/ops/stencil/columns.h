// A stage over points of the same taps in consecutive rows: the vector code's interface.
#pragma once

#include <cstdint>

#include "rubriscope/ops/isa.h"
#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::ops::stencil {

/// weight·(a − b), weight·(a + b) or weight·a, read at [column].
template <class T>
struct Tap {
  const T* a;
  const T* b;
  T weight;
};

/// A linear piece's taps: differences, then sums, then single ones.
struct Taps {
  std::int32_t first, differences, sums, singles;
};

/// An instruction, decoded. Of a linear one the scalar is part of the taps' weights.
template <class T>
struct Step {
  std::int16_t operation, a, b;
  T scalar;
};

/// Consecutive steps that add to one value, which is stored once: target = c + the steps' sum.
struct Statement {
  std::int32_t first, count;  ///< Its steps.
  std::int16_t target, c;
  std::int32_t ahead, ahead_count;  ///< Of Columns::ahead: what it is the first to read.
};

/// Where a slot's column 0 is in the first row. Slots of a kind move together from row to row.
template <class T>
struct Slot {
  enum Kind : std::int32_t { operand, output, temporary };
  T* at;
  std::int32_t kind;  ///< A temporary is overwritten by every chunk of columns.
};

/// A stage, bound to rows.
template <class T>
struct Columns {
  const Statement* statements;
  std::int32_t statement_count;
  std::int32_t chunk;  ///< Points that all statements run over in turn, a multiple of 64.
  const Step<T>* steps;
  const Taps* pieces;  ///< One for each step.
  const Tap<T>* taps;
  const Slot<T>* slots;
  std::int64_t rows;
  std::int64_t input_stride, output_stride;  ///< From row to row: of taps and operands, and of outputs.
  const T* const* ahead;                     ///< The taps of each field that are read first.
  bool streamed;                             ///< Outputs go past the caches.
};

inline constexpr int most_statements = Program::most_instructions;

RUBRISCOPE_DECLARE_ISA(
    /// Evaluates columns [begin, end) of every row.
    void run_columns(const Columns<float>& rows, std::int64_t begin, std::int64_t end);
    void run_columns(const Columns<double>& rows, std::int64_t begin, std::int64_t end);
    /// The sum of the values or of their squares, in float64, in an order that only `count` decides.
    double sum_row(const float* values, std::int64_t count, bool squared);
    double sum_row(const double* values, std::int64_t count, bool squared);)

}  // namespace rubriscope::ops::stencil
