#include "rubriscope/ops/stats/stats.h"
#include "rubriscope/ops/vectors.h"

namespace rubriscope::ops::RUBRISCOPE_ISA {

namespace {

using i64 = std::int64_t;

// AVX2 without AVX-512: the compiler takes vectors of 64 bytes apart lane by lane where it compares, selects
// or narrows them, so that the loop most elements go through is written with those of 32.
#if defined(__AVX2__) && !defined(__AVX512F__)
#define RUBRISCOPE_EIGHTS
#endif

// Sixteen floats or eight doubles at a time.
typedef float F16 __attribute__((vector_size(64)));
typedef std::uint32_t U16 __attribute__((vector_size(64)));
typedef std::int32_t I16 __attribute__((vector_size(64)));
typedef std::uint16_t H16 __attribute__((vector_size(32)));
typedef std::uint8_t B16 __attribute__((vector_size(16)));
typedef float F8 __attribute__((vector_size(32)));
typedef double D8 __attribute__((vector_size(64)));
typedef std::int64_t L8 __attribute__((vector_size(64)));

inline double sum_of(D8 v) { return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])); }
template <class V, int lanes>
inline i64 count_of(V v) {
  i64 sum = 0;
  for (int lane = 0; lane < lanes; ++lane) sum += v[lane];
  return sum;
}

// float32, and what converts to it without loss.
struct Float32 {
  using Element = float;
  static F16 vector(const float* from) { return load<F16>(from); }
#if defined(RUBRISCOPE_EIGHTS)
  static __m256 eight(const float* from) { return load<__m256>(from); }
#endif
};
struct BFloat16 {
  using Element = std::uint16_t;
  static F16 vector(const std::uint16_t* from) {
    return reinterpret_cast<F16>(__builtin_convertvector(load<H16>(from), U16) << 16);
  }
#if defined(RUBRISCOPE_EIGHTS)
  static __m256 eight(const std::uint16_t* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load<__m128i>(from)), 16));
  }
#endif
};
struct Float16 {
  using Element = std::uint16_t;
  static F16 vector(const std::uint16_t* from) {
#if defined(__AVX512F__)
    return reinterpret_cast<F16>(_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(from)));
#else
    // The bits moved into place are a float that is 2^112 too small, except for NaN and Inf.
    const U16 half = __builtin_convertvector(load<H16>(from), U16);
    const U16 magnitude = (half & 0x7fff) << 13;
    const U16 scaled = reinterpret_cast<U16>(reinterpret_cast<F16>(magnitude) * 0x1p112f);
    const U16 special = reinterpret_cast<U16>((half & 0x7c00) == 0x7c00);
    return reinterpret_cast<F16>((half & 0x8000) << 16 | (special & (magnitude | 0x7f800000)) |
                                 (~special & scaled));
#endif
  }
#if defined(RUBRISCOPE_EIGHTS)
  static __m256 eight(const std::uint16_t* from) { return _mm256_cvtph_ps(load<__m128i>(from)); }
#endif
};

struct Sums {
  D8 sum{}, squares{};
  void add(D8 difference) {
    sum += difference;
    squares += difference * difference;
  }
};

// How far ahead memory is asked for, bytes: so it goes on while the exponents are counted.
constexpr i64 kAhead = 4096;

template <class V, int lanes>
inline void extremes(StatsPiece& out, V least, V greatest) {
  out.least = __builtin_inf();
  out.greatest = -__builtin_inf();
  for (int lane = 0; lane < lanes; ++lane) {
    if (least[lane] < out.least) out.least = least[lane];
    if (greatest[lane] > out.greatest) out.greatest = greatest[lane];
  }
}

inline void finish(StatsPiece& out, i64 count, double shift, const Sums& a, const Sums& b) {
  out.moments = shifted_moments(static_cast<double>(count - out.nan - out.inf), shift, sum_of(a.sum + b.sum),
                                sum_of(a.squares + b.squares));
}

// Whole vectors of elements, all finite: where one is not, neither is the sum, and the result is void.
// A mean of 0 spares the differences to it.
#if defined(RUBRISCOPE_EIGHTS)
template <class Type, bool Shifted>
bool finite_floats(const typename Type::Element* data, i64 count, double shift, StatsPiece& out,
                   std::uint8_t* exponents) {
  __m256d sum[4] = {}, squares[4] = {};
  __m256 least[2], greatest[2];
  for (int half = 0; half < 2; ++half) {
    least[half] = _mm256_set1_ps(__builtin_inff());
    greatest[half] = _mm256_set1_ps(-__builtin_inff());
  }
  const __m256i low_byte = _mm256_set1_epi32(255);
  const __m256d to = _mm256_set1_pd(shift);
  for (i64 i = 0; i < count; i += 16) {
    __builtin_prefetch(data + i + kAhead / sizeof(data[0]));
    __m256i exponent[2];
    for (int half = 0; half < 2; ++half) {
      const __m256 x = Type::eight(data + i + 8 * half);
      exponent[half] = _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(x), 23), low_byte);
      least[half] = _mm256_min_ps(x, least[half]);  // the second one where x is NaN
      greatest[half] = _mm256_max_ps(x, greatest[half]);
      const __m128 fours[2] = {_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1)};
      for (int four = 0; four < 2; ++four) {
        __m256d difference = _mm256_cvtps_pd(fours[four]);
        if constexpr (Shifted) difference = _mm256_sub_pd(difference, to);
        const int at = 2 * half + four;
        sum[at] = _mm256_add_pd(sum[at], difference);
        squares[at] = _mm256_fmadd_pd(difference, difference, squares[at]);
      }
    }
    // Packing works within halves: the bytes' order is another one than the elements'.
    const __m256i words = _mm256_packus_epi32(exponent[0], exponent[1]);
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(words, words), 0b1000);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(exponents + i), _mm256_castsi256_si128(bytes));
  }
  F16 smallest, largest;
  Sums low, high;
  __builtin_memcpy(&smallest, least, sizeof(smallest));
  __builtin_memcpy(&largest, greatest, sizeof(largest));
  __builtin_memcpy(&low.sum, sum, sizeof(low.sum));
  __builtin_memcpy(&high.sum, sum + 2, sizeof(high.sum));
  __builtin_memcpy(&low.squares, squares, sizeof(low.squares));
  __builtin_memcpy(&high.squares, squares + 2, sizeof(high.squares));
  extremes<F16, 16>(out, smallest, largest);
  out.nan = out.inf = 0;
  finish(out, count, shift, low, high);
  return sum_of(low.sum + high.sum) - sum_of(low.sum + high.sum) == 0;
}
#else
template <class Type, bool Shifted>
bool finite_floats(const typename Type::Element* data, i64 count, double shift, StatsPiece& out,
                   std::uint8_t* exponents) {
  Sums low, high;
  F16 least = F16{} + __builtin_inff(), greatest = F16{} - __builtin_inff();
  for (i64 i = 0; i < count; i += 16) {
    __builtin_prefetch(data + i + kAhead / sizeof(data[0]));
    const F16 x = Type::vector(data + i);
    const B16 bytes = __builtin_convertvector(reinterpret_cast<U16>(x) >> 23, B16);
    __builtin_memcpy(exponents + i, &bytes, 16);
    least = x < least ? x : least;
    greatest = x > greatest ? x : greatest;
    D8 one = __builtin_convertvector(__builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7), D8);
    D8 other = __builtin_convertvector(__builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15), D8);
    if constexpr (Shifted) {
      one -= shift;
      other -= shift;
    }
    low.add(one);
    high.add(other);
  }
  extremes<F16, 16>(out, least, greatest);
  out.nan = out.inf = 0;
  finish(out, count, shift, low, high);
  return sum_of(low.sum + high.sum) - sum_of(low.sum + high.sum) == 0;
}
#endif

// Any elements and any number of them.
template <class Type>
void any_floats(const typename Type::Element* data, i64 count, double shift, StatsPiece& out,
                std::uint8_t* exponents) {
  Sums low, high;
  F16 least = F16{} + __builtin_inff(), greatest = F16{} - __builtin_inff();
  I16 nans{}, infs{};
  i64 padding = 0;
  for (i64 i = 0; i < count; i += 16) {
    typename Type::Element here[16];
    const i64 lanes = count - i < 16 ? count - i : 16;
    __builtin_memset(here, 0xff, sizeof(here));  // NaN
    __builtin_memcpy(here, data + i, static_cast<std::size_t>(lanes) * sizeof(here[0]));
    padding = 16 - lanes;
    const F16 x = Type::vector(here);
    const U16 bits = reinterpret_cast<U16>(x);
    const B16 bytes = __builtin_convertvector(bits >> 23, B16);
    __builtin_memcpy(exponents + i, &bytes, static_cast<std::size_t>(lanes));
    const I16 magnitude = reinterpret_cast<I16>(bits & 0x7fffffff);
    const I16 special = magnitude > 0x7f7fffff;
    const I16 nan = magnitude > 0x7f800000;
    nans -= nan;
    infs -= special & ~nan;
    least = (~special & (x < least)) != 0 ? x : least;
    greatest = (~special & (x > greatest)) != 0 ? x : greatest;
    D8 one, other;
    for (int lane = 0; lane < 8; ++lane) {
      one[lane] = special[lane] != 0 ? 0 : x[lane] - shift;
      other[lane] = special[lane + 8] != 0 ? 0 : x[lane + 8] - shift;
    }
    low.add(one);
    high.add(other);
  }
  extremes<F16, 16>(out, least, greatest);
  out.nan = count_of<I16, 16>(nans) - padding;
  out.inf = count_of<I16, 16>(infs);
  finish(out, count, shift, low, high);
}

template <class Type>
void chunk_of_floats(const typename Type::Element* data, i64 count, double shift, StatsPiece& out,
                     std::uint8_t* exponents) {
  const i64 whole = count & ~i64{15};
  const bool finite = shift == 0 ? finite_floats<Type, false>(data, whole, shift, out, exponents)
                                 : finite_floats<Type, true>(data, whole, shift, out, exponents);
  if (!finite) {
    any_floats<Type>(data, count, shift, out, exponents);
  } else if (whole < count) {
    StatsPiece rest{};
    any_floats<Type>(data + whole, count - whole, shift, rest, exponents + whole);
    out = combined(out, rest);
  }
}

// Eight doubles in the machine's own vectors.
constexpr int kDoubles = vector_bytes / 8;
using Dn = Doubles;
typedef std::int64_t Ln __attribute__((vector_size(vector_bytes)));
typedef std::uint64_t Un __attribute__((vector_size(vector_bytes)));
constexpr int kParts = 8 / kDoubles;

void chunk_of_doubles(const double* data, i64 count, double shift, StatsPiece& out, std::uint8_t* exponents) {
  Dn sum[kParts] = {}, squares[kParts] = {}, least[kParts], greatest[kParts];
  Ln nans[kParts] = {}, infs[kParts] = {};
  for (int part = 0; part < kParts; ++part) {
    least[part] = Dn{} + __builtin_inf();
    greatest[part] = Dn{} - __builtin_inf();
  }
  const auto take = [&](const double* from, std::uint8_t* to) __attribute__((always_inline)) {
    Ln bytes[kParts];
    for (int part = 0; part < kParts; ++part) {
      const Dn x = load<Dn>(from + part * kDoubles);
      const Ln magnitude = reinterpret_cast<Ln>(x) & 0x7fffffffffffffff;
      const Ln special = magnitude > 0x7fefffffffffffff;
      const Ln nan = magnitude > 0x7ff0000000000000;
      nans[part] -= nan;
      infs[part] -= special & ~nan;
      // exponent_byte_of_double
      Ln byte = reinterpret_cast<Ln>(reinterpret_cast<Un>(magnitude) >> 52) - (1023 - 127);
      byte = byte < 0 ? Ln{} : byte;
      byte = byte > 254 ? Ln{} + 254 : byte;
      bytes[part] = byte | (special & 255);
      least[part] = (~special & (x < least[part])) != 0 ? x : least[part];
      greatest[part] = (~special & (x > greatest[part])) != 0 ? x : greatest[part];
      const Dn difference = special != 0 ? Dn{} : x - shift;
      sum[part] += difference;
      squares[part] += difference * difference;
    }
    i64 all[8];
    __builtin_memcpy(all, bytes, sizeof(all));
    for (int lane = 0; lane < 8; ++lane) to[lane] = static_cast<std::uint8_t>(all[lane]);
  };
  i64 i = 0;
  for (; i + 8 <= count; i += 8) {
    __builtin_prefetch(data + i + kAhead / 8);
    take(data + i, exponents + i);
  }
  i64 padding = 0;
  if (i < count) {
    double rest[8];
    for (double& value : rest) value = __builtin_nan("");
    for (i64 k = i; k < count; ++k) rest[k - i] = data[k];
    padding = 8 - (count - i);
    std::uint8_t bytes[8];
    take(rest, bytes);
    for (i64 k = i; k < count; ++k) exponents[k] = bytes[k - i];
  }
  D8 smallest, largest;
  L8 nan_counts, inf_counts;
  Sums sums;
  __builtin_memcpy(&smallest, least, sizeof(smallest));
  __builtin_memcpy(&largest, greatest, sizeof(largest));
  __builtin_memcpy(&nan_counts, nans, sizeof(nan_counts));
  __builtin_memcpy(&inf_counts, infs, sizeof(inf_counts));
  __builtin_memcpy(&sums.sum, sum, sizeof(sums.sum));
  __builtin_memcpy(&sums.squares, squares, sizeof(sums.squares));
  out.nan = count_of<L8, 8>(nan_counts) - padding;
  out.inf = count_of<L8, 8>(inf_counts);
  extremes<D8, 8>(out, smallest, largest);
  finish(out, count, shift, sums, Sums{});
}

template <class Type>
i64 zeros_of_floats(const typename Type::Element* data, i64 count) {
  i64 zeros = 0;
  for (i64 i = 0; i < count; ++i) zeros += (data[i] & Type::magnitude) == 0 ? 1 : 0;
  return zeros;
}
struct Magnitude32 {
  using Element = std::uint32_t;
  static constexpr Element magnitude = 0x7fffffff;
};
struct Magnitude64 {
  using Element = std::uint64_t;
  static constexpr Element magnitude = 0x7fffffffffffffff;
};
struct Magnitude16 {
  using Element = std::uint16_t;
  static constexpr Element magnitude = 0x7fff;
};

}  // namespace

void stats_chunk(const void* data, StatsType type, i64 count, double shift, StatsPiece& out,
                 std::uint8_t* exponents) {
  switch (type) {
    case StatsType::float32:
      return chunk_of_floats<Float32>(static_cast<const float*>(data), count, shift, out, exponents);
    case StatsType::float64:
      return chunk_of_doubles(static_cast<const double*>(data), count, shift, out, exponents);
    case StatsType::float16:
      return chunk_of_floats<Float16>(static_cast<const std::uint16_t*>(data), count, shift, out, exponents);
    case StatsType::bfloat16:
      return chunk_of_floats<BFloat16>(static_cast<const std::uint16_t*>(data), count, shift, out, exponents);
  }
}

i64 count_zeros(const void* data, StatsType type, i64 count) {
  switch (type) {
    case StatsType::float32:
      return zeros_of_floats<Magnitude32>(static_cast<const std::uint32_t*>(data), count);
    case StatsType::float64:
      return zeros_of_floats<Magnitude64>(static_cast<const std::uint64_t*>(data), count);
    default:
      return zeros_of_floats<Magnitude16>(static_cast<const std::uint16_t*>(data), count);
  }
}

}  // namespace rubriscope::ops::RUBRISCOPE_ISA
