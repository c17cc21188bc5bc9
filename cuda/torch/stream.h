// The CUDA stream torch computes on, and how launches report failure.
#pragma once

#include <cuda_runtime_api.h>

#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::cuda {

/// Makes a tensor's device current and gives the stream torch uses on it; restores the device at the end.
class StreamOf {
 public:
  explicit StreamOf(const torch::stable::Tensor& tensor);
  ~StreamOf();
  StreamOf(const StreamOf&) = delete;
  StreamOf& operator=(const StreamOf&) = delete;

  operator cudaStream_t() const { return stream_; }  // NOLINT(google-explicit-constructor)

 private:
  int previous_;
  cudaStream_t stream_;
};

/// Throws with CUDA's words when a launcher of kernels.h did not return cudaSuccess.
void check(cudaError_t result, const char* what);

}  // namespace rubriscope::cuda
