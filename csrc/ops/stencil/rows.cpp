#include "rubriscope/ops/stencil/rows.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace rubriscope::ops::stencil {

namespace {

constexpr std::int64_t temporary_bytes = 12 << 10;  // for all of them: they are to stay in the first cache
constexpr std::int64_t whole_row = std::int64_t{1} << 30;
constexpr std::int64_t line_elements = 16;  // at least a cache line of float32

struct Found {
  std::int64_t offset;
  std::int16_t input, group;
  double weight;
  bool taken;
};

bool adds(const Instruction& in) { return in.operation == linear || in.operation == multiply_add; }

}  // namespace

template <class T>
Rows<T>::Rows(const Program& program, const Stage& stage, const T* scalars, const Strides& strides, bool wrap,
              double scale)
    : program_(program), stage_(stage), scalars_(scalars), strides_(strides), wrap_(wrap), scale_(scale) {
  for (int axis = 0; axis < 3; ++axis) {
    Classes& classes = classes_[axis];
    classes.nodes = program.axes[axis].nodes;
    std::int64_t reach = 0;
    for (int p = stage.first_piece; p < stage.first_piece + stage.pieces; ++p) {
      const Piece& piece = program.piece[p];
      for (int t = piece.first; t < piece.first + piece.count; ++t) {
        input_count_ = std::max(input_count_, static_cast<std::size_t>(program.term[t].input) + 1);
        const Table& table = program.table[program.term[t].table[axis]];
        classes.lead = std::max<std::int64_t>(classes.lead, table.lead);
        classes.tail = std::max<std::int64_t>(classes.tail, table.tail);
        const Row& row = program.row[table.first + table.lead];
        for (int i = row.first; i < row.first + row.count; ++i) {
          reach = std::max<std::int64_t>(reach, std::abs(program.tap_offset[i]));
        }
        if (wrap && program.axes[axis].periodic) {
          classes.lead = std::max(classes.lead, reach);
          classes.tail = std::max(classes.tail, reach);
        }
      }
    }
    if (classes.lead + classes.tail > classes.nodes) {
      classes.lead = classes.nodes;
      classes.tail = 0;
    }
  }
  groups_.resize(static_cast<std::size_t>(classes_[0].count() * classes_[1].count() * classes_[2].count()));
  decode();
}

// What does not depend on the row: statements, and where temporaries are.
template <class T>
void Rows<T>::decode() {
  const Instruction* const instructions = program_.instruction + stage_.first_instruction;
  for (int n = 0; n < stage_.instructions; ++n) {
    const Instruction& in = instructions[n];
    // A sum goes on where the target is added to and not read otherwise.
    const bool goes_on = n > 0 && adds(in) && adds(instructions[n - 1]) && in.c == in.target &&
                         in.target == instructions[n - 1].target && in.a != in.target && in.b != in.target;
    if (goes_on) {
      ++statements_.back().count;
    } else {
      const std::int16_t c = adds(in) ? in.c : std::int16_t{-1};
      statements_.push_back({n, 1, in.target, c, 0, 0});
    }
    steps_.push_back({in.operation, in.a, in.b, scalars_[in.scalar]});
  }
  const std::int64_t bytes =
      std::max<std::int64_t>(stage_.registers, 1) * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t chunk = stage_.registers == 0
                                 ? whole_row
                                 : std::clamp<std::int64_t>(temporary_bytes / bytes / 64 * 64, 64, 512);
  temporaries_.resize(static_cast<std::size_t>(stage_.registers * chunk) + 16);
  // Aligned to a cache line.
  auto* base = reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(temporaries_.data()) + 63) &
                                    ~std::uintptr_t{63});
  for (int o = 0; o < program_.operands; ++o) slots_.push_back({nullptr, Slot<T>::operand});
  for (int o = 0; o < stage_.outputs; ++o) slots_.push_back({nullptr, Slot<T>::output});
  for (int r = 0; r < stage_.registers; ++r) slots_.push_back({base + r * chunk, Slot<T>::temporary});
  columns_.statement_count = static_cast<std::int32_t>(statements_.size());
  columns_.chunk = static_cast<std::int32_t>(chunk);
  columns_.steps = steps_.data();
  columns_.slots = slots_.data();
  columns_.input_stride = strides_.row;
  columns_.output_stride = strides_.output_row;
}

template <class T>
void Rows<T>::build(Group& group, std::int64_t i, std::int64_t j, std::int64_t k) const {
  const std::int64_t nodes[3] = {i, j, k};
  group.built = true;
  const std::int64_t strides[3] = {strides_.plane, strides_.row, 1};
  std::vector<Found> found;
  for (int n = stage_.first_instruction; n < stage_.first_instruction + stage_.instructions; ++n) {
    const Instruction& in = program_.instruction[n];
    Taps taps{static_cast<std::int32_t>(group.taps.size()), 0, 0, 0};
    if (in.operation != linear) {
      group.pieces.push_back(taps);
      continue;
    }
    const Piece& piece = program_.piece[in.piece];
    found.clear();
    for (int t = piece.first; t < piece.first + piece.count; ++t) {
      const Term& term = program_.term[t];
      const Row* rows[3];
      for (int a = 0; a < 3; ++a)
        rows[a] = &row_at(program_, term.table[a], nodes[a], program_.axes[a].nodes);
      const auto offset = [&](int axis, int tap) {
        const std::int64_t step = program_.tap_offset[tap];
        return strides[axis] *
               (wrap_ ? neighbour(program_.axes[axis], nodes[axis], step) - nodes[axis] : step);
      };
      for (int a = rows[0]->first; a < rows[0]->first + rows[0]->count; ++a) {
        for (int b = rows[1]->first; b < rows[1]->first + rows[1]->count; ++b) {
          for (int c = rows[2]->first; c < rows[2]->first + rows[2]->count; ++c) {
            const std::int64_t at = offset(0, a) + offset(1, b) + offset(2, c);
            const double weight = scale_ * term.weight * program_.tap_weight[a] * program_.tap_weight[b] *
                                  program_.tap_weight[c];
            const auto same = std::find_if(found.begin(), found.end(), [&](const Found& other) {
              return other.offset == at && other.input == term.input && other.group == term.group;
            });
            if (same != found.end()) {
              same->weight += weight;
            } else {
              found.push_back({at, term.input, term.group, weight, false});
            }
          }
        }
      }
    }
    // Opposite weights become differences, equal ones sums. A difference of neighbours or of time levels is
    // then taken before it is divided by a small step.
    const T scalar = scalars_[in.scalar];
    for (const double sign : {-1.0, 1.0}) {
      for (std::size_t first = 0; first < found.size(); ++first) {
        for (std::size_t second = first + 1; second < found.size() && !found[first].taken; ++second) {
          Found& a = found[first];
          Found& b = found[second];
          if (b.taken || a.group != b.group || b.weight != sign * a.weight) continue;
          a.taken = b.taken = true;
          ++(sign < 0 ? taps.differences : taps.sums);
          group.taps.push_back({a.offset, b.offset, a.input, b.input, scalar * static_cast<T>(a.weight)});
        }
      }
    }
    for (const Found& tap : found) {
      if (tap.taken) continue;
      ++taps.singles;
      group.taps.push_back(
          {tap.offset, tap.offset, tap.input, tap.input, scalar * static_cast<T>(tap.weight)});
    }
    group.pieces.push_back(taps);
  }
  std::vector<std::int64_t> furthest(input_count_, std::numeric_limits<std::int64_t>::min());
  for (const Offsets& tap : group.taps) {
    group.low = std::min({group.low, tap.a, tap.b});
    group.high = std::max({group.high, tap.a, tap.b});
    auto& a = furthest[static_cast<std::size_t>(tap.input_a)];
    a = std::max(a, tap.a);
    auto& b = furthest[static_cast<std::size_t>(tap.input_b)];
    b = std::max(b, tap.b);
  }
  // Of each field the tap that is furthest ahead, for the first statement that reads the field. What another
  // stage just wrote is at hand.
  group.statements = statements_;
  std::vector<bool> met(input_count_);
  for (Statement& statement : group.statements) {
    statement.ahead = static_cast<std::int32_t>(group.ahead.size());
    const auto& pieces = group.pieces;
    for (int n = statement.first; n < statement.first + statement.count; ++n) {
      const Taps& of = pieces[static_cast<std::size_t>(n)];
      for (int t = of.first; t < of.first + of.differences + of.sums + of.singles; ++t) {
        const Offsets& tap = group.taps[static_cast<std::size_t>(t)];
        for (const std::int16_t input : {tap.input_a, tap.input_b}) {
          if (!wrap_ || met[static_cast<std::size_t>(input)]) continue;
          met[static_cast<std::size_t>(input)] = true;
          group.ahead.push_back({input, furthest[static_cast<std::size_t>(input)]});
        }
      }
    }
    statement.ahead_count = static_cast<std::int32_t>(group.ahead.size()) - statement.ahead;
  }
}

template <class T>
auto Rows<T>::group(std::int64_t first, std::int64_t second, std::int64_t third) -> Group& {
  Group& found =
      groups_[static_cast<std::size_t>((first * classes_[1].count() + second) * classes_[2].count() + third)];
  if (!found.built) build(found, classes_[0].node(first), classes_[1].node(second), classes_[2].node(third));
  return found;
}

template <class T>
void Rows<T>::bind(const Group& group, const T* const* inputs) {
  taps_.resize(std::max(taps_.size(), group.taps.size()));
  for (std::size_t t = 0; t < group.taps.size(); ++t) {
    const Offsets& tap = group.taps[t];
    taps_[t] = {inputs[tap.input_a] + tap.a, inputs[tap.input_b] + tap.b, tap.weight};
  }
  ahead_.clear();
  for (const Offset& of : group.ahead) ahead_.push_back(inputs[of.input] + of.at);
  columns_.ahead = ahead_.data();
  columns_.statements = group.statements.data();
  columns_.taps = taps_.data();
  columns_.pieces = group.pieces.data();
}

template <class T>
void Rows<T>::run(std::int64_t i, std::int64_t j, std::int64_t count, std::int64_t begin, std::int64_t end,
                  std::int64_t first, std::int64_t last, const T* const* inputs, T* const* memory) {
  const std::size_t operands = static_cast<std::size_t>(program_.operands);
  const std::size_t slots = operands + static_cast<std::size_t>(stage_.outputs);
  inputs_.assign(inputs, inputs + input_count_);
  for (std::size_t s = 0; s < slots; ++s) slots_[s].at = memory[s];
  const std::int64_t plane = classes_[0].of(i);
  while (count > 0) {
    const std::int64_t line = classes_[1].of(j);
    std::int64_t alike = 1;
    while (alike < count && classes_[1].of(j + alike) == line) ++alike;
    columns_.rows = alike;
    run_alike(plane, line, begin, end, first, last, inputs_.data());
    j += alike;
    count -= alike;
    const std::int64_t inputs_by = alike * strides_.row, outputs_by = alike * strides_.output_row;
    for (const T*& input : inputs_) input += inputs_by;
    for (std::size_t s = 0; s < slots; ++s) slots_[s].at += s < operands ? inputs_by : outputs_by;
    first -= inputs_by;
    last -= inputs_by;
  }
}

// Whether outputs can be streamed: they begin on a cache line in every row, and no step reads them.
template <class T>
bool Rows<T>::streams_from(std::int64_t column) const {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(T));
  if (columns_.output_stride % line != 0) return false;
  const auto is_output = [&](std::int16_t slot) {
    return slot >= 0 && slots_[static_cast<std::size_t>(slot)].kind == Slot<T>::output;
  };
  for (const Statement& statement : statements_) {
    const auto target =
        reinterpret_cast<std::uintptr_t>(slots_[static_cast<std::size_t>(statement.target)].at + column);
    if (is_output(statement.target) && target % 64 != 0) return false;
    if (!is_output(statement.target) || is_output(statement.c)) return false;
  }
  for (const Step<T>& step : steps_) {
    if (is_output(step.a) || is_output(step.b)) return false;
  }
  return true;
}

// Rows whose taps are alike, at columns_.rows: the middle, then the columns at the ends.
template <class T>
void Rows<T>::run_alike(std::int64_t plane, std::int64_t line, std::int64_t begin, std::int64_t end,
                        std::int64_t first, std::int64_t last, const T* const* inputs) {
  const Classes& columns = classes_[2];
  const std::int64_t low = std::clamp(columns.lead, begin, end);
  const std::int64_t high = std::clamp(columns.nodes - columns.tail, low, end);
  if (low < high) {
    // Whole cache lines where the taps allow it: what is computed beside the middle is computed again below.
    const Group& of = group(plane, line, columns.lead);
    std::int64_t from = std::max(begin, low / line_elements * line_elements);
    std::int64_t to = std::min(end, (high + line_elements - 1) / line_elements * line_elements);
    if (from + of.low < first) from = low;
    if (to + of.high + (columns_.rows - 1) * strides_.row > last) to = high;
    bind(of, inputs);
    columns_.streamed = streamed_ && streams_from(from);
    RUBRISCOPE_CALL_ISA(run_columns, columns_, from, to);
    columns_.streamed = false;
  }
  const auto column = [&](std::int64_t k) {
    bind(group(plane, line, columns.of(k)), inputs);
    RUBRISCOPE_CALL_ISA(run_columns, columns_, k, k + 1);
  };
  for (std::int64_t k = begin; k < low; ++k) column(k);
  for (std::int64_t k = high; k < end; ++k) column(k);
}

template class Rows<float>;
template class Rows<double>;

}  // namespace rubriscope::ops::stencil
