// Residuals on grids and their gradients: the CPU kernels.
#pragma once

#include <cstdint>
#include <memory>

#include "rubriscope/ops/parallel.h"
#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::ops::stencil {

/// What a call reads: contiguous tensors of (batch, *grid).
template <class T>
struct Given {
  std::int64_t batch;
  const T* const* inputs;
  const T* const* params;                  ///< A field, or a single number.
  const std::int64_t* param_batch_stride;  ///< 0 for a field that all of the batch share.
  const T* const* cotangents;              ///< One per component, or null where the program needs none.
};

/// A program that runs more than once: what a call finds out about its taps is kept for the next one. Calls
/// may run at the same time.
class Prepared {
 public:
  explicit Prepared(std::shared_ptr<const Program> program);
  ~Prepared();
  Prepared(const Prepared&) = delete;
  Prepared& operator=(const Prepared&) = delete;

  const std::shared_ptr<const Program>& program() const { return program_; }

  /// The first stage's outputs at each point; 0 at masked points.
  template <class T>
  void residual(const Parallel& parallel, const Given<T>& given, T* const* outputs) const;

  /// Both stages in one sweep over tiles that stay in cache: outputs of the second stage times `scale`, and
  /// the first stage's sums in float64, added up in an order that does not depend on the threads.
  template <class T>
  void sweep(const Parallel& parallel, const Given<T>& given, double scale, T* const* gradients,
             double* sums) const;

 private:
  struct Kept;
  std::shared_ptr<const Program> program_;
  std::unique_ptr<Kept> kept_;
};

}  // namespace rubriscope::ops::stencil
