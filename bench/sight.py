"""What does a sight point cost a call, recorded and disabled?

The peers wrap the same empty function in the same run: a decorator that does nothing, and one that takes two
clocks and appends to a list. "Recorded" has a recorder open and no more; the calls are timed with the CPU
time of the calling thread, and the recorder is flushed between repetitions. "In a trace" runs the same point
in a context with an open trace of MultimodalTracer, so that every record has two ids more; "with a price" has
tokens and a cost, which are added up.
"""

from __future__ import annotations

import contextvars
import functools
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import rubriscope as rs
from measure import Report, caller, nothing, options, scratch, time_in_turns

ON_RATIO, OFF_RATIO = 0.8, 1.3


def no_op(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that only calls."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def two_clocks(function: Callable[..., Any], kept: list[tuple[int, int]]) -> Callable[..., Any]:
    """A decorator that keeps begin and end of every call."""
    clock = time.perf_counter_ns

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin = clock()
        result = function(*args, **kwargs)
        kept.append((begin, clock()))
        return result

    return wrapper


def injected(first: object, second: object) -> None:
    """Does nothing, and is instrumented while it runs."""


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("sight", "what does a sight point cost a call?", args)
    kept: list[tuple[int, int]] = []
    with ExitStack() as stack:
        place = stack.enter_context(scratch(args.folder))
        recorder = stack.enter_context(rs.record(place / "sight.jsonl", session="bench"))
        on = rs.sight_point(name="on", modality="simulation")(nothing)
        full = rs.sight_point(
            name="full", modality="simulation", metrics=["latency_ms"], conditions={"threshold": 1e9}
        )(nothing)
        priced = rs.sight_point(
            name="priced", modality="text_generation", token_count=100, price=rs.TokenPrice(2.0, per=1e6)
        )(nothing)
        traced = contextvars.copy_context()
        traced.run(rs.MultimodalTracer().start_trace, "bench")
        in_trace = caller(on, "a", "b")
        off = rs.sight_point(name="off", modality="simulation")(nothing)
        rs.get_code_sight().disable("off")
        rs.get_code_sight().inject_metric(f"{__name__}:injected", "execution_time_ms", 1e9)
        cases = {
            "plain": caller(nothing, "a", "b"),
            "no-op decorator": caller(no_op(nothing), "a", "b"),
            "two clocks and a list": caller(two_clocks(nothing, kept), "a", "b"),
            "disabled": caller(off, "a", "b"),
            "recorded": caller(on, "a", "b"),
            "recorded with a condition": caller(full, "a", "b"),
            "injected": caller(injected, "a", "b"),
            "recorded with a price": caller(priced, "a", "b"),
            "recorded in a trace": lambda n: traced.run(in_trace, n),
        }
        timings = time_in_turns(
            cases,
            repetitions=7 if args.quick else 21,
            repetition_ms=5 if args.quick else 20,
            after={
                "recorded": recorder.flush,
                "recorded with a condition": recorder.flush,
                "injected": recorder.flush,
                "recorded with a price": recorder.flush,
                "recorded in a trace": recorder.flush,
                "two clocks and a list": kept.clear,
            },
        )
        stats = recorder.stats()
        if stats.dropped or stats.durable != stats.accepted:
            raise RuntimeError(f"not everything was recorded: {stats}")
    report.timings(timings)
    ns = {name: report.ns(timing) for name, timing in timings.items()}
    for name, peer, target in (
        ("recorded", "two clocks and a list", ON_RATIO),
        ("recorded with a condition", "two clocks and a list", None),
        ("injected", "two clocks and a list", None),
        ("recorded with a price", "two clocks and a list", None),
        ("recorded in a trace", "two clocks and a list", None),
        ("disabled", "no-op decorator", OFF_RATIO),
    ):
        ratio = ns[name] / ns[peer]
        report.row(
            f"sight point, {name}",
            f"{ns[name]:.0f} ns",
            f"{peer}: {ns[peer]:.0f} ns",
            f"{ratio:.2f} of it",
            f"≤ {target:g}" if target is not None else "",
            ratio <= target if target is not None else None,
        )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
