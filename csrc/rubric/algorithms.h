// The containers' algorithms for hosts whose scores are plain doubles.
#pragma once

#include "rubriscope/core/errors.h"
#include "rubriscope/rubric/node.h"
#include "rubriscope/rubric/rules.h"

namespace rubriscope {

/// A container's score, from its children's one after the other.
class Combination {
 public:
  Combination(NodeKind kind, double threshold)
      : kind_(kind),
        threshold_(threshold),
        total_(kind == NodeKind::sequential ? rules::kEmptySequence : 0.0) {}

  /// Takes the next child's score. False: the children after it are not evaluated.
  bool add(double score, double weight) {
    empty_ = false;
    switch (kind_) {
      case NodeKind::gate:
        total_ = rules::passes_gate(score, threshold_) ? score : 0.0;
        return false;
      case NodeKind::sequential:
        total_ = rules::stops_sequence(score) ? 0.0 : score;
        return total_ != 0.0;
      case NodeKind::weighted_sum:
        total_ += rules::weighted(score, weight);
        return true;
      case NodeKind::leaf:
        break;
    }
    throw ValueError("a leaf is not a container");
  }

  /// Throws ValueError for a gate that was given no score.
  double score() const {
    if (kind_ == NodeKind::gate && empty_) {
      throw ValueError("Gate has no rubric: its child 'rubric' was removed");
    }
    return total_;
  }

 private:
  NodeKind kind_;
  double threshold_;
  double total_;
  bool empty_{true};
};

}  // namespace rubriscope
