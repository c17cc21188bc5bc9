"""How late can an observed call be while the drain runs? p50, p99, p99.9 of a million and more calls.

Each call of the observed 13-node tree is timed by itself with ``perf_counter_ns`` on both sides; nothing is
subtracted: what an empty function and the unobserved tree give by the same means stands beside it, as the
timer's and the machine's own share. Calls are paced, so that the drain keeps up and works all the time on
the other core, and then made as fast as possible, when the journal grows.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable

import numpy as np
import rubriscope as rs
from measure import Report, duration, nothing, options, scratch
from peers import tree

ACTION, OBSERVATION = "the model's answer", "the question"
TARGET_NS = 2000.0
QUANTILES = (0.5, 0.99, 0.999, 0.9999)


def sample(call: Callable[[str, str], object], calls: int, period_ns: int) -> np.ndarray:
    """Wall times in ns, int64 of shape (calls,); a call starts every ``period_ns`` (0: at once)."""
    clock = time.perf_counter_ns
    spent = np.zeros(calls, dtype=np.int64)
    view = memoryview(spent)
    due = clock()
    for i in range(calls):
        while clock() < due:
            pass
        begin = clock()
        call(ACTION, OBSERVATION)
        end = clock()
        view[i] = end - begin
        due = (due if due + 100_000 > end else end) + period_ns
    return spent


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("latency", "how late can an observed call be while the drain runs?", args)
    calls, turns, per_second = (100_000, 1, 100_000) if args.quick else (200_000, 7, 100_000)
    period = 1_000_000_000 // per_second
    times: dict[str, list[np.ndarray]] = {}
    gc.collect()
    gc.disable()
    with scratch(args.folder) as place, rs.record(place / "runs.db", session="bench") as recorder:
        observed, plain = tree(rs), tree(rs)
        recorder.observe(observed)
        sample(observed, 20_000, period)
        for _ in range(turns):
            for name, call, pace in (
                ("empty function, paced", nothing, period),
                ("unobserved, paced", plain, period),
                ("observed, paced", observed, period),
                ("observed, at full speed", observed, 0),
            ):
                times.setdefault(name, []).append(sample(call, calls, pace))
                recorder.flush()
        stats = recorder.stats()
        if stats.dropped or stats.durable != stats.accepted:
            raise RuntimeError(f"not everything was recorded: {stats}")
    for name, parts in times.items():
        spent = np.concatenate(parts)
        quantiles = np.quantile(spent, QUANTILES)
        report.data[name] = {
            "calls": len(spent),
            **{f"p{100 * q:g}_ns": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
            "max_ns": int(spent.max()),
            "p99.9_ns_of_each_turn": [float(np.quantile(part, 0.999)) for part in parts],
        }
        print(
            f"  {name:<26} "
            + "  ".join(f"p{100 * q:g} {v:,.0f}" for q, v in zip(QUANTILES, quantiles, strict=True))
        )

    def figures(name: str) -> str:
        got = report.data[name]
        return " / ".join(duration(got[f"p{q}_ns"]) for q in ("50", "99", "99.9"))

    late = report.data["observed, paced"]["p99.9_ns"]
    report.row(
        f"latency of an observed call, p50 / p99 / p99.9, drain running, {per_second // 1000}k calls/s",
        figures("observed, paced"),
        f"unobserved {figures('unobserved, paced')}; timer alone {figures('empty function, paced')}",
        f"p99.9 {duration(late)}",
        f"p99.9 ≤ {duration(TARGET_NS)}",
        late <= TARGET_NS,
    )
    report.row(
        "the same, calls at full speed (the journal grows)",
        figures("observed, at full speed"),
        "",
        f"p99.9 {duration(report.data['observed, at full speed']['p99.9_ns'])}",
        "",
        None,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
