#include "rubriscope/ops/stencil/parse.h"

#include <algorithm>
#include <limits>
#include <string>

#include "rubriscope/core/errors.h"

namespace rubriscope::ops::stencil {

namespace {

constexpr std::int64_t version = 1;

class Reader {
 public:
  Reader(const std::int64_t* code, std::size_t code_size, const double* numbers, std::size_t numbers_size)
      : code_(code), code_end_(code + code_size), numbers_(numbers), numbers_end_(numbers + numbers_size) {}

  /// The next integer, which has to be in [low, high].
  std::int64_t next(std::int64_t low, std::int64_t high, const char* what) {
    if (code_ == code_end_) throw ValueError(std::string("code ends before ") + what);
    if (*code_ < low || *code_ > high) {
      throw ValueError(std::string("code: ") + what + " is " + std::to_string(*code_) + ", expected " +
                       std::to_string(low) + " to " + std::to_string(high));
    }
    return *code_++;
  }

  std::int16_t small(std::int64_t low, std::int64_t high, const char* what) {
    return static_cast<std::int16_t>(next(low, high, what));
  }

  double number() {
    if (numbers_ == numbers_end_) throw ValueError("numbers ends too early");
    return *numbers_++;
  }

  void finish() const {
    if (code_ != code_end_) throw ValueError("code is longer than its program");
    if (numbers_ != numbers_end_) throw ValueError("numbers is longer than its program");
  }

 private:
  const std::int64_t* code_;
  const std::int64_t* code_end_;
  const double* numbers_;
  const double* numbers_end_;
};

void read_tables(Reader& in, Program& p) {
  p.tables = in.small(0, Program::most_tables, "the number of tables");
  for (int t = 0; t < p.tables; ++t) {
    Table& table = p.table[t];
    table.lead = in.small(0, Program::most_rows, "a table's lead");
    table.tail = in.small(0, Program::most_rows, "a table's tail");
    table.first = p.rows;
    const int rows = table.lead + 1 + table.tail;
    if (p.rows + rows > Program::most_rows) throw ValueError("code: too many rows for one equation");
    for (int r = 0; r < rows; ++r) {
      const std::int16_t count = in.small(0, Program::most_taps - p.taps, "a row's number of taps");
      p.row[p.rows++] = {p.taps, count};
      for (int i = 0; i < count; ++i) p.tap_offset[p.taps + i] = in.small(-1024, 1024, "a tap's offset");
      for (int i = 0; i < count; ++i) p.tap_weight[p.taps + i] = in.number();
      p.taps = static_cast<std::int16_t>(p.taps + count);
    }
  }
}

/// Every node of the axis must have taps within the axis.
void check_table(const Program& p, int index, const Axis& axis) {
  const Table& table = p.table[index];
  if (table.lead + table.tail > axis.nodes) throw ValueError("code: an axis is shorter than its operator");
  const int rows = table.lead + 1 + table.tail;
  const bool has_middle = table.lead + table.tail < axis.nodes;
  for (int r = 0; r < rows; ++r) {
    if (r == table.lead && !has_middle) continue;
    const std::int64_t low = r <= table.lead ? r : axis.nodes - table.tail + (r - table.lead - 1);
    const std::int64_t high = r == table.lead ? axis.nodes - table.tail - 1 : low;
    const Row& row = p.row[table.first + r];
    for (int t = row.first; t < row.first + row.count; ++t) {
      const std::int64_t offset = p.tap_offset[t];
      const bool inside = axis.periodic ? 2 * std::abs(offset) < axis.nodes || offset == 0
                                        : low + offset >= 0 && high + offset < axis.nodes;
      if (!inside) throw ValueError("code: a tap lies outside of its axis");
    }
  }
}

void read_stage(Reader& in, Program& p, Stage& stage, int inputs, int first_slot) {
  stage.outputs = in.small(0, 64, "the number of outputs");
  stage.registers = in.small(0, Program::most_registers, "the number of registers");
  stage.pieces = in.small(0, Program::most_pieces - p.pieces, "the number of pieces");
  stage.instructions = in.small(0, Program::most_instructions - p.instructions, "the number of instructions");
  stage.first_piece = p.pieces;
  stage.first_instruction = p.instructions;
  for (int i = 0; i < stage.pieces; ++i) {
    const std::int16_t count = in.small(0, Program::most_terms - p.terms, "a piece's number of terms");
    p.piece[p.pieces++] = {p.terms, count};
    for (int t = 0; t < count; ++t) {
      Term& term = p.term[p.terms++];
      term.input = in.small(0, inputs - 1, "a term's input");
      term.group = in.small(0, 7, "a term's group");
      for (int a = 0; a < 3; ++a) {
        term.table[a] = in.small(0, p.tables - 1, "a term's table");
        check_table(p, term.table[a], p.axes[a]);
      }
      term.weight = in.number();
    }
  }
  const int slots = p.operands + stage.outputs + stage.registers;
  for (int i = 0; i < stage.instructions; ++i) {
    Instruction& step = p.instruction[p.instructions++];
    step.operation = in.small(0, operation_count - 1, "an operation");
    step.target = in.small(p.operands, slots - 1, "an instruction's target");
    step.a = in.small(-1, slots - 1, "an instruction's a");
    step.b = in.small(-1, slots - 1, "an instruction's b");
    step.c = in.small(-1, slots - 1, "an instruction's c");
    for (const int slot : {step.a, step.b, step.c}) {
      if (slot >= 0 && slot < first_slot) throw ValueError("code: an operand where none belongs");
    }
    step.scalar = in.small(0, p.scalars - 1, "an instruction's scalar");
    step.piece = in.small(-1, stage.pieces - 1, "an instruction's piece");
    if ((step.operation == linear) != (step.piece >= 0)) throw ValueError("code: a piece where none belongs");
    if (step.piece >= 0) step.piece = static_cast<std::int16_t>(step.piece + stage.first_piece);
    if (step.operation >= divide && step.a < 0) throw ValueError("code: a function without its argument");
    if (step.operation == divide && step.b < 0) throw ValueError("code: a quotient without its divisor");
  }
}

}  // namespace

std::unique_ptr<Program> parse(const std::int64_t* code, std::size_t code_size, const double* numbers,
                               std::size_t numbers_size) {
  auto program = std::make_unique<Program>();
  Program& p = *program;
  Reader in(code, code_size, numbers, numbers_size);
  in.next(version, version, "the version");
  p.components = in.small(1, 16, "the number of components");
  p.gradients = in.small(0, Program::most_gradients, "the number of gradients");
  const auto used = [](std::int16_t& most, std::int16_t index) {
    most = std::max<std::int16_t>(most, static_cast<std::int16_t>(index + 1));
  };
  const auto read_operand = [&](Operand& operand) {
    operand.source = static_cast<Source>(in.next(0, 2, "an operand's source"));
    operand.index = in.small(0, 63, "an operand's index");
    used(operand.source == Source::input   ? p.inputs_used
         : operand.source == Source::param ? p.params_used
                                           : p.cotangents_used,
         operand.index);
  };
  for (int i = 0; i < p.gradients; ++i) {
    read_operand(p.gradient[i]);
    if (p.gradient[i].source == Source::cotangent) throw ValueError("code: a cotangent has no gradient");
  }
  for (Axis& axis : p.axes) {
    axis.nodes = in.next(1, std::int64_t{1} << 40, "an axis's nodes");
    axis.periodic = in.small(0, 1, "an axis's periodicity");
    axis.masked = in.small(0, 1, "an axis's mask");
  }
  read_tables(in, p);
  p.scalars = in.small(0, Program::most_scalars, "the number of scalars");
  for (int i = 0; i < p.scalars; ++i) {
    p.scalar[i].param = in.small(-1, 63, "a scalar's parameter");
    p.scalar[i].number = in.number();
    if (p.scalar[i].param >= 0) used(p.params_used, p.scalar[i].param);
  }
  p.operands = in.small(0, Program::most_operands, "the number of operands");
  for (int i = 0; i < p.operands; ++i) read_operand(p.operand[i]);
  p.sums = in.small(0, Program::most_sums, "the number of sums");
  for (int i = 0; i < p.sums; ++i) {
    p.sum[i].channel = in.small(0, 63, "a sum's channel");
    p.sum[i].squared = in.small(0, 1, "whether a sum is of squares");
  }
  read_stage(in, p, p.point, 64, 0);
  for (int i = 0; i < p.terms; ++i) used(p.inputs_used, p.term[i].input);
  read_stage(in, p, p.gather, p.point.outputs, p.operands);
  for (int i = 0; i < p.sums; ++i) {
    if (p.sum[i].channel >= p.point.outputs) throw ValueError("code: a sum of a channel that is not there");
  }
  // Every output is written: what is allocated empty is never returned so.
  for (const Stage* stage : {&p.point, &p.gather}) {
    for (int o = 0; o < stage->outputs; ++o) {
      bool written = false;
      for (int n = 0; n < stage->instructions; ++n) {
        written |= p.instruction[stage->first_instruction + n].target == p.operands + o;
      }
      if (!written) throw ValueError("code: an output that nothing writes");
    }
  }
  in.finish();
  return program;
}

}  // namespace rubriscope::ops::stencil
