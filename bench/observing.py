"""What does observing a tree cost, a node and a snapshot?

Trees of 5 to 97 nodes are called plain and observed (13-node tree's family: gates over WeightedSums of 2
leaves); the difference is fitted by least squares as ``a + b · nodes``: ``a`` is the cost of a snapshot,
``b`` of a node. With ``capture="none"``, since captures are what the user asks for; the default ``"text"``
stands beside it.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import numpy as np
import rubriscope as rs
from measure import Report, caller, options, scratch, time_in_turns
from peers import tree

ACTION, OBSERVATION = "the model's answer", "the question"
NODE_NS, SNAPSHOT_NS = 15.0, 100.0


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("observing", "what does observing cost, a node and a snapshot?", args)
    gates = (1, 3, 6, 12, 24)
    with ExitStack() as stack:
        place = stack.enter_context(scratch(args.folder))
        cases, after = {}, {}
        for count in gates:
            cases[f"plain {count}"] = caller(tree(rs, count), ACTION, OBSERVATION)
            for capture in ("none", "text"):
                name = f"{capture} {count}"
                recorder = stack.enter_context(rs.record(place / f"{capture}{count}.jsonl", session="bench"))
                observed = tree(rs, count)
                recorder.observe(observed, capture=capture)
                cases[name] = caller(observed, ACTION, OBSERVATION)
                after[name] = recorder.flush
        timings = time_in_turns(
            cases,
            repetitions=7 if args.quick else 21,
            repetition_ms=5 if args.quick else 20,
            after=after,
        )
    report.timings(timings)
    nodes = np.array([1 + 4 * count for count in gates], dtype=np.float64)
    for capture in ("none", "text"):
        # Differences of neighbouring repetitions: what slows the machine down meets both.
        added = np.array(
            [
                np.median(
                    np.subtract(*(report.series(timings[f"{kind} {count}"]) for kind in (capture, "plain")))
                )
                for count in gates
            ]
        )
        per_node, per_snapshot = np.polyfit(nodes, added, 1)
        residual = added - (per_snapshot + per_node * nodes)
        at_13 = float(added[gates.index(3)])
        report.data[capture] = {
            "nodes": nodes.tolist(),
            "added_ns": added.tolist(),
            "per_node_ns": float(per_node),
            "per_snapshot_ns": float(per_snapshot),
            "largest_residual_ns": float(np.abs(residual).max()),
        }
        report.row(
            f"cost of observing, capture {capture}",
            f"{per_node:.1f} ns a node + {per_snapshot:.0f} ns a snapshot",
            "the same tree unobserved",
            f"{at_13:+.0f} ns at 13 nodes",
            f"≤ {NODE_NS:g} ns a node + {SNAPSHOT_NS:g} ns a snapshot",
            per_node <= NODE_NS and per_snapshot <= SNAPSHOT_NS if capture == "none" else None,
        )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
