// A stage on rows of a grid: finds, for each class of rows and columns, where the taps lie.
#pragma once

#include <cstdint>
#include <vector>

#include "rubriscope/ops/stencil/columns.h"
#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::ops::stencil {

/// How far a stage's fields are from one plane and one row to the next.
struct Strides {
  std::int64_t plane, row;  ///< Of inputs and operands.
  std::int64_t output_row;
};

/// Evaluates a stage on rows. One thread's: it keeps the taps of each class it has met.
template <class T>
class Rows {
 public:
  /// `wrap` where the inputs hold the grid itself, so that a periodic axis is left and entered again; what is
  /// outside of it otherwise lies beyond it in memory. Every tap's weight is multiplied by `scale`.
  Rows(const Program& program, const Stage& stage, const T* scalars, const Strides& strides, bool wrap,
       double scale);

  /// Whether outputs go past the caches: where more is read and written than they hold, and nobody waits for
  /// the outputs.
  void stream(bool streamed) { streamed_ = streamed; }

  /// Columns [begin, end) of `count` rows from (i, j) on. `inputs` and `memory` (operands, then outputs)
  /// point to where the first row's column 0 is or would be; of the inputs, elements from `first` to before
  /// `last` may be read there.
  void run(std::int64_t i, std::int64_t j, std::int64_t count, std::int64_t begin, std::int64_t end,
           std::int64_t first, std::int64_t last, const T* const* inputs, T* const* memory);

 private:
  // Nodes of an axis that have the same taps: each of the first and the last few, and those between.
  struct Classes {
    std::int64_t lead = 0, tail = 0, nodes = 1;

    std::int64_t count() const { return lead + 1 + tail; }
    std::int64_t of(std::int64_t node) const {
      return node < lead ? node : node >= nodes - tail ? lead + 1 + (node - (nodes - tail)) : lead;
    }
    std::int64_t node(std::int64_t index) const {
      return index <= lead ? index : nodes - tail + (index - lead - 1);
    }
  };
  struct Offsets {
    std::int64_t a, b;
    std::int16_t input_a, input_b;
    T weight;
  };
  struct Offset {
    std::int16_t input;
    std::int64_t at;
  };
  struct Group {
    bool built = false;
    std::int64_t low = 0, high = 0;  ///< The taps' offsets lie between.
    std::vector<Taps> pieces;        ///< One for each step.
    std::vector<Offsets> taps;
    std::vector<Statement> statements;
    std::vector<Offset> ahead;
  };

  void decode();
  bool streams_from(std::int64_t column) const;
  void run_alike(std::int64_t plane, std::int64_t line, std::int64_t begin, std::int64_t end,
                 std::int64_t first, std::int64_t last, const T* const* inputs);
  void bind(const Group& group, const T* const* inputs);
  Group& group(std::int64_t first, std::int64_t second, std::int64_t third);
  void build(Group& group, std::int64_t i, std::int64_t j, std::int64_t k) const;

  const Program& program_;
  const Stage& stage_;
  const T* scalars_;
  Strides strides_;
  bool wrap_;
  bool streamed_ = false;
  double scale_;
  Classes classes_[3];
  std::vector<Group> groups_;
  std::vector<Statement> statements_;
  std::vector<Step<T>> steps_;
  std::vector<Tap<T>> taps_;
  std::vector<T> temporaries_;
  std::vector<Slot<T>> slots_;
  std::size_t input_count_ = 0;
  std::vector<const T*> inputs_;  ///< At the row that is next.
  std::vector<const T*> ahead_;
  Columns<T> columns_{};
};

extern template class Rows<float>;
extern template class Rows<double>;

}  // namespace rubriscope::ops::stencil
