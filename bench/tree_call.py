"""What does one call of a 13-node tree cost, plain and observed, against OpenEnv?

The tree is a WeightedSum of 3 gates over WeightedSums of 2 constant Python leaves. Observed means a
recorder with a SQLite database and its drain running; OpenEnv's counterpart is a pre and a forward hook on
every node, both empty, which records nothing. After each repetition the recorder is flushed, untimed.
"""

from __future__ import annotations

import sys

import rubriscope as rs
from measure import Report, caller, duration, nothing, options, scratch, time_in_turns
from peers import OpenEnv, tree

ACTION, OBSERVATION = "the model's answer", "the question"


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("tree_call", "what does a call of a 13-node tree cost?", args)
    openenv = OpenEnv()
    report.peers["openenv-core"] = openenv.version

    hooked = tree(openenv)
    for node in (hooked, *hooked.rubrics()):
        node.register_forward_pre_hook(lambda rubric, action, observation: None)
        node.register_forward_hook(lambda rubric, action, observation, score: None)
    text, none = tree(rs), tree(rs)
    with (
        scratch(args.folder) as place,
        rs.record(place / "text.db", session="bench") as with_text,
        rs.record(place / "none.db", session="bench") as without,
    ):
        with_text.observe(text)
        without.observe(none, capture="none")
        timings = time_in_turns(
            {
                "empty function": caller(nothing, ACTION, OBSERVATION),
                "rubriscope": caller(tree(rs), ACTION, OBSERVATION),
                "rubriscope observed": caller(text, ACTION, OBSERVATION),
                "rubriscope observed, capture none": caller(none, ACTION, OBSERVATION),
                "OpenEnv": caller(tree(openenv), ACTION, OBSERVATION),
                "OpenEnv hooked": caller(hooked, ACTION, OBSERVATION),
            },
            repetitions=7 if args.quick else 21,
            repetition_ms=10 if args.quick else 30,
            after={
                "rubriscope observed": with_text.flush,
                "rubriscope observed, capture none": without.flush,
            },
        )
        for recorder in (with_text, without):
            stats = recorder.stats()
            if stats.dropped or stats.durable != stats.accepted:
                raise RuntimeError(f"not everything was recorded: {stats}")
    report.timings(timings)

    plain, peer = report.ns(timings["rubriscope"]), report.ns(timings["OpenEnv"])
    report.row(
        "13-node tree, plain",
        duration(plain),
        f"OpenEnv {duration(peer)}",
        f"1/{peer / plain:.0f}",
        "≤ 1/40",
        plain <= peer / 40,
    )
    observed, peer = report.ns(timings["rubriscope observed"]), report.ns(timings["OpenEnv hooked"])
    lean = report.ns(timings["rubriscope observed, capture none"])
    report.row(
        "13-node tree, observed into a recorder",
        f"{duration(observed)} ({duration(lean)} without captures)",
        f"OpenEnv with hooks {duration(peer)}",
        f"1/{peer / observed:.0f}",
        "≤ 1/30",
        observed <= peer / 30,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
