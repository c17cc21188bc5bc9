// Numerics shared by the CPU kernels and the .cu files: C++17, no allocation, no exceptions, only <cmath> and
// plain types, so that nvcc compiles the very code the CPU tests run.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define RUBRISCOPE_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define RUBRISCOPE_HD inline __attribute__((always_inline))
#else
#define RUBRISCOPE_HD inline
#endif

/// Code that a whole warp runs in step: only on the device under nvcc, since its votes are there; elsewhere
/// on a stand-in warp (tests/cpp/ops).
#if defined(__CUDACC__)
#define RUBRISCOPE_WARP __device__ __forceinline__
#else
#define RUBRISCOPE_WARP inline
#endif
