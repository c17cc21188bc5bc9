"""How many lines a second go into a JSONL file, and what does the caller pay?

The peer is orjson with a flush after every line, the usual way to lose little at a crash: a lean line
(step, time and 15 scores) and one with all that our line holds. rubriscope: a Python loop calls an observed
15-node tree, never far ahead of the sink; counted is what is durable when ``flush()`` has returned. What
the caller pays: the thread's time for an observed call less the same tree's plain call, against dumping,
writing and flushing a line.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import rubriscope as rs
from measure import (
    Report,
    caller,
    cpu_wait_s,
    drive,
    duration,
    options,
    rate,
    scratch,
    time_in_turns,
    version,
)
from peers import tree, varying_leaf

ACTION, OBSERVATION = "the model's answer", "the question"
PATHS = ["root", *(name for name, _ in tree(rs, 2, 5).named_rubrics())]


class OrjsonLines:
    """orjson, one write and one flush a line."""

    def __init__(self, path: Path, full: dict[str, Any] | None) -> None:
        self._file = path.open("wb")
        self._line = full or {}
        rng = random.Random(7)
        self._values = [[rng.random() for _ in PATHS] for _ in range(1000)]
        self._step = 0

    def log(self, n: int) -> None:
        """Writes ``n`` lines."""
        write, flush, dumps, line = self._file.write, self._file.flush, orjson.dumps, self._line
        clock = time.time_ns
        values = itertools.cycle(self._values)
        for step, scores in zip(range(self._step, self._step + n), values, strict=False):
            named = dict(zip(PATHS, scores, strict=True))
            write(dumps({**line, "step": step, "time_ns": clock(), "scores": named}) + b"\n")
            flush()
        self._step += n

    def drive(self, seconds: float) -> tuple[int, float]:
        """Writes for ``seconds``; returns lines and seconds."""
        first, begin = self._step, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            self.log(1000)
        return self._step - first, time.perf_counter() - begin

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def a_line(place: Path) -> dict[str, Any]:
    """One of our own lines, for the peer to write all of it."""
    with rs.record(place / "one.jsonl", session="bench") as recorder:
        rubric = tree(rs, 2, 5, varying_leaf)
        recorder.observe(rubric)
        rubric(ACTION, OBSERVATION)
    lines = [json.loads(line) for line in (place / "one.jsonl").read_text().splitlines()]
    return next(line for line in lines if line["kind"] == "snapshot")


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    args = options(__doc__).parse_args()
    report = Report("jsonl_lines", "how many lines a second into JSONL, and what does the caller pay?", args)
    report.peers["orjson"] = version("orjson")
    turns, seconds = (7, 0.4) if args.quick else (7, 2.0)
    with (
        scratch(args.folder) as place,
        rs.record(place / "ours.jsonl", session="bench") as recorder,
        rs.record(place / "call.jsonl", session="bench") as for_calls,
    ):
        full = a_line(place)
        lean_lines = OrjsonLines(place / "lean.jsonl", None)
        full_lines = OrjsonLines(place / "full.jsonl", full)
        rubric = tree(rs, 2, 5, varying_leaf)
        recorder.observe(rubric)
        loop = caller(rubric, ACTION, OBSERVATION)
        writers: dict[str, Callable[[float], tuple[int, float]]] = {
            "rubriscope": lambda s: drive(recorder, loop, s),
            "orjson, lean line": lean_lines.drive,
            "orjson, our line": full_lines.drive,
        }
        rates: dict[str, list[float]] = {name: [] for name in writers}
        net: dict[str, list[float]] = {name: [] for name in writers}  # lines/s, less waiting for a CPU
        drain_ns: list[float] = []
        names = list(writers)
        for turn in range(turns):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                cpu = time.process_time_ns() - time.thread_time_ns()
                wait = cpu_wait_s(name == "rubriscope")
                count, spent = writers[name](seconds)
                rates[name].append(count / spent)
                net[name].append(count / (spent - cpu_wait_s(name == "rubriscope") + wait))
                if name == "rubriscope":
                    drain_ns.append((time.process_time_ns() - time.thread_time_ns() - cpu) / count)
        recorder.close()

        observed = tree(rs, 2, 5, varying_leaf)
        for_calls.observe(observed)
        timings = time_in_turns(
            {
                "plain": caller(tree(rs, 2, 5, varying_leaf), ACTION, OBSERVATION),
                "observed": caller(observed, ACTION, OBSERVATION),
                "orjson, lean line": lean_lines.log,
            },
            repetitions=7 if args.quick else 21,
            repetition_ms=10 if args.quick else 20,
            after={"observed": for_calls.flush},
        )
        lean_lines.close()
        full_lines.close()
    for name, got in rates.items():
        print(
            f"  {name:<28} {statistics.median(got):>10,.0f} lines/s   "
            f"{statistics.median(net[name]):,.0f} net of its thread's waiting for a CPU"
        )
    print(f"  the drain's CPU {statistics.median(drain_ns):,.0f} ns a line")
    report.timings(timings)
    report.data |= {"lines_per_s": rates, "net_lines_per_s": net}
    report.data |= {"drain_cpu_ns_a_line": drain_ns, "our_line": full}
    ours, lean, same = (statistics.median(rates[name]) for name in names)
    own, others, _ = (statistics.median(net[name]) for name in names)
    report.row(
        "JSONL, 15 scores a line",
        rate(ours, "lines"),
        f"orjson flushed per line {rate(lean, 'lines')} (all that our line holds: {rate(same, 'lines')})",
        f"{ours / lean:.2f}× ({ours / same:.2f}×); net of waiting for a CPU {own / others:.2f}×",
        "≥ 1×",
        ours >= lean,
    )
    added = report.ns(timings["observed"]) - report.ns(timings["plain"])
    dump = report.ns(timings["orjson, lean line"])
    report.row(
        "what the caller pays for it",
        f"{duration(added)} a call more than unobserved",
        f"orjson {duration(dump)}",
        f"1/{dump / added:.0f}",
        "no JSON, no write",
        None,
    )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
