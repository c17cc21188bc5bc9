// Tensors as actions and observations of C++ rubrics, without torch: where the numbers lie and their shape.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "rubriscope/rubric/value.h"

namespace rubriscope {

enum class Dtype : std::uint8_t { float32, float64 };

/// A contiguous tensor in the machine's memory; borrowed. Not initialised: room for some is made in every
/// call.
struct TensorView {
  static constexpr int kMaxRank = 8;

  const void* data;
  Dtype dtype;
  int rank;
  std::array<std::int64_t, kMaxRank> shape;  ///< the first `rank` entries

  std::int64_t count() const {
    std::int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= shape[static_cast<std::size_t>(axis)];
    return product;
  }
  /// As Python writes it: "tensor(shape=(2, 3), dtype=torch.float32, device=cpu)".
  std::string describe() const;
};

/// What a rubric over tensors is called with: one tensor, or a tuple of them.
struct TensorViews {
  std::span<const TensorView> items;
};

template <>
struct CaptureTraits<TensorViews> {
  static void describe(const TensorViews& tensors, CapturedValue& out);
};

}  // namespace rubriscope
