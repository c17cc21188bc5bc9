// How containers combine scores. The C++ and the Python host both call these.
#pragma once

#include <cmath>

namespace rubriscope::rules {

/// A sequence stops at a score of exactly 0.
inline bool stops_sequence(double score) { return score == 0.0; }

/// What a sequence without children gives.
inline constexpr double kEmptySequence = 1.0;

/// A gate passes a finite score that reaches its threshold; NaN and infinities never pass.
inline bool passes_gate(double score, double threshold) { return std::isfinite(score) && score >= threshold; }

/// A child of weight 0 is measured, not rewarded: it adds exactly 0, also when its score is NaN.
inline double weighted(double score, double weight) { return weight == 0.0 ? 0.0 : score * weight; }

}  // namespace rubriscope::rules
