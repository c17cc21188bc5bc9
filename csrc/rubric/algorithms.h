// The containers' algorithms over the children of a node, for hosts whose scores are plain doubles.
#pragma once

#include "rubriscope/core/errors.h"
#include "rubriscope/rubric/node.h"
#include "rubriscope/rubric/rules.h"

namespace rubriscope {

/// Runs the algorithm of a container; call(Node&) -> double scores a child.
template <class Call>
double run_container(const Node& node, NodeKind kind, Call&& call) {
  double total = kind == NodeKind::sequential ? rules::kEmptySequence : 0.0;
  for (const auto& child : node.children()) {
    if (!child.item) continue;
    const double score = call(*child.node);
    switch (kind) {
      case NodeKind::gate:
        return rules::passes_gate(score, node.threshold) ? score : 0.0;
      case NodeKind::sequential:
        if (rules::stops_sequence(score)) return 0.0;
        total = score;
        break;
      case NodeKind::weighted_sum:
        total += rules::weighted(score, child.weight);
        break;
      case NodeKind::leaf:
        throw ValueError(node.class_name() + " is a leaf, not a container");
    }
  }
  if (kind == NodeKind::gate) throw ValueError("Gate has no rubric: its child 'rubric' was removed");
  return total;
}

}  // namespace rubriscope
