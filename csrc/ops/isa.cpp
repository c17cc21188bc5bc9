#include "rubriscope/ops/isa.h"

#include <cstdlib>
#include <string_view>

#include "rubriscope/core/errors.h"

namespace rubriscope::ops {

namespace {

Isa widest() {
#if !defined(RUBRISCOPE_ONE_ISA)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("fma")) {
    return Isa::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) {
    return Isa::avx2;
  }
#endif
  return Isa::baseline;
}

Isa chosen() {
  const Isa machine = widest();
  const char* const wish = std::getenv("RUBRISCOPE_ISA");
  if (wish == nullptr || *wish == '\0') return machine;
  const std::string_view name = wish;
  const Isa wanted = name == "baseline" ? Isa::baseline
                     : name == "avx2"   ? Isa::avx2
                     : name == "avx512" ? Isa::avx512
                                        : throw ValueError("RUBRISCOPE_ISA is '" + std::string(name) +
                                                           "', expected baseline, avx2 or avx512");
  if (wanted > machine) {
    throw ValueError("RUBRISCOPE_ISA is '" + std::string(name) + "', which this machine does not run");
  }
  return wanted;
}

}  // namespace

Isa isa() {
  static const Isa set = chosen();
  return set;
}

const char* isa_name() {
  switch (isa()) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::baseline:
      break;
  }
  return "baseline";
}

}  // namespace rubriscope::ops
