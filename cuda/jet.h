// The CUDA side of mlp_jet, behind a C ABI. Launchers return cudaSuccess or the launch's error.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace rubriscope::cuda {

constexpr int kMostDirections = 64;
constexpr int kMostInputs = 64;  ///< with a drift

/// What to derive, small enough to be a kernel argument.
struct JetLayout {
  std::int64_t channels;
  int directions;
  int orders[kMostDirections];
  int first[kMostDirections];
  double collapse[kMostDirections];
  double drift[kMostInputs];
  int collapsed;
  int activation;  ///< rubriscope::ops::Activation
};

}  // namespace rubriscope::cuda

extern "C" {

/// Rows (points × channels, inputs) of the input's jets.
cudaError_t rubriscope_jet_input(int is_double, const rubriscope::cuda::JetLayout* layout, const void* x,
                                 const void* directions, std::int64_t points, std::int64_t inputs, void* rows,
                                 cudaStream_t stream);

/// c (m × n, leading dimension n) = op(a) op(b) with a m × k (a_row, a_column its strides) and b k × n. With
/// slices > 1 the depth is cut into equal slices and slice s writes c + s m n: deterministic partial sums.
cudaError_t rubriscope_jet_matmul(int is_double, std::int64_t m, std::int64_t n, std::int64_t k,
                                  const void* a, std::int64_t a_row, std::int64_t a_column, const void* b,
                                  std::int64_t b_row, std::int64_t b_column, void* c, std::int64_t slices,
                                  cudaStream_t stream);

/// Adds the bias to the value rows of z; `a` gets the activation's jets, or is null (last layer).
cudaError_t rubriscope_jet_activate(int is_double, const rubriscope::cuda::JetLayout* layout,
                                    std::int64_t points, std::int64_t width, const void* bias, void* z,
                                    void* a, cudaStream_t stream);

/// Cotangents of activations to those of pre-activations, in place.
cudaError_t rubriscope_jet_adjoint(int is_double, const rubriscope::cuda::JetLayout* layout,
                                   std::int64_t points, std::int64_t width, const void* z, void* bar,
                                   cudaStream_t stream);

/// Rows (points × channels, outputs) to or from the part of a (channels, total, outputs) tensor that begins
/// at point `begin`.
cudaError_t rubriscope_jet_rows(int is_double, std::int64_t channels, std::int64_t points,
                                std::int64_t outputs, std::int64_t begin, std::int64_t total, void* tensor,
                                void* rows, int to_rows, cudaStream_t stream);

/// sums (float64, count) += the slices of `partial` (slices × count), in order.
cudaError_t rubriscope_jet_add_slices(int is_double, std::int64_t count, std::int64_t slices,
                                      const void* partial, double* sums, cudaStream_t stream);

/// partial (slices × width): column sums of the value rows of bar.
cudaError_t rubriscope_jet_bias_slices(int is_double, std::int64_t channels, std::int64_t points,
                                       std::int64_t width, std::int64_t slices, const void* bar,
                                       void* partial, cudaStream_t stream);
}
