#include "rubriscope/ops/stencil/columns.h"
#include "rubriscope/ops/vectors.h"

namespace rubriscope::ops::stencil::RUBRISCOPE_ISA {

using namespace rubriscope::ops::RUBRISCOPE_ISA;

namespace {

// Eight float64 at a time, as many vectors of the machine as that takes.
constexpr int lanes = 8, parts_of_lanes = lanes * 8 / vector_bytes;
struct Lanes {
  Doubles part[parts_of_lanes];
};

inline __attribute__((always_inline)) Doubles widened(const float* at) {
#if defined(__AVX512F__)
  return reinterpret_cast<Doubles>(_mm512_maskz_cvtps_pd(0xff, load<__m256>(at)));
#elif defined(__AVX2__)
  return reinterpret_cast<Doubles>(_mm256_cvtps_pd(load<__m128>(at)));
#else
  Doubles found;
  for (int n = 0; n < vector_bytes / 8; ++n) found[n] = static_cast<double>(at[n]);
  return found;
#endif
}
inline __attribute__((always_inline)) Doubles widened(const double* at) { return load<Doubles>(at); }

// In an order that is the same for every vector's width.
template <class T, bool squared>
double sum(const T* values, std::int64_t count) {
  constexpr int chains = 2, width = vector_bytes / 8;  // two additions that do not wait for each other
  Lanes found[chains] = {};
  std::int64_t at = 0;
  for (; at + chains * lanes <= count; at += chains * lanes) {
    for (int n = 0; n < chains; ++n) {
      for (int p = 0; p < parts_of_lanes; ++p) {
        const Doubles a = widened(values + at + n * lanes + p * width);
        found[n].part[p] += squared ? a * a : a;
      }
    }
  }
  double each[lanes];
  for (int p = 0; p < parts_of_lanes; ++p) store(each + p * width, found[0].part[p] + found[1].part[p]);
  double total = ((each[0] + each[1]) + (each[2] + each[3])) + ((each[4] + each[5]) + (each[6] + each[7]));
  for (; at < count; ++at) {
    const double value = static_cast<double>(values[at]);
    total += squared ? value * value : value;
  }
  return total;
}

}  // namespace

double sum_row(const float* values, std::int64_t count, bool squared) {
  return squared ? sum<float, true>(values, count) : sum<float, false>(values, count);
}
double sum_row(const double* values, std::int64_t count, bool squared) {
  return squared ? sum<double, true>(values, count) : sum<double, false>(values, count);
}

}  // namespace rubriscope::ops::stencil::RUBRISCOPE_ISA
