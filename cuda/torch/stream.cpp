#include "stream.h"

#include <dlfcn.h>

#include <stdexcept>
#include <string>

namespace rubriscope::cuda {

namespace {

// In libtorch_cuda.so, which a CPU build of torch lacks: the plugin is built without it and finds it loaded.
using GetStream = AOTITorchError (*)(std::int32_t, void**);

GetStream stream_getter() {
  static const auto getter = [] {
    void* symbol = dlsym(RTLD_DEFAULT, "aoti_torch_get_current_cuda_stream");
    if (symbol == nullptr) {
      if (void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY)) {
        symbol = dlsym(library, "aoti_torch_get_current_cuda_stream");
      }
    }
    if (symbol == nullptr) {
      throw std::runtime_error("rubriscope's CUDA operators were loaded into a torch without CUDA");
    }
    return reinterpret_cast<GetStream>(symbol);
  }();
  return getter;
}

}  // namespace

void check(cudaError_t result, const char* what) {
  if (result != cudaSuccess) {
    throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(result));
  }
}

StreamOf::StreamOf(const torch::stable::Tensor& tensor) : previous_(0), stream_(nullptr) {
  const GetStream get = stream_getter();
  const int device = static_cast<int>(tensor.get_device_index());
  check(cudaGetDevice(&previous_), "cudaGetDevice");
  if (device != previous_) check(cudaSetDevice(device), "cudaSetDevice");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(get(device, &stream));
  stream_ = static_cast<cudaStream_t>(stream);
}

StreamOf::~StreamOf() { cudaSetDevice(previous_); }

}  // namespace rubriscope::cuda
