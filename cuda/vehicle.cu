// The single-track model, one thread a sample; shared parameters' gradients by a tree within each block, the
// blocks' added in order.
#include "vehicle.h"

namespace {

using namespace rubriscope::ops;

constexpr int kThreads = 128;
constexpr int kSums = kVehicleParameters + 1;

template <class T>
__global__ void forward_kernel(VehicleCall<T> call, std::int64_t count, T* out) {
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  T found[kVehicleStates];
  vehicle_sample(call, i, found);
  for (int s = 0; s < kVehicleStates; ++s) out[i * kVehicleStates + s] = found[s];
}

template <class T>
__global__ void backward_kernel(VehicleCall<T> call, std::int64_t count, const T* out_bar, T* state_bar,
                                T* control_bar, T* next_bar, T* dt_bar, T* parameters_bar, double* partial) {
  __shared__ double shared[kThreads];
  const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
  T p_bar[kVehicleParameters] = {};
  T dt = T(0);
  if (i < count) {
    dt = vehicle_sample_adjoint(call, i, out_bar + i * kVehicleStates, state_bar + i * kVehicleStates,
                                control_bar + i * kVehicleControls,
                                next_bar == nullptr ? nullptr : next_bar + i * kVehicleStates, p_bar);
    if (parameters_bar != nullptr) {
      for (int k = 0; k < kVehicleParameters; ++k) parameters_bar[i * kVehicleParameters + k] = p_bar[k];
    }
    if (dt_bar != nullptr) dt_bar[i] = dt;
  }
  for (int k = 0; k < kSums; ++k) {
    shared[threadIdx.x] = static_cast<double>(k < kVehicleParameters ? p_bar[k] : dt);
    __syncthreads();
    for (int half = kThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x == 0) partial[std::int64_t(blockIdx.x) * kSums + k] = shared[0];
    __syncthreads();
  }
}

__global__ void sum_kernel(std::int64_t blocks, const double* partial, double* sums) {
  const int k = threadIdx.x;
  if (k >= kSums) return;
  double sum = 0;
  for (std::int64_t block = 0; block < blocks; ++block) sum += partial[block * kSums + k];
  sums[k] = sum;
}

template <class T>
cudaError_t forward(const VehicleCall<T>& call, std::int64_t count, T* out, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  forward_kernel<T>
      <<<static_cast<unsigned>(rubriscope_vehicle_blocks(count)), kThreads, 0, stream>>>(call, count, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t backward(const VehicleCall<T>& call, std::int64_t count, const T* out_bar, T* state_bar,
                     T* control_bar, T* next_bar, T* dt_bar, T* parameters_bar, double* partial, double* sums,
                     cudaStream_t stream) {
  const std::int64_t blocks = rubriscope_vehicle_blocks(count);
  if (count > 0) {
    backward_kernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        call, count, out_bar, state_bar, control_bar, next_bar, dt_bar, parameters_bar, partial);
  }
  sum_kernel<<<1, 32, 0, stream>>>(blocks, partial, sums);
  return cudaGetLastError();
}

static_assert(kSums <= 32, "sum_kernel has one thread a sum");

}  // namespace

extern "C" {

std::int64_t rubriscope_vehicle_blocks(std::int64_t count) { return (count + kThreads - 1) / kThreads; }

cudaError_t rubriscope_vehicle_forward_float(const VehicleCall<float>* call, std::int64_t count, float* out,
                                             cudaStream_t stream) {
  return forward(*call, count, out, stream);
}

cudaError_t rubriscope_vehicle_forward_double(const VehicleCall<double>* call, std::int64_t count,
                                              double* out, cudaStream_t stream) {
  return forward(*call, count, out, stream);
}

cudaError_t rubriscope_vehicle_backward_float(const VehicleCall<float>* call, std::int64_t count,
                                              const float* out_bar, float* state_bar, float* control_bar,
                                              float* next_bar, float* dt_bar, float* parameters_bar,
                                              double* partial, double* sums, cudaStream_t stream) {
  return backward(*call, count, out_bar, state_bar, control_bar, next_bar, dt_bar, parameters_bar, partial,
                  sums, stream);
}

cudaError_t rubriscope_vehicle_backward_double(const VehicleCall<double>* call, std::int64_t count,
                                               const double* out_bar, double* state_bar, double* control_bar,
                                               double* next_bar, double* dt_bar, double* parameters_bar,
                                               double* partial, double* sums, cudaStream_t stream) {
  return backward(*call, count, out_bar, state_bar, control_bar, next_bar, dt_bar, parameters_bar, partial,
                  sums, stream);
}
}
