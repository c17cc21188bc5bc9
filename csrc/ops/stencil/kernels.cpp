#include "rubriscope/ops/stencil/kernels.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "rubriscope/ops/stencil/rows.h"
#include "rubriscope/ops/stencil/waiting.h"

namespace rubriscope::ops::stencil {

namespace {

constexpr std::int64_t piece_points = 32768;  // about as many points a thread takes at once
constexpr std::int64_t band_rows = 8;
constexpr std::int64_t window_bytes = 256 << 10;
// Beyond this, outputs go past the caches. It is less than most last caches are, for others use those too:
// one of 32 MB, gone around, made 36 MB a little slower on a Xeon and 16 MB much faster on an EPYC.
// Systems do not say its size reliably in virtual machines.
constexpr std::int64_t cache_bytes = 12 << 20;

template <class T>
std::vector<T> scalars_of(const Program& program, const Given<T>& given) {
  std::vector<T> found(static_cast<std::size_t>(program.scalars));
  for (int s = 0; s < program.scalars; ++s) {
    const Scalar& scalar = program.scalar[s];
    const double param = scalar.param < 0 ? 1.0 : static_cast<double>(*given.params[scalar.param]);
    found[static_cast<std::size_t>(s)] = static_cast<T>(scalar.number * param);
  }
  return found;
}

// The first stage on the rows of the grid itself.
template <class T>
class PointRows {
 public:
  /// Outputs lie `output_row` apart from row to row.
  PointRows(const Program& program, const T* scalars, std::int64_t output_row)
      : program_(program),
        points_(program.axes[0].nodes * program.axes[1].nodes * program.axes[2].nodes),
        output_row_(output_row),
        rows_(program, program.point, scalars,
              Strides{program.axes[1].nodes * program.axes[2].nodes, program.axes[2].nodes, output_row}, true,
              1.0),
        inputs_(64),
        memory_(static_cast<std::size_t>(program.operands + program.point.outputs)) {}

  /// What the next rows are of. `streamed`: outputs go past the caches.
  void start(const Given<T>& given, bool streamed) {
    given_ = &given;
    rows_.stream(streamed);
  }

  // Columns [begin, end) of rows [low, high) of a plane, which may reach over a periodic axis's ends;
  // `outputs` point to where column 0 of row 0 goes.
  void run(std::int64_t b, std::int64_t i, std::int64_t low, std::int64_t high, std::int64_t begin,
           std::int64_t end, T* const* outputs) {
    const std::int64_t nodes = program_.axes[1].nodes;
    while (low < high) {
      const std::int64_t turn = low < 0 ? -nodes : low >= nodes ? nodes : 0;
      const std::int64_t stop = std::min(high, nodes + turn);
      for (int o = 0; o < program_.point.outputs; ++o) to_[o] = outputs[o] + turn * output_row_;
      columns(b, i, low - turn, stop - turn, begin, end);
      low = stop;
    }
  }

 private:
  // The same for rows of the grid.
  void columns(std::int64_t b, std::int64_t i, std::int64_t low, std::int64_t high, std::int64_t begin,
               std::int64_t end) {
    const std::int64_t nodes = program_.axes[2].nodes;
    if (begin < 0) {
      inside(b, i, low, high, std::max(begin + nodes, std::int64_t{0}), nodes, -nodes);
      begin = 0;
    }
    if (end > nodes) {
      inside(b, i, low, high, 0, end - nodes, nodes);
      end = nodes;
    }
    inside(b, i, low, high, begin, end, 0);
  }

  // The same for columns of the grid, whose outputs are `shift` further on.
  void inside(std::int64_t b, std::int64_t i, std::int64_t low, std::int64_t high, std::int64_t begin,
              std::int64_t end, std::int64_t shift) {
    const Axis* const axes = program_.axes;
    if (begin >= end) return;
    if (axes[0].masked && (i == 0 || i == axes[0].nodes - 1)) {
      zero(low, high, begin + shift, end + shift);
      return;
    }
    if (axes[1].masked && low == 0) {
      zero(0, 1, begin + shift, end + shift);
      ++low;
    }
    if (axes[1].masked && high == axes[1].nodes) {
      --high;
      zero(high, high + 1, begin + shift, end + shift);
    }
    if (low >= high) return;
    const std::int64_t row = (i * axes[1].nodes + low) * axes[2].nodes;
    const std::int64_t at = b * points_ + row;
    for (int n = 0; n < program_.inputs_used; ++n)
      inputs_[static_cast<std::size_t>(n)] = given_->inputs[n] + at;
    for (int o = 0; o < program_.operands; ++o) {
      const Operand& operand = program_.operand[o];
      const T* from = nullptr;
      if (operand.source == Source::input) {
        from = given_->inputs[operand.index] + at;
      } else if (operand.source == Source::param) {
        from = given_->params[operand.index] + b * given_->param_batch_stride[operand.index] + row;
      } else {
        from = given_->cotangents[operand.index] + at;
      }
      // Slots are written only where they are outputs: the program was checked for that.
      memory_[static_cast<std::size_t>(o)] = const_cast<T*>(from);
    }
    for (int o = 0; o < program_.point.outputs; ++o) {
      memory_[static_cast<std::size_t>(program_.operands + o)] = to_[o] + low * output_row_ + shift;
    }
    rows_.run(i, low, high - low, begin, end, -at, given_->batch * points_ - at, inputs_.data(),
              memory_.data());
    if (axes[2].masked && begin == 0) zero(low, high, shift, shift + 1);
    if (axes[2].masked && end == axes[2].nodes) zero(low, high, end - 1 + shift, end + shift);
  }

  void zero(std::int64_t low, std::int64_t high, std::int64_t begin, std::int64_t end) const {
    for (int o = 0; o < program_.point.outputs; ++o) {
      for (std::int64_t j = low; j < high; ++j) {
        std::fill(to_[o] + j * output_row_ + begin, to_[o] + j * output_row_ + end, T(0));
      }
    }
  }

  const Program& program_;
  const Given<T>* given_ = nullptr;
  std::int64_t points_, output_row_;
  T* to_[Program::most_outputs];
  Rows<T> rows_;
  std::vector<const T*> inputs_;
  std::vector<T*> memory_;
};

// How a sweep cuts the grid: boxes, each with a halo wide enough for the second stage's taps.
struct Tiling {
  std::int64_t halo[3] = {0, 0, 0};
  std::int64_t size[3], count[3];

  explicit Tiling(const Program& program) {
    for (int p = program.gather.first_piece; p < program.gather.first_piece + program.gather.pieces; ++p) {
      const Piece& piece = program.piece[p];
      for (int t = piece.first; t < piece.first + piece.count; ++t) {
        for (int axis = 0; axis < 3; ++axis) {
          const Table& table = program.table[program.term[t].table[axis]];
          const Row& first = program.row[table.first];
          const Row& last = program.row[table.first + table.lead + table.tail];
          for (int tap = first.first; tap < last.first + last.count; ++tap) {
            halo[axis] = std::max<std::int64_t>(halo[axis], std::abs(program.tap_offset[tap]));
          }
        }
      }
    }
    const Axis* const axes = program.axes;
    size[2] = axes[2].nodes <= 2048 ? axes[2].nodes : 1024;
    // Without planes to slide over, a box is higher: the rows around it are computed twice.
    const std::int64_t rows = axes[0].nodes > 1 ? 16 : 64;
    size[1] = axes[1].nodes <= rows * 3 / 2 ? axes[1].nodes : rows;
    size[0] = std::min(axes[0].nodes, std::max<std::int64_t>(16, 2 * piece_points / (size[1] * size[2])));
    for (int axis = 0; axis < 3; ++axis) count[axis] = (axes[axis].nodes + size[axis] - 1) / size[axis];
  }
};

template <class T>
class Sweep {
 public:
  Sweep(const Program& program, const Tiling& tiling, const T* scalars, double scale)
      : program_(program),
        tiling_(tiling),
        points_(program.axes[0].nodes * program.axes[1].nodes * program.axes[2].nodes),
        pad_((tiling.halo[2] + 15) / 16 * 16),
        columns_((pad_ + tiling.size[2] + tiling.halo[2] + 15) / 16 * 16),
        plane_((tiling.size[1] + 2 * tiling.halo[1]) * columns_),
        point_(program, scalars, columns_),
        gather_(program, program.gather, scalars, Strides{plane_, columns_, program.axes[2].nodes}, false,
                scale),
        outputs_(static_cast<std::size_t>(program.point.outputs) + 1),
        channels_(static_cast<std::size_t>(program.point.outputs) + 1),
        memory_(static_cast<std::size_t>(program.operands + program.gather.outputs)) {
    const std::int64_t all = tiling.size[0] + 2 * tiling.halo[0];
    const std::int64_t bytes =
        plane_ * static_cast<std::int64_t>(sizeof(T)) * std::max<int>(program.point.outputs, 1);
    planes_ = std::min(all, std::max(3 * tiling.halo[0] + 2, window_bytes / bytes));
    window_.resize(static_cast<std::size_t>(planes_ * plane_ * program.point.outputs) + 16);
    base_ =
        reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(window_.data()) + 63) & ~std::uintptr_t{63});
  }

  /// What the next boxes are of. `streamed`: gradients go past the caches.
  void start(const Given<T>& given, bool streamed) {
    point_.start(given, false);
    gather_.stream(streamed);
  }

  // One box. `row_sums` has one entry per (owned row, sum) of it.
  void run(std::int64_t b, const std::int64_t (&box)[3], T* const* gradients, double* partial) {
    for (int axis = 0; axis < 3; ++axis) {
      const Axis& of = program_.axes[axis];
      begin_[axis] = box[axis] * tiling_.size[axis];
      end_[axis] = std::min(begin_[axis] + tiling_.size[axis], of.nodes);
      low_[axis] = begin_[axis] - tiling_.halo[axis];
      high_[axis] = end_[axis] + tiling_.halo[axis];
      if (!of.periodic) {
        low_[axis] = std::max<std::int64_t>(low_[axis], 0);
        high_[axis] = std::min(high_[axis], of.nodes);
      }
    }
    origin_ = low_[0];
    if (high_[0] - low_[0] == 1) {
      run_plane(b, gradients, partial);
      return;
    }
    std::int64_t next = begin_[0];
    for (std::int64_t i = low_[0]; i < high_[0]; ++i) {
      make_room(i);
      produce(b, i, low_[1], high_[1], partial);
      // A plane is complete once all planes its taps reach are there.
      while (next < end_[0] && std::min(next + tiling_.halo[0], high_[0] - 1) <= i)
        consume(b, next++, begin_[1], end_[1], gradients);
    }
  }

 private:
  // A box of one plane: the second stage follows the first by bands of rows, which the first cache still
  // holds.
  void run_plane(std::int64_t b, T* const* gradients, double* partial) {
    std::int64_t next = begin_[1];
    for (std::int64_t j = low_[1]; j < high_[1]; j += band_rows) {
      const std::int64_t stop = std::min(j + band_rows, high_[1]);
      produce(b, begin_[0], j, stop, partial);
      const std::int64_t complete = stop == high_[1] ? end_[1] : std::min(stop - tiling_.halo[1], end_[1]);
      if (next >= complete) continue;
      consume(b, begin_[0], next, complete, gradients);
      next = complete;
    }
  }

  T* at(int channel, std::int64_t i, std::int64_t j) {
    return base_ + (channel * planes_ + (i - origin_)) * plane_ + (j - low_[1]) * columns_ + pad_ - begin_[2];
  }

  // The window slides: its last planes, which are still needed, move to the front.
  void make_room(std::int64_t i) {
    if (i - origin_ < planes_) return;
    const std::int64_t keep = 2 * tiling_.halo[0];
    for (int c = 0; c < program_.point.outputs; ++c) {
      T* const base = base_ + c * planes_ * plane_;
      std::memmove(base, base + (planes_ - keep) * plane_,
                   static_cast<std::size_t>(keep * plane_) * sizeof(T));
    }
    origin_ = i - keep;
  }

  // Rows [low, high) of a plane of the window, and the sums of those that are this box's own.
  void produce(std::int64_t b, std::int64_t i, std::int64_t low, std::int64_t high, double* partial) {
    const std::int64_t nodes = program_.axes[0].nodes;
    const std::int64_t plane = i < 0 ? i + nodes : i >= nodes ? i - nodes : i;
    for (int c = 0; c < program_.point.outputs; ++c) outputs_[static_cast<std::size_t>(c)] = at(c, i, 0);
    point_.run(b, plane, low, high, low_[2], high_[2], outputs_.data());
    if (i < begin_[0] || i >= end_[0]) return;
    for (std::int64_t j = std::max(low, begin_[1]); j < std::min(high, end_[1]); ++j) {
      double* const row = partial + ((i - begin_[0]) * tiling_.size[1] + (j - begin_[1])) * program_.sums;
      for (int s = 0; s < program_.sums; ++s) {
        const Sum& sum = program_.sum[s];
        row[s] = RUBRISCOPE_CALL_ISA(sum_row, at(sum.channel, i, j) + begin_[2], end_[2] - begin_[2],
                                     sum.squared != 0);
      }
    }
  }

  // The gradients of rows [j, stop) of a plane.
  void consume(std::int64_t b, std::int64_t i, std::int64_t j, std::int64_t stop, T* const* gradients) {
    if (program_.gather.outputs == 0) return;
    for (int c = 0; c < program_.point.outputs; ++c) channels_[static_cast<std::size_t>(c)] = at(c, i, j);
    const std::int64_t row = b * points_ + (i * program_.axes[1].nodes + j) * program_.axes[2].nodes;
    for (int o = 0; o < program_.gather.outputs; ++o) {
      memory_[static_cast<std::size_t>(program_.operands + o)] = gradients[o] + row;
    }
    const std::int64_t in_row = begin_[2] - pad_;
    const std::int64_t place = ((i - origin_) * plane_ + (j - low_[1]) * columns_) - in_row;
    gather_.run(i, j, stop - j, begin_[2], end_[2], -place, planes_ * plane_ - place, channels_.data(),
                memory_.data());
  }

  const Program& program_;
  const Tiling& tiling_;
  std::int64_t points_;
  std::int64_t pad_;  ///< Left of a row: its own columns begin on a cache line.
  std::int64_t columns_, plane_, planes_;
  PointRows<T> point_;
  Rows<T> gather_;
  std::vector<T> window_;
  T* base_;
  std::vector<T*> outputs_;
  std::vector<const T*> channels_;
  std::vector<T*> memory_;
  std::int64_t begin_[3], end_[3], low_[3], high_[3], origin_ = 0;
};

// A fixed tree: halves of the range.
double tree(const double* values, std::int64_t count, std::int64_t stride) {
  if (count <= 8) {
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i) total += values[i * stride];
    return total;
  }
  const std::int64_t half = count / 2;
  return tree(values, half, stride) + tree(values + half * stride, count - half, stride);
}

template <class T>
struct WaitingOf {
  Waiting<PointRows<T>, T> residual;
  Waiting<Sweep<T>, T> sweep;
};

}  // namespace

struct Prepared::Kept {
  explicit Kept(const Program& program) : tiling(program) {}

  Tiling tiling;
  std::tuple<WaitingOf<float>, WaitingOf<double>> waiting;
};

Prepared::Prepared(std::shared_ptr<const Program> program)
    : program_(std::move(program)), kept_(std::make_unique<Kept>(*program_)) {}

Prepared::~Prepared() = default;

template <class T>
void Prepared::residual(const Parallel& parallel, const Given<T>& given, T* const* outputs) const {
  const Program& program = *program_;
  const Axis* const axes = program.axes;
  const std::vector<T> scalars = scalars_of(program, given);
  const std::int64_t width = axes[2].nodes <= 2 * piece_points ? axes[2].nodes : piece_points;
  const std::int64_t parts = (axes[2].nodes + width - 1) / width;
  const std::int64_t rows = axes[0].nodes * axes[1].nodes;
  const std::int64_t bytes = given.batch * rows * axes[2].nodes * static_cast<std::int64_t>(sizeof(T)) *
                             (program.inputs_used + program.point.outputs);
  auto& waiting = std::get<WaitingOf<T>>(kept_->waiting).residual;
  std::vector<typename Waiting<PointRows<T>, T>::Kept> workers(static_cast<std::size_t>(parallel.threads()));
  for_pieces(parallel, given.batch * rows * parts, std::max<std::int64_t>(1, piece_points / width),
             [&](std::int64_t begin, std::int64_t end, int worker) {
               auto& mine = workers[static_cast<std::size_t>(worker)];
               if (mine.worker == nullptr) {
                 mine = waiting.take(scalars, 1.0, [&](const T* own) {
                   return std::make_unique<PointRows<T>>(program, own, axes[2].nodes);
                 });
                 mine.worker->start(given, bytes > cache_bytes);
               }
               T* plane_outputs[Program::most_outputs];
               while (begin < end) {
                 const std::int64_t part = begin % parts, row = begin / parts % rows,
                                    b = begin / parts / rows;
                 const std::int64_t i = row / axes[1].nodes, j = row % axes[1].nodes;
                 // Whole rows go on to the plane's end.
                 const std::int64_t count = parts > 1 ? 1 : std::min(end - begin, axes[1].nodes - j);
                 for (int o = 0; o < program.point.outputs; ++o) {
                   plane_outputs[o] = outputs[o] + (b * rows + i * axes[1].nodes) * axes[2].nodes;
                 }
                 mine.worker->run(b, i, j, j + count, part * width,
                                  std::min((part + 1) * width, axes[2].nodes), plane_outputs);
                 begin += count;
               }
             });
  waiting.give(workers, parallel.threads());
}

template <class T>
void Prepared::sweep(const Parallel& parallel, const Given<T>& given, double scale, T* const* gradients,
                     double* sums) const {
  const Program& program = *program_;
  const Tiling& tiling = kept_->tiling;
  const std::vector<T> scalars = scalars_of(program, given);
  const std::int64_t boxes = given.batch * tiling.count[0] * tiling.count[1] * tiling.count[2];
  const std::int64_t box_rows = tiling.size[0] * tiling.size[1];
  const std::int64_t bytes = given.batch * program.axes[0].nodes * program.axes[1].nodes *
                             program.axes[2].nodes * static_cast<std::int64_t>(sizeof(T)) *
                             (program.inputs_used + program.gather.outputs);
  std::vector<double> partial(static_cast<std::size_t>(boxes * box_rows * program.sums));
  auto& waiting = std::get<WaitingOf<T>>(kept_->waiting).sweep;
  std::vector<typename Waiting<Sweep<T>, T>::Kept> workers(static_cast<std::size_t>(parallel.threads()));
  const std::int64_t box_points = box_rows * tiling.size[2];
  for_pieces(parallel, boxes, std::max<std::int64_t>(1, piece_points / box_points),
             [&](std::int64_t begin, std::int64_t end, int worker) {
               auto& mine = workers[static_cast<std::size_t>(worker)];
               if (mine.worker == nullptr) {
                 mine = waiting.take(scalars, scale, [&](const T* own) {
                   return std::make_unique<Sweep<T>>(program, tiling, own, scale);
                 });
                 mine.worker->start(given, bytes > cache_bytes);
               }
               for (std::int64_t item = begin; item < end; ++item) {
                 std::int64_t box[3], rest = item;
                 for (int axis = 2; axis >= 0; --axis) {
                   box[axis] = rest % tiling.count[axis];
                   rest /= tiling.count[axis];
                 }
                 mine.worker->run(rest, box, gradients, partial.data() + item * box_rows * program.sums);
               }
             });
  waiting.give(workers, parallel.threads());
  for (int s = 0; s < program.sums; ++s) sums[s] = tree(partial.data() + s, boxes * box_rows, program.sums);
}

template void Prepared::residual(const Parallel&, const Given<float>&, float* const*) const;
template void Prepared::residual(const Parallel&, const Given<double>&, double* const*) const;
template void Prepared::sweep(const Parallel&, const Given<float>&, double, float* const*, double*) const;
template void Prepared::sweep(const Parallel&, const Given<double>&, double, double* const*, double*) const;

}  // namespace rubriscope::ops::stencil
