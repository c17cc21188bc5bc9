#include "rubriscope/trace/sight_sketch.h"

#include <algorithm>
#include <cmath>

namespace rubriscope {

double SightSketch::quantile(double q) const {
  if (count_ == 0) return 0.0;
  const double wanted = std::ceil(q * static_cast<double>(count_));
  const auto rank = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(wanted), 1, count_);
  std::uint64_t seen = 0;
  for (int octave = 0; octave < static_cast<int>(blocks_.size()); ++octave) {
    const auto& block = blocks_[static_cast<std::size_t>(octave)];
    if (block == nullptr) continue;
    for (std::uint64_t i = 0; i < kWidth; ++i) {
      seen += (*block)[i];
      if (seen < rank) continue;
      if (octave == 0) return static_cast<double>(i);
      const std::uint64_t step = std::uint64_t{1} << shift_of(octave);
      return static_cast<double>((kWidth + i) * step) + static_cast<double>(step - 1) / 2;
    }
  }
  return 0.0;
}

}  // namespace rubriscope
