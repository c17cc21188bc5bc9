// Residuals on grids: the CUDA kernels' launchers.
#pragma once

#include <cuda_runtime_api.h>

#include "rubriscope/ops/stencil/program.h"

namespace rubriscope::cuda {

/// What a launch reads and writes: contiguous arrays of (batch, *grid) of one dtype.
struct StencilArrays {
  static constexpr int most = ops::stencil::Program::most_inputs;
  const void* inputs[most];
  const void* params[most];
  const void* cotangents[16];
  std::int64_t param_batch_stride[most];
  void* outputs[most];
  const void* scalars;
  std::int64_t batch, points;
};

}  // namespace rubriscope::cuda

extern "C" {

/// Fills `scalars` (Program::most_scalars elements) from the parameters in `arrays`.
cudaError_t rubriscope_stencil_scalars(const rubriscope::ops::stencil::Program* program,
                                       const rubriscope::cuda::StencilArrays* arrays, void* scalars,
                                       int is_double, cudaStream_t stream);

/// Runs the first stage (gather = 0) or the second (gather = 1, the inputs being the first one's outputs) at
/// every point and multiplies the outputs by `scale`. The first one's are 0 at masked points.
cudaError_t rubriscope_stencil_stage(const rubriscope::ops::stencil::Program* program,
                                     const rubriscope::cuda::StencilArrays* arrays, int gather, double scale,
                                     int is_double, cudaStream_t stream);

/// The blocks that a sum is made of: `partial` has as many float64.
int rubriscope_stencil_sum_blocks();

/// sum[0] = the sum of the values or of their squares, in a fixed order.
cudaError_t rubriscope_stencil_sum(const void* values, std::int64_t count, int squared, double* partial,
                                   double* sum, int is_double, cudaStream_t stream);

/// to[0] = scale times the sum of the first `count` sums.
cudaError_t rubriscope_stencil_total(const double* sums, int count, double scale, void* to, int is_double,
                                     cudaStream_t stream);

/// to = from · by[0].
cudaError_t rubriscope_stencil_scaled(const void* from, const void* by, void* to, std::int64_t count,
                                      int is_double, cudaStream_t stream);
}
