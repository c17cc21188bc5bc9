// Kernels for several instruction sets in one library. A file named *.simd.cpp is compiled once per set, its
// contents in namespace RUBRISCOPE_ISA (isa_baseline, isa_avx2, isa_avx512); whoever calls it declares its
// functions with RUBRISCOPE_DECLARE_ISA and calls them through RUBRISCOPE_CALL_ISA.
//
// Such a file must not instantiate library templates that other files instantiate too (std::vector,
// std::sort): the linker keeps one copy of them, which may be the one with the instructions this machine
// lacks. Give it plain pointers and scratch memory.
#pragma once

namespace rubriscope::ops {

enum class Isa { baseline, avx2, avx512 };

/// The widest set this machine runs, or the lower one that the environment variable RUBRISCOPE_ISA names
/// (baseline, avx2, avx512). Read once.
Isa isa();

/// Its name, as in RUBRISCOPE_ISA.
const char* isa_name();

}  // namespace rubriscope::ops

#if !defined(RUBRISCOPE_ONE_ISA)
#define RUBRISCOPE_DECLARE_ISA(...) \
  namespace isa_baseline {          \
  __VA_ARGS__                       \
  }                                 \
  namespace isa_avx2 {              \
  __VA_ARGS__                       \
  }                                 \
  namespace isa_avx512 {            \
  __VA_ARGS__                       \
  }
#define RUBRISCOPE_CALL_ISA(function, ...)                                                        \
  (::rubriscope::ops::isa() == ::rubriscope::ops::Isa::avx512 ? isa_avx512::function(__VA_ARGS__) \
   : ::rubriscope::ops::isa() == ::rubriscope::ops::Isa::avx2 ? isa_avx2::function(__VA_ARGS__)   \
                                                              : isa_baseline::function(__VA_ARGS__))
#else
#define RUBRISCOPE_DECLARE_ISA(...) \
  namespace isa_baseline {          \
  __VA_ARGS__                       \
  }
#define RUBRISCOPE_CALL_ISA(function, ...) isa_baseline::function(__VA_ARGS__)
#endif
