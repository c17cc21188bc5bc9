// How often each exponent occurs.
#include "rubriscope/ops/stats/stats.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rubriscope::ops::RUBRISCOPE_ISA {

namespace {

using i64 = std::int64_t;

void count_each(const std::uint8_t* bytes, i64 count, i64 histogram[256]) {
  std::uint32_t tables[4][256];  // four, so that equal neighbours do not wait for each other
  __builtin_memset(tables, 0, sizeof(tables));
  i64 i = 0;
  for (; i + 4 <= count; i += 4) {
    for (int k = 0; k < 4; ++k) ++tables[k][bytes[i + k]];
  }
  for (; i < count; ++i) ++tables[0][bytes[i]];
  for (int byte = 0; byte < 256; ++byte) {
    histogram[byte] += i64{tables[0][byte]} + tables[1][byte] + tables[2][byte] + tables[3][byte];
  }
}

constexpr int kWindow = 12;  // bytes beside 0 that are counted by comparing all with each of them

#if defined(__AVX2__)
#if defined(__AVX512BW__)
using Bytes = __m512i;
inline Bytes all(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
// A count goes up in each lane where the bytes are equal.
inline Bytes counted(Bytes count, Bytes x, Bytes place) {
  return _mm512_mask_add_epi8(count, _mm512_cmpeq_epi8_mask(x, place), count, _mm512_set1_epi8(1));
}
inline Bytes sums_of(Bytes count) { return _mm512_sad_epu8(count, Bytes{}); }
// Which bytes are neither 0 nor in the window.
inline std::uint64_t outside_of(Bytes x, Bytes first) {
  return _mm512_mask_test_epi8_mask(_mm512_cmpge_epu8_mask(_mm512_sub_epi8(x, first), all(kWindow)), x, x);
}
#else
using Bytes = __m256i;
inline Bytes all(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
inline Bytes counted(Bytes count, Bytes x, Bytes place) {
  return _mm256_sub_epi8(count, _mm256_cmpeq_epi8(x, place));
}
inline Bytes sums_of(Bytes count) { return _mm256_sad_epu8(count, Bytes{}); }
inline std::uint64_t outside_of(Bytes x, Bytes first) {
  const Bytes place = _mm256_min_epu8(_mm256_sub_epi8(x, first), all(kWindow));
  const Bytes out =
      _mm256_andnot_si256(_mm256_cmpeq_epi8(x, Bytes{}), _mm256_cmpeq_epi8(place, all(kWindow)));
  return static_cast<std::uint32_t>(_mm256_movemask_epi8(out));
}
#endif

inline Bytes load(const std::uint8_t* from) {
  Bytes found;
  __builtin_memcpy(&found, from, sizeof(found));
  return found;
}

inline i64 total(Bytes count) {
  const Bytes sums = sums_of(count);
  i64 found = 0;
  for (std::size_t lane = 0; lane < sizeof(Bytes) / 8; ++lane) found += sums[lane];
  return found;
}

// Counts the whole vectors of bytes; returns how many bytes that is.
i64 count_in_window(const std::uint8_t* bytes, i64 count, int first, i64 histogram[256]) {
  constexpr i64 size = sizeof(Bytes), most = 255;  // what a byte counts to
  const i64 vectors = count / size;
  Bytes places[kWindow + 1];
  for (int place = 0; place < kWindow; ++place) places[place] = all(first + place);
  places[kWindow] = Bytes{};
  for (i64 from = 0; from < vectors; from += most) {
    const i64 to = from + most < vectors ? from + most : vectors;
    Bytes counts[kWindow + 1] = {};
    for (i64 at = from; at < to; ++at) {
      const Bytes x = load(bytes + at * size);
#pragma GCC unroll 16
      for (int place = 0; place <= kWindow; ++place) counts[place] = counted(counts[place], x, places[place]);
      for (std::uint64_t outside = outside_of(x, places[0]); outside != 0; outside &= outside - 1) {
        ++histogram[bytes[at * size + __builtin_ctzll(outside)]];
      }
    }
    for (int place = 0; place < kWindow; ++place) histogram[first + place] += total(counts[place]);
    histogram[0] += total(counts[kWindow]);
  }
  return vectors * size;
}
#endif

}  // namespace

i64 count_bytes(const std::uint8_t* bytes, i64 count, i64 histogram[256], int& window) {
  i64 here[256];
  __builtin_memset(here, 0, sizeof(here));
  i64 done = 0;
#if defined(__AVX2__)
  if (window > 0) done = count_in_window(bytes, count, window, here);
#endif
  if (done < count) count_each(bytes + done, count - done, here);
  for (int byte = 0; byte < 256; ++byte) histogram[byte] += here[byte];
  // Where most of the next chunk will be, unless that is clear; nowhere, where it is too spread for comparing
  // to gain.
  i64 within = here[0];
  for (int place = 0; place < kWindow && window > 0; ++place) within += here[window + place];
  if (window > 0 && within >= count - count / 256) return here[0];
  i64 best = -1;
  within = 0;
  for (int byte = 1; byte < 256; ++byte) {
    within += here[byte] - (byte > kWindow ? here[byte - kWindow] : 0);
    if (byte >= kWindow && within > best) {
      best = within;
      window = byte - kWindow + 1;
    }
  }
  if (best + here[0] < count - count / 32) window = 0;
  return here[0];
}

}  // namespace rubriscope::ops::RUBRISCOPE_ISA
