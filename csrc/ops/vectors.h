// The vectors of the instruction set that a *.simd.cpp file is compiled for.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rubriscope::ops::RUBRISCOPE_ISA {

namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

using Floats = float __attribute__((vector_size(vector_bytes)));
using Doubles = double __attribute__((vector_size(vector_bytes)));

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
  using type = Floats;
};
template <>
struct VectorOf<double> {
  using type = Doubles;
};

template <class V, class T>
inline __attribute__((always_inline)) V load(const T* at) {
  V value;
  __builtin_memcpy(&value, at, sizeof(V));
  return value;
}

template <class V, class T>
inline __attribute__((always_inline)) void store(T* at, V value) {
  __builtin_memcpy(at, &value, sizeof(V));
}

}  // namespace

}  // namespace rubriscope::ops::RUBRISCOPE_ISA
