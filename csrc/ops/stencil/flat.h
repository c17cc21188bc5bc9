// A stage on a grid that is periodic along every axis: each node has the same taps, so a piece becomes one
// list of offsets and weights, read for several columns at once. What the CUDA kernel runs there instead of
// run_at; also on the CPU, in tests.
#pragma once

#include "rubriscope/ops/host_device.h"
#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::ops::stencil {

/// A place that is read.
struct FlatPlace {
  std::int16_t input, offset[3];
};

/// weight · (a + sign · b). Opposite weights are a difference, which is so taken before it is divided by a
/// small step, equal ones a sum; sign 0: a alone.
template <class T>
struct FlatTap {
  T weight;
  FlatPlace a, b;
  std::int16_t sign;
};

/// Plain data of fixed size, so that a kernel takes it as an argument.
template <class T>
struct FlatStage {
  static constexpr int most_taps = 512;

  std::int32_t nodes[3];
  std::int16_t operands, outputs, instructions;
  Operand operand[Program::most_operands];
  Piece piece[Program::most_pieces];  ///< of `tap`
  FlatTap<T> tap[most_taps];
  Instruction instruction[Program::most_instructions];
};

/// A tap on the way to its list: as in rows.cpp, those of a group that meet at a node become one.
struct FoundTap {
  FlatPlace place;
  std::int16_t group;
  double weight;
  bool taken;

  bool is_at(const FlatPlace& other, std::int16_t of_group) const {
    return group == of_group && place.input == other.input && place.offset[0] == other.offset[0] &&
           place.offset[1] == other.offset[1] && place.offset[2] == other.offset[2];
  }
};

/// The taps of a piece on a grid without special nodes, at most `most`; −1 where there are such nodes, or
/// more taps.
inline int find_taps(const Program& program, const Piece& piece, FoundTap* found, int most) {
  int count = 0;
  for (int t = piece.first; t < piece.first + piece.count; ++t) {
    const Term& term = program.term[t];
    const Row* row[3];
    for (int axis = 0; axis < 3; ++axis) {
      const Table& table = program.table[term.table[axis]];
      if (table.lead != 0 || table.tail != 0) return -1;
      row[axis] = &program.row[table.first];
    }
    for (int a = row[0]->first; a < row[0]->first + row[0]->count; ++a) {
      for (int b = row[1]->first; b < row[1]->first + row[1]->count; ++b) {
        for (int c = row[2]->first; c < row[2]->first + row[2]->count; ++c) {
          const double weight =
              term.weight * program.tap_weight[a] * program.tap_weight[b] * program.tap_weight[c];
          const FlatPlace place{term.input,
                                {program.tap_offset[a], program.tap_offset[b], program.tap_offset[c]}};
          int at = 0;
          while (at < count && !found[at].is_at(place, term.group)) ++at;
          if (at < count) {
            found[at].weight += weight;
          } else {
            if (count == most) return -1;
            found[count++] = {place, term.group, weight, false};
          }
        }
      }
    }
  }
  return count;
}

/// Whether a stage can be written so, and if it can, that: no node is special, and there is room for all
/// taps.
template <class T>
inline bool flatten(const Program& program, const Stage& stage, FlatStage<T>* flat) {
  for (int axis = 0; axis < 3; ++axis) {
    const Axis& of = program.axes[axis];
    if (of.masked || of.nodes > 0x7fffffff) return false;
    flat->nodes[axis] = static_cast<std::int32_t>(of.nodes);
  }
  flat->operands = program.operands;
  flat->outputs = stage.outputs;
  flat->instructions = stage.instructions;
  for (int o = 0; o < program.operands; ++o) flat->operand[o] = program.operand[o];
  for (int n = 0; n < stage.instructions; ++n) {
    flat->instruction[n] = program.instruction[stage.first_instruction + n];
  }
  constexpr int most = FlatStage<T>::most_taps;
  FoundTap found[most];
  int taps = 0;
  for (int p = stage.first_piece; p < stage.first_piece + stage.pieces; ++p) {
    const int count = find_taps(program, program.piece[p], found, most - taps);
    if (count < 0) return false;
    const int first = taps;
    for (const std::int16_t sign : {std::int16_t{-1}, std::int16_t{1}, std::int16_t{0}}) {
      for (int one = 0; one < count; ++one) {
        FoundTap& a = found[one];
        if (a.taken) continue;
        int other = sign == 0 ? one : one + 1;
        while (
            sign != 0 && other < count &&
            (found[other].taken || found[other].group != a.group || found[other].weight != sign * a.weight)) {
          ++other;
        }
        if (other == count) continue;
        a.taken = found[other].taken = true;
        flat->tap[taps++] = {static_cast<T>(a.weight), a.place, found[other].place, sign};
      }
    }
    flat->piece[p] = {static_cast<std::int16_t>(first), static_cast<std::int16_t>(taps - first)};
  }
  return true;
}

/// The node that an offset of less than the axis leads to.
RUBRISCOPE_HD std::int32_t wrapped(std::int32_t node, std::int32_t nodes) {
  node += node < 0 ? nodes : 0;
  return node - (node >= nodes ? nodes : 0);
}

/// What lies at a place seen from (i, j) and columns k, k + Step, …, of which `last` is the last in the grid
/// (for what lies behind it that of `last` is read). Fields of the grid's shape begin at inputs[…] + origin.
template <int Columns, int Step, class T>
RUBRISCOPE_HD void read_place(const FlatStage<T>& flat, const FlatPlace& place, const T* const* inputs,
                              std::int64_t origin, std::int32_t i, std::int32_t j, std::int32_t k,
                              std::int32_t last, T (&value)[Columns]) {
  std::int64_t line = wrapped(j + place.offset[1], flat.nodes[1]);
  if (flat.nodes[0] > 1) {
    line += static_cast<std::int64_t>(wrapped(i + place.offset[0], flat.nodes[0])) * flat.nodes[1];
  }
  const T* const values = inputs[place.input] + origin + line * flat.nodes[2];
  const std::int32_t from = k + place.offset[2];
  if (from >= 0 && from + (Columns - 1) * Step < flat.nodes[2]) {
    const T* const at = values + from;
    for (int c = 0; c < Columns; ++c) value[c] = at[c * Step];
  } else {
    for (int c = 0; c < Columns; ++c) {
      const std::int32_t column = k + c * Step < last ? k + c * Step : last;
      value[c] = values[wrapped(column + place.offset[2], flat.nodes[2])];
    }
  }
}

template <int Columns, int Step, class T>
RUBRISCOPE_HD void flat_piece(const FlatStage<T>& flat, const Piece& piece, const T* const* inputs,
                              std::int64_t origin, std::int32_t i, std::int32_t j, std::int32_t k,
                              std::int32_t last, T (&found)[Columns]) {
  for (int c = 0; c < Columns; ++c) found[c] = T(0);
  for (int t = piece.first; t < piece.first + piece.count; ++t) {
    const FlatTap<T>& tap = flat.tap[t];
    T value[Columns];
    read_place<Columns, Step>(flat, tap.a, inputs, origin, i, j, k, last, value);
    if (tap.sign != 0) {
      T other[Columns];
      read_place<Columns, Step>(flat, tap.b, inputs, origin, i, j, k, last, other);
      const T sign = static_cast<T>(tap.sign);
      for (int c = 0; c < Columns; ++c) value[c] += sign * other[c];
    }
    for (int c = 0; c < Columns; ++c) found[c] += tap.weight * value[c];
  }
}

template <int Columns, class T>
RUBRISCOPE_HD void read_slot(const T (*slots)[Columns], int slot, T absent, T (&value)[Columns]) {
  if (slot >= 0) {
    for (int c = 0; c < Columns; ++c) value[c] = slots[slot][c];
  } else {
    for (int c = 0; c < Columns; ++c) value[c] = absent;
  }
}

/// As run_at for Columns columns at once. `slots` holds the operands' values.
template <int Columns, int Step, class T>
RUBRISCOPE_HD void run_flat(const FlatStage<T>& flat, const T* const* inputs, std::int64_t origin,
                            const T* scalars, std::int32_t i, std::int32_t j, std::int32_t k,
                            std::int32_t last, T (*slots)[Columns]) {
  for (int n = 0; n < flat.instructions; ++n) {
    const Instruction& in = flat.instruction[n];
    T a[Columns], b[Columns];
    read_slot(slots, in.a, T(1), a);
    if (in.operation == linear) {
      flat_piece<Columns, Step>(flat, flat.piece[in.piece], inputs, origin, i, j, k, last, b);
    } else {
      read_slot(slots, in.b, T(1), b);
    }
    if (in.operation == linear || in.operation == multiply_add) {
      const T scalar = scalars[in.scalar];
      T sum[Columns];
      read_slot(slots, in.c, T(0), sum);
      for (int c = 0; c < Columns; ++c) slots[in.target][c] = sum[c] + scalar * a[c] * b[c];
    } else {
      for (int c = 0; c < Columns; ++c) slots[in.target][c] = apply(in.operation, a[c], b[c]);
    }
  }
}

}  // namespace rubriscope::ops::stencil
