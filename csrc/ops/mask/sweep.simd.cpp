#include "rubriscope/ops/mask/sweep.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rubriscope::ops::RUBRISCOPE_ISA {

namespace {

using i64 = std::int64_t;
using u64 = std::uint64_t;

typedef std::uint16_t V16 __attribute__((vector_size(64)));
typedef std::uint32_t V32 __attribute__((vector_size(64)));
typedef double V64 __attribute__((vector_size(64)));
typedef long long Words __attribute__((vector_size(64)));
typedef std::uint64_t Bits64 __attribute__((vector_size(64)));

template <class T>
struct Lanes;
template <>
struct Lanes<std::uint16_t> {
  using V = V16;
  static constexpr std::uint16_t most = 0xffff;
};
template <>
struct Lanes<std::uint32_t> {
  using V = V32;
  static constexpr std::uint32_t most = 0xffffffff;
};
template <>
struct Lanes<double> {
  using V = V64;
  static constexpr double most = __builtin_inf();
};

template <class T>
inline typename Lanes<T>::V load(const T* from) {
  typename Lanes<T>::V v;
  __builtin_memcpy(&v, from, 64);
  return v;
}

template <class T>
inline void store(T* to, typename Lanes<T>::V v) {
  __builtin_memcpy(to, &v, 64);
}

inline bool any_set(Words mask) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  __m256i half[2];
  __builtin_memcpy(half, &mask, 64);
  const __m256i both = _mm256_or_si256(half[0], half[1]);
  return _mm256_testz_si256(both, both) == 0;
#else
  return (mask[0] | mask[1] | mask[2] | mask[3] | mask[4] | mask[5] | mask[6] | mask[7]) != 0;
#endif
}

// Whether a lane of `v` is greater than the number.
template <class T>
inline bool any_greater(typename Lanes<T>::V v, T than) {
#if defined(__AVX512F__) && defined(__AVX512BW__)
  if constexpr (sizeof(T) == 2) {
    return _mm512_cmpgt_epu16_mask(reinterpret_cast<__m512i>(v),
                                   _mm512_set1_epi16(static_cast<short>(than))) != 0;
  } else if constexpr (sizeof(T) == 4) {
    return _mm512_cmpgt_epu32_mask(reinterpret_cast<__m512i>(v), _mm512_set1_epi32(static_cast<int>(than))) !=
           0;
  } else {
    return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(v), _mm512_set1_pd(than), _CMP_GT_OQ) != 0;
  }
#else
  const typename Lanes<T>::V bound = typename Lanes<T>::V{} + than;
  return any_set(reinterpret_cast<Words>(v > bound));
#endif
}

template <class T>
inline typename Lanes<T>::V lesser(typename Lanes<T>::V a, typename Lanes<T>::V b) {
  return a < b ? a : b;
}

// `most` in the lanes whose bit is set, 0 in the others.
inline V16 start(std::uint16_t, u64 bits) {
  V16 mask;
  for (int lane = 0; lane < 32; ++lane) {
    mask[lane] =
        static_cast<std::uint16_t>(bits >> (lane & 16)) & static_cast<std::uint16_t>(1u << (lane & 15));
  }
  return mask != 0 ? V16{} + Lanes<std::uint16_t>::most : V16{};
}
inline V32 start(std::uint32_t, u64 bits) {
  V32 bit;
  for (int lane = 0; lane < 16; ++lane) bit[lane] = 1u << lane;
  return (bit & static_cast<std::uint32_t>(bits)) != 0 ? V32{} + Lanes<std::uint32_t>::most : V32{};
}
inline V64 start(double, u64 bits) {
  Bits64 bit;
  for (int lane = 0; lane < 8; ++lane) bit[lane] = u64{1} << lane;
  return (bit & bits) != 0 ? V64{} + Lanes<double>::most : V64{};
}

template <class T, bool Larger>
inline typename Lanes<T>::V combine(typename Lanes<T>::V cost, T step) {
  if constexpr (Larger) {
    const typename Lanes<T>::V steps = typename Lanes<T>::V{} + step;
    return cost > steps ? cost : steps;
  } else {
    return cost + step;
  }
}

// Visits positions of [0, count) around `at` from near to far; visit(position, offset) for both sides.
// more(offset) says whether an offset may still improve anything.
template <class More, class Visit>
inline void outwards(i64 at, i64 count, More more, Visit visit) {
  i64 offset = at < 0 ? -at : at >= count ? at - count + 1 : 0;
  if (offset == 0) {
    visit(at, 0);
    offset = 1;
  }
  for (;; ++offset) {
    const i64 below = at - offset, above = at + offset;
    const bool has_below = below >= 0 && below < count, has_above = above >= 0 && above < count;
    if ((!has_below && !has_above) || !more(offset)) return;
    if (has_below) visit(below, offset);
    if (has_above) visit(above, offset);
  }
}

template <class T, bool Larger>
void find_in_plane(const Sweep<T>& sweep, i64 plane, i64 y, i64 block) {
  using V = typename Lanes<T>::V;
  constexpr i64 lanes = 64 / sizeof(T);
  const i64 stride = sweep.words * 64;
  const T* rows = sweep.nearest + plane * sweep.ny * stride + block * lanes;
  const std::uint8_t* any = sweep.row_any + plane * sweep.ny;
  V best = V{} + Lanes<T>::most;
  outwards(
      y - sweep.y0, sweep.ny, [&](i64 offset) { return any_greater<T>(best, sweep.cost_y[offset]); },
      [&](i64 row, i64 offset) {
        if (any[row] != 0) {
          best = lesser<T>(best, combine<T, Larger>(load(rows + row * stride), sweep.cost_y[offset]));
        }
      });
  store(sweep.planes + plane * stride + block * lanes, best);
}

template <class T, bool Larger>
i64 sweep_row_of(const Sweep<T>& sweep, i64 z, i64 y, double* out) {
  using V = typename Lanes<T>::V;
  constexpr i64 lanes = 64 / sizeof(T);
  constexpr i64 blocks_a_word = 64 / lanes;
  const i64 stride = sweep.words * 64;
  const i64 blocks = sweep.words * blocks_a_word;
  const u64* row = sweep.queries.row(z, y) + sweep.first_word;
  i64 found = 0;
  for (i64 block = 0; block < blocks; ++block) {
    u64 queries = row[block / blocks_a_word];
    if (queries == 0) continue;
    queries >>= (block % blocks_a_word) * lanes;
    queries &= (u64{1} << lanes) - 1;
    if (queries == 0) continue;
    V best = start(T{}, queries);
    outwards(
        z - sweep.z0, sweep.nz, [&](i64 offset) { return any_greater<T>(best, sweep.cost_z[offset]); },
        [&](i64 plane, i64 offset) {
          if (sweep.plane_any[plane] == 0) return;
          std::uint8_t& known = sweep.known[plane * blocks + block];
          if (known == 0) {
            find_in_plane<T, Larger>(sweep, plane, y, block);
            known = 1;
          }
          const V here = load(sweep.planes + plane * stride + block * lanes);
          best = lesser<T>(best, combine<T, Larger>(here, sweep.cost_z[offset]));
        });
    T values[lanes];
    store(values, best);
    for (; queries != 0; queries &= queries - 1) {
      out[found++] = static_cast<double>(values[__builtin_ctzll(queries)]);
    }
  }
  return found;
}

template <class T>
i64 sweep_row_metric(const Sweep<T>& sweep, i64 z, i64 y, double* out) {
  return sweep.metric == MaskMetric::chessboard ? sweep_row_of<T, true>(sweep, z, y, out)
                                                : sweep_row_of<T, false>(sweep, z, y, out);
}

template <class T>
void nearest_in_row_of(const u64* bits, i64 words, const T* rising, const T* falling, T* out) {
  const i64 length = words * 64;
  i64 last = -1;  // the set bit before, −1 before the first
  for (i64 word = 0; word < words; ++word) {
    for (u64 rest = bits[word]; rest != 0; rest &= rest - 1) {
      const i64 bit = word * 64 + __builtin_ctzll(rest);
      // Between two bits the first half rises from the one before, the second falls towards this one.
      const i64 middle = last < 0 ? 0 : last + 1 + (bit - last - 1) / 2;
      for (i64 x = last + 1; x < middle; ++x) out[x] = rising[x - last];
      const T* towards = falling + (length - 1 - bit);
      for (i64 x = middle; x < bit; ++x) out[x] = towards[x];
      out[bit] = 0;
      last = bit;
    }
  }
  for (i64 x = last + 1; x < length; ++x) out[x] = rising[x - last];
}

}  // namespace

void pack_row(const std::uint8_t* bytes, std::int64_t count, std::uint64_t* bits) {
  const i64 whole = count / 64;
  for (i64 word = 0; word < whole; ++word) {
    const std::uint8_t* from = bytes + word * 64;
#if defined(__AVX512BW__)
    const __m512i v = _mm512_loadu_si512(from);
    bits[word] = _mm512_test_epi8_mask(v, v);
#elif defined(__AVX2__)
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 32));
    const auto low_zero = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, zero)));
    const auto high_zero = static_cast<std::uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, zero)));
    bits[word] = ~(u64{low_zero} | u64{high_zero} << 32);
#else
    u64 all = 0;
    for (int byte = 0; byte < 8; ++byte) {
      u64 v = 0;
      for (int i = 0; i < 8; ++i) v |= u64{from[byte * 8 + i]} << (8 * i);
      // The lowest bit of each byte: whether the byte is not 0; then the eight bits beside each other.
      v |= v >> 4;
      v |= v >> 2;
      v |= v >> 1;
      v &= 0x0101010101010101u;
      all |= ((v * 0x0102040810204080u) >> 56) << (8 * byte);
    }
    bits[word] = all;
#endif
  }
  if (const i64 rest = count - whole * 64; rest > 0) {
    u64 last = 0;
    for (i64 i = 0; i < rest; ++i) last |= u64{bytes[whole * 64 + i] != 0} << i;
    bits[whole] = last;
  }
}

void nearest_in_row(const u64* bits, i64 words, const std::uint16_t* rising, const std::uint16_t* falling,
                    std::uint16_t* out) {
  nearest_in_row_of(bits, words, rising, falling, out);
}
void nearest_in_row(const u64* bits, i64 words, const std::uint32_t* rising, const std::uint32_t* falling,
                    std::uint32_t* out) {
  nearest_in_row_of(bits, words, rising, falling, out);
}
void nearest_in_row(const u64* bits, i64 words, const double* rising, const double* falling, double* out) {
  nearest_in_row_of(bits, words, rising, falling, out);
}

i64 sweep_row(const Sweep<std::uint16_t>& sweep, i64 z, i64 y, double* out) {
  return sweep_row_metric(sweep, z, y, out);
}
i64 sweep_row(const Sweep<std::uint32_t>& sweep, i64 z, i64 y, double* out) {
  return sweep_row_metric(sweep, z, y, out);
}
i64 sweep_row(const Sweep<double>& sweep, i64 z, i64 y, double* out) {
  return sweep_row_metric(sweep, z, y, out);
}

double nearest_point(MaskMetric metric, const double query[3], const double* z, const double* y,
                     const double* x, i64 count, const double unit[3]) {
  double best = __builtin_inf();
  for (i64 i = 0; i < count; ++i) {
    double dz = (z[i] - query[0]) * unit[0], dy = (y[i] - query[1]) * unit[1],
           dx = (x[i] - query[2]) * unit[2];
    double cost;
    if (metric == MaskMetric::euclidean) {
      cost = dx * dx + dy * dy + dz * dz;
    } else {
      dz = dz < 0 ? -dz : dz;
      dy = dy < 0 ? -dy : dy;
      dx = dx < 0 ? -dx : dx;
      if (metric == MaskMetric::taxicab) {
        cost = dx + dy + dz;
      } else {
        cost = dx > dy ? dx : dy;
        cost = cost > dz ? cost : dz;
      }
    }
    best = cost < best ? cost : best;
  }
  return best;
}

}  // namespace rubriscope::ops::RUBRISCOPE_ISA
