"""What does a call of one leaf cost, against OpenEnv and against the best pure Python?

All leaves return a constant from a Python ``forward``. The pure-Python ones are in `peers.py`: they look
whether there are hooks, call ``forward`` and keep ``last_score``; the fastest of them counts.
"""

from __future__ import annotations

import sys

import rubriscope as rs
from measure import Report, caller, duration, nothing, options, time_in_turns
from peers import PURE_PYTHON_LEAVES, OpenEnv, constant_leaf

ACTION, OBSERVATION = "the model's answer", "the question"


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("leaf_call", "what does a leaf's call cost?", args)
    openenv = OpenEnv()
    report.peers["openenv-core"] = openenv.version
    leaves = {
        "rubriscope": constant_leaf(rs.Rubric)(),
        "OpenEnv": constant_leaf(openenv.Rubric)(),
        **{f"pure Python: {kind.__name__}": kind() for kind in PURE_PYTHON_LEAVES},
    }
    timings = time_in_turns(
        {
            "empty function": caller(nothing, ACTION, OBSERVATION),
            **{name: caller(leaf, ACTION, OBSERVATION) for name, leaf in leaves.items()},
        },
        repetitions=7 if args.quick else 31,
        repetition_ms=10 if args.quick else 20,
    )
    report.timings(timings)
    ours, peer = report.ns(timings["rubriscope"]), report.ns(timings["OpenEnv"])
    best, name = min((report.ns(t), name) for name, t in timings.items() if name.startswith("pure Python"))
    report.row(
        "leaf call",
        duration(ours),
        f"OpenEnv {duration(peer)}",
        f"1/{peer / ours:.1f}",
        "≤ 1/12",
        ours <= peer / 12,
    )
    report.row(
        "leaf call",
        duration(ours),
        f"best pure Python {duration(best)}",
        f"{ours / best:.2f}",
        "≤ 0.6",
        ours <= 0.6 * best,
    )
    report.data["best_pure_python"] = name
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
