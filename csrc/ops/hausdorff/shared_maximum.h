// The largest squared distance found so far by any thread, as the bits of a double: not negative, so its bits
// are in its order.
#pragma once

#include <cstdint>

#include "rubriscope/ops/host_device.h"

namespace rubriscope::ops {

RUBRISCOPE_HD double read_maximum(const std::uint64_t* shared) {
  const std::uint64_t bits = __atomic_load_n(shared, __ATOMIC_RELAXED);
  double value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

RUBRISCOPE_HD void raise_maximum(std::uint64_t* shared, double value) {
  std::uint64_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  std::uint64_t seen = __atomic_load_n(shared, __ATOMIC_RELAXED);
  while (seen < bits &&
         !__atomic_compare_exchange_n(shared, &seen, bits, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

}  // namespace rubriscope::ops
