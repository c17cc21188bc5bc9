// The program of a residual on a grid: what rubriscope.ops.physics makes of an equation, in a form that CPU
// and CUDA kernels run. Plain data of fixed size, so that a kernel takes it as an argument.
//
// The grid has three axes, the last contiguous; a grid of fewer dimensions has axes of one node in front. The
// first stage is evaluated at each point, the second gathers its outputs through transposed stencils.
#pragma once

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops::stencil {

/// d = c + scalar·a·piece, d = c + scalar·a·b (absent: c is 0, a and b are 1), d = a / b, d = f(a).
enum Operation : std::int16_t {
  linear,
  multiply_add,
  divide,
  sine,
  cosine,
  exponential,
  logarithm,
  tanh_,
  root
};

inline constexpr int operation_count = 9;

/// Slots are numbered: operands (tensors read at the point), outputs, registers. −1 is absent.
struct Instruction {
  std::int16_t operation, target, a, b, c, scalar, piece;
};

/// One stencil of a linear piece: a weight times the product of an operator along each axis.
struct Term {
  double weight;
  std::int16_t input, group, table[3];
};

struct Piece {
  std::int16_t first, count;
};

/// An operator along an axis: `lead` rows at the lower end, one for the middle, `tail` at the upper end.
struct Table {
  std::int16_t lead, tail, first;
};

/// Taps of one row.
struct Row {
  std::int16_t first, count;
};

struct Axis {
  std::int64_t nodes;
  std::int16_t periodic;
  std::int16_t masked;  ///< No equation at the first and the last node: the residual is 0 there.
};

enum class Source : std::int16_t { input = 0, param = 1, cotangent = 2 };

struct Operand {
  Source source;
  std::int16_t index;
};

/// A number, times a parameter without dimensions unless param is −1.
struct Scalar {
  double number;
  std::int16_t param;
};

struct Sum {
  std::int16_t channel, squared;
};

struct Stage {
  std::int16_t outputs, registers, first_piece, pieces, first_instruction, instructions;
};

struct Program {
  static constexpr int most_tables = 48, most_rows = 512, most_taps = 1280, most_terms = 320,
                       most_pieces = 192, most_instructions = 288, most_scalars = 64, most_operands = 48,
                       most_sums = 32, most_gradients = 48, most_registers = 64, most_inputs = 64,
                       most_outputs = 64, most_slots = most_operands + most_outputs + most_registers;

  Axis axes[3];
  Stage point, gather;
  std::int16_t components, tables, rows, taps, terms, pieces, instructions, scalars, operands, sums,
      gradients, inputs_used, params_used, cotangents_used;
  Table table[most_tables];
  Row row[most_rows];
  std::int16_t tap_offset[most_taps];
  double tap_weight[most_taps];
  Term term[most_terms];
  Piece piece[most_pieces];
  Instruction instruction[most_instructions];
  Scalar scalar[most_scalars];
  Operand operand[most_operands];
  Sum sum[most_sums];
  Operand gradient[most_gradients];
};

/// The row of a table at a node.
RUBRISCOPE_HD const Row& row_at(const Program& program, int table, std::int64_t node, std::int64_t nodes) {
  const Table& of = program.table[table];
  std::int64_t row = of.lead;
  if (node < of.lead) {
    row = node;
  } else if (node >= nodes - of.tail) {
    row = of.lead + 1 + (node - (nodes - of.tail));
  }
  return program.row[of.first + row];
}

/// Whether a point has no equation.
RUBRISCOPE_HD bool is_masked(const Program& program, std::int64_t i, std::int64_t j, std::int64_t k) {
  const Axis* const a = program.axes;
  return (a[0].masked && (i == 0 || i == a[0].nodes - 1)) ||
         (a[1].masked && (j == 0 || j == a[1].nodes - 1)) || (a[2].masked && (k == 0 || k == a[2].nodes - 1));
}

/// The node an offset leads to.
RUBRISCOPE_HD std::int64_t neighbour(const Axis& axis, std::int64_t node, std::int64_t offset) {
  std::int64_t found = node + offset;
  if (axis.periodic) {
    if (found < 0) found += axis.nodes;
    if (found >= axis.nodes) found -= axis.nodes;
  }
  return found;
}

/// A function's or a quotient's value.
template <class T>
RUBRISCOPE_HD T apply(int operation, T a, T b) {
  switch (operation) {
    case divide:
      return a / b;
    case sine:
      return std::sin(a);
    case cosine:
      return std::cos(a);
    case exponential:
      return std::exp(a);
    case logarithm:
      return std::log(a);
    case tanh_:
      return std::tanh(a);
    case root:
      return std::sqrt(a);
    default:
      return a;
  }
}

/// A linear piece at one point, read from whole fields of the grid's shape that begin at inputs[…] + origin.
template <class T>
RUBRISCOPE_HD T piece_at(const Program& program, int piece, const T* const* inputs, std::int64_t origin,
                         std::int64_t i, std::int64_t j, std::int64_t k) {
  const Axis* const axes = program.axes;
  const Piece& of = program.piece[piece];
  T found = T(0);
  for (int t = of.first; t < of.first + of.count; ++t) {
    const Term& term = program.term[t];
    const T* const values = inputs[term.input] + origin;
    const Row& r0 = row_at(program, term.table[0], i, axes[0].nodes);
    const Row& r1 = row_at(program, term.table[1], j, axes[1].nodes);
    const Row& r2 = row_at(program, term.table[2], k, axes[2].nodes);
    T of_term = T(0);
    for (int a = r0.first; a < r0.first + r0.count; ++a) {
      const std::int64_t plane = neighbour(axes[0], i, program.tap_offset[a]) * axes[1].nodes;
      for (int b = r1.first; b < r1.first + r1.count; ++b) {
        const std::int64_t line = (plane + neighbour(axes[1], j, program.tap_offset[b])) * axes[2].nodes;
        const T weight = T(program.tap_weight[a] * program.tap_weight[b]);
        T of_row = T(0);
        for (int c = r2.first; c < r2.first + r2.count; ++c) {
          of_row += T(program.tap_weight[c]) * values[line + neighbour(axes[2], k, program.tap_offset[c])];
        }
        of_term += weight * of_row;
      }
    }
    found += T(term.weight) * of_term;
  }
  return found;
}

/// Runs a stage at one point. `slots` holds the operands' values; its outputs and registers are filled in.
template <class T>
RUBRISCOPE_HD void run_at(const Program& program, const Stage& stage, const T* const* inputs,
                          std::int64_t origin, const T* scalars, std::int64_t i, std::int64_t j,
                          std::int64_t k, T* slots) {
  for (int n = stage.first_instruction; n < stage.first_instruction + stage.instructions; ++n) {
    const Instruction& in = program.instruction[n];
    const T a = in.a >= 0 ? slots[in.a] : T(1);
    const T b = in.b >= 0 ? slots[in.b] : T(1);
    const T c = in.c >= 0 ? slots[in.c] : T(0);
    T value;
    if (in.operation == linear) {
      value = c + scalars[in.scalar] * a * piece_at(program, in.piece, inputs, origin, i, j, k);
    } else if (in.operation == multiply_add) {
      value = c + scalars[in.scalar] * a * b;
    } else {
      value = apply(in.operation, a, b);
    }
    slots[in.target] = value;
  }
}

}  // namespace rubriscope::ops::stencil
