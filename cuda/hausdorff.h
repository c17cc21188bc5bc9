// Launchers of the Hausdorff kernels. All memory is the caller's, on the device; nothing synchronises.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

extern "C" {

/// -1: max; otherwise a rubriscope::ops::PointReduction.
struct RubriscopeHausdorff {
  const void* x;                  ///< (batch, n, dimensions), float or double
  const void* y;                  ///< (batch, m, dimensions)
  const std::int64_t* x_lengths;  ///< (batch,) or null; clamped to 0 … n
  const std::int64_t* y_lengths;
  std::int64_t batch, n, m, dimensions;
  int is_double;
  int symmetric;
  int reduction;
  double percentile;
  void* scratch;          ///< of rubriscope_hausdorff_scratch_bytes, on a boundary of 256 bytes
  std::int64_t* near_x;   ///< (batch, n), out, or null; -1 without a neighbour; not for max
  std::int64_t* near_y;   ///< (batch, m)
  void* value;            ///< (batch,), out
  std::int64_t* index_x;  ///< (batch,), out, for max
  std::int64_t* index_y;
  double* weight_x;  ///< (batch, n), out, or null; not for max
  double* weight_y;
};

/// How much scratch a call takes; looks at sizes and options only.
cudaError_t rubriscope_hausdorff_scratch_bytes(const RubriscopeHausdorff* arguments, std::size_t* bytes);

cudaError_t rubriscope_hausdorff(const RubriscopeHausdorff* arguments, cudaStream_t stream);

struct RubriscopeHausdorffBackward {
  const void* a;  ///< (batch, n, dimensions): the set whose gradient is wanted
  const void* b;  ///< (batch, m, dimensions)
  std::int64_t batch, n, m, dimensions;
  int is_double;
  int squared;
  const void* gradient;  ///< (batch,)
  const std::int64_t* near_a;
  const std::int64_t* near_b;
  const double* weight_a;
  const double* weight_b;
  std::uint64_t* keys;    ///< scratch: 2 * batch * m
  std::uint32_t* values;  ///< scratch: 2 * batch * m
  void* sorting;          ///< scratch of sorting_bytes
  std::size_t sorting_bytes;
  double* sums;  ///< scratch: (batch, n, dimensions)
  void* out;     ///< (batch, n, dimensions)
};

/// How much scratch sorting so many pairs takes.
cudaError_t rubriscope_hausdorff_sorting_bytes(std::int64_t count, std::size_t* bytes);

cudaError_t rubriscope_hausdorff_backward(const RubriscopeHausdorffBackward* arguments, cudaStream_t stream);
}
