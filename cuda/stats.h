// Launchers of tensor_stats on CUDA.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

extern "C" {

/// How many pieces the elements are divided into; each takes rubriscope_stats_scratch doubles.
std::int64_t rubriscope_stats_pieces(std::int64_t count);
constexpr int kRubriscopeStatsScratch = 8;

/// type: 0 float32, 1 float64, 2 float16, 3 bfloat16. scratch: pieces × 8 doubles. moments: 4 doubles.
/// counts: 4 + 128 integers, zeroed here.
cudaError_t rubriscope_tensor_stats(const void* data, int type, std::int64_t count, double* scratch,
                                    double* moments, std::int64_t* counts, cudaStream_t stream);
}
