// Sixteen lanes of float or double for the *.simd.cpp files, in GCC's vector extension; instructions by name
// only where the extension has no word for them.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
// g++ 12 takes its own headers' undefined registers for a mistake (GCC bug 105593).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

#include "rubriscope/ops/hausdorff/tree_view.h"

namespace rubriscope::ops {
namespace RUBRISCOPE_ISA {
namespace {

template <class Real>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(64), aligned(64), may_alias));
  typedef std::int32_t Ints __attribute__((vector_size(64), aligned(64), may_alias));
};
template <>
struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(128), aligned(64), may_alias));
  typedef std::int64_t Ints __attribute__((vector_size(128), aligned(64), may_alias));
};
template <class Real>
using Vector = typename Lanes<Real>::Vector;
template <class Real>
using Ints = typename Lanes<Real>::Ints;

template <class Real>
inline Vector<Real> load(const Real* from) {
  return *reinterpret_cast<const Vector<Real>*>(from);
}

/// From memory on no particular boundary.
template <class Real>
inline Vector<Real> load_anywhere(const Real* from) {
  Vector<Real> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class V>
inline V minimum(V a, V b) {
  return a < b ? a : b;
}

template <class V>
inline V maximum(V a, V b) {
  return a > b ? a : b;
}

/// Bit l: a[l] < b[l].
inline std::uint32_t less(Vector<float> a, Vector<float> b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ);
#elif defined(__AVX2__)
  const Ints<float> mask = a < b;
  const __m256* const half = reinterpret_cast<const __m256*>(&mask);
  return static_cast<std::uint32_t>(_mm256_movemask_ps(half[0])) |
         static_cast<std::uint32_t>(_mm256_movemask_ps(half[1])) << 8;
#else
  std::uint32_t bits = 0;
  for (int l = 0; l < kWidth; ++l) bits |= static_cast<std::uint32_t>(a[l] < b[l]) << l;
  return bits;
#endif
}

inline std::uint32_t less(Vector<double> a, Vector<double> b) {
#if defined(__AVX512F__)
  const __m512d* const x = reinterpret_cast<const __m512d*>(&a);
  const __m512d* const y = reinterpret_cast<const __m512d*>(&b);
  return static_cast<std::uint32_t>(_mm512_cmp_pd_mask(x[0], y[0], _CMP_LT_OQ)) |
         static_cast<std::uint32_t>(_mm512_cmp_pd_mask(x[1], y[1], _CMP_LT_OQ)) << 8;
#else
  std::uint32_t bits = 0;
  for (int l = 0; l < kWidth; ++l) bits |= static_cast<std::uint32_t>(a[l] < b[l]) << l;
  return bits;
#endif
}

inline float lowest(Vector<float> v) {
#if defined(__AVX512F__)
  return _mm512_reduce_min_ps((__m512)v);
#else
  float least = v[0];
  for (int l = 1; l < kWidth; ++l) least = v[l] < least ? v[l] : least;
  return least;
#endif
}

inline double lowest(Vector<double> v) {
#if defined(__AVX512F__)
  const __m512d* const half = reinterpret_cast<const __m512d*>(&v);
  return _mm512_reduce_min_pd(_mm512_min_pd(half[0], half[1]));
#else
  double least = v[0];
  for (int l = 1; l < kWidth; ++l) least = v[l] < least ? v[l] : least;
  return least;
#endif
}

template <class V>
inline auto highest(V v) {
  return -lowest(-v);
}

/// 0, 1, … 15.
template <class Real>
inline Ints<Real> lane_numbers() {
  return Ints<Real>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
}

/// The lane of the least value among those whose bit is set (at least one is), the first where equal.
inline int lowest_lane(Vector<float> v, std::uint32_t bits) {
#if defined(__AVX512F__)
  const __m512 kept =
      _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_inff()), static_cast<__mmask16>(bits), (__m512)v);
  const __m512 least = _mm512_set1_ps(_mm512_reduce_min_ps(kept));
  const std::uint32_t equal = _mm512_mask_cmp_ps_mask(static_cast<__mmask16>(bits), kept, least, _CMP_EQ_OQ);
  return __builtin_ctz(equal);
#else
  int best = __builtin_ctz(bits);
  for (std::uint32_t left = bits & (bits - 1); left != 0; left &= left - 1) {
    const int l = __builtin_ctz(left);
    if (v[l] < v[best]) best = l;
  }
  return best;
#endif
}

inline int lowest_lane(Vector<double> v, std::uint32_t bits) {
  int best = __builtin_ctz(bits);
  for (std::uint32_t left = bits & (bits - 1); left != 0; left &= left - 1) {
    const int l = __builtin_ctz(left);
    if (v[l] < v[best]) best = l;
  }
  return best;
}

/// A leaf's or block's number in every lane; it is below 2^31.
template <class Real>
inline Ints<Real> spread_number(std::int64_t number) {
  using Lane = decltype(Ints<Real>{}[0] + 0);
  return Ints<Real>{} + static_cast<Lane>(number);
}

template <class Real>
inline Vector<Real> spread(Real value) {
  return value - Vector<Real>{};
}

}  // namespace
}  // namespace RUBRISCOPE_ISA
}  // namespace rubriscope::ops
