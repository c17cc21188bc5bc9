"""What does ``get_rubric`` cost at depth 3, against OpenEnv?"""

from __future__ import annotations

import sys

import rubriscope as rs
from measure import Report, caller, duration, options, time_in_turns
from peers import OpenEnv, tree

PATH = "rubric_2.rubric.rubric_1"


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("path_lookup", "what does get_rubric cost at depth 3?", args)
    openenv = OpenEnv()
    report.peers["openenv-core"] = openenv.version
    timings = time_in_turns(
        {
            "rubriscope": caller(tree(rs).get_rubric, PATH),
            "OpenEnv": caller(tree(openenv).get_rubric, PATH),
        },
        repetitions=7 if args.quick else 31,
        repetition_ms=10 if args.quick else 20,
    )
    report.timings(timings)
    ours, peer = report.ns(timings["rubriscope"]), report.ns(timings["OpenEnv"])
    report.row(
        "`get_rubric` at depth 3",
        duration(ours),
        f"OpenEnv {duration(peer)}",
        f"1/{peer / ours:.1f}",
        "≤ 1/3",
        ours <= peer / 3,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
