"""What every benchmark here shares: the machine, interleaved timing, results as JSON and as a table.

A script makes a :class:`Report`, adds rows, and calls :meth:`Report.finish`. Timings are taken in turns
(each repetition runs every case once, in rotating order), so that a change of the machine's speed meets all
alike; wall time and the thread's CPU time are taken together. Nothing is subtracted from a timing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
BUSY_LIMIT = 0.10  #: share of the CPUs that others may use before a machine counts as not idle

Runner = Callable[[int], None]


# ---- the machine


def cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cpu_ticks() -> tuple[int, int, int]:
    """Ticks of all CPUs since boot: idle, stolen by the hypervisor, all."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return fields[3] + fields[4], fields[7], sum(fields[:8])


def busy_share(seconds: float = 0.5) -> float:
    """The share of all CPUs in use while this process sleeps for ``seconds``."""
    idle, _, total = _cpu_ticks()
    time.sleep(seconds)
    idle_after, _, total_after = _cpu_ticks()
    return 1 - (idle_after - idle) / max(total_after - total, 1)


def version(distribution: str) -> str | None:
    """The installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def rubriscope_version() -> str:
    """The version under test, with its git commit where there is one."""
    import rubriscope

    git = ["git", "-C", str(HERE.parent)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout
    dirty = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
    )
    return f"{rubriscope.__version__} {commit.strip()}{'+' if dirty.stdout else ''}".strip()


def machine() -> dict[str, Any]:
    """Describes where the figures come from; ``busy`` is the share of the CPUs others use right now."""
    busy = busy_share()
    return {
        "name": platform.node(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "os": platform.freedesktop_os_release().get("PRETTY_NAME", platform.system()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "sqlite": sqlite3.sqlite_version,
        "rubriscope": rubriscope_version(),
        "load_average": os.getloadavg(),
        "busy": busy,
        "idle": busy <= BUSY_LIMIT,
    }


def machine_line(described: Mapping[str, Any]) -> str:
    """The machine in one line, for beside a table."""
    return (
        f"{described['cpu']}, {described['cores']} cores, {described['os']} (Linux {described['kernel']}), "
        f"Python {described['python']}, torch {described['torch']}, SQLite {described['sqlite']}, "
        f"rubriscope {described['rubriscope']}; load {described['load_average'][0]:.2f} at the start"
    )


def results_folder(described: Mapping[str, Any]) -> Path:
    """Where this machine's results of today go."""
    name = "".join(c if c.isalnum() else "-" for c in str(described["cpu"]).lower()).strip("-")
    return RESULTS / f"{name}-{described['cores']}c-{datetime.date.today().isoformat()}"


# ---- timing


@dataclass
class Timing:
    """One case's repetitions, in ns a call."""

    calls: int  #: calls in a repetition
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  #: of the calling thread


def caller(call: Callable[..., Any], *args: Any) -> Runner:
    """A loop over ``call(*args)``. It has a code object of its own, so that CPython's inline caches are not
    shared, and spoiled, between cases."""
    lines = [
        "def run(n):",
        "    for _ in repeat(None, n):",
        f"        call({', '.join(f'a{i}' for i in range(len(args)))})",
    ]
    head = f"def make(call, repeat{''.join(f', a{i}' for i in range(len(args)))}):\n    "
    space: dict[str, Any] = {}
    exec(head + "\n    ".join(lines) + "\n    return run", space)
    runner: Runner = space["make"](call, repeat, *args)
    return runner


def time_in_turns(
    cases: Mapping[str, Runner],
    *,
    repetitions: int,
    repetition_ms: float = 20.0,
    after: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Timing]:
    """Times every case, ``repetitions`` times in turns.

    Args:
        cases: Name → a function that makes ``n`` calls.
        repetitions: How often each case is timed.
        repetition_ms: How long one timing lasts, about; decides how many calls it makes.
        after: Name → what is done after each timing of that case, untimed (a recorder's flush).
    """
    after = after or {}
    timings: dict[str, Timing] = {}
    for name, run in cases.items():
        run(200)
        calls = 200
        while True:
            # By CPU time: other work on the machine must not make the repetitions shorter.
            begin = time.thread_time_ns()
            run(calls)
            spent = time.thread_time_ns() - begin
            if name in after:
                after[name]()
            if spent > repetition_ms * 1e6 / 4:
                break
            calls *= 2
        timings[name] = Timing(max(int(calls * repetition_ms * 1e6 / spent), 1))
    names = list(cases)
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for turn in range(repetitions):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                run, timing = cases[name], timings[name]
                cpu, wall = time.thread_time_ns(), time.perf_counter_ns()
                run(timing.calls)
                wall, cpu = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
                timing.wall.append(wall / timing.calls)
                timing.cpu.append(cpu / timing.calls)
                if name in after:
                    after[name]()
    finally:
        if enabled:
            gc.enable()
    return timings


def nothing(action: object, observation: object) -> None:
    """The call that costs least: what the timing loop itself takes."""


# ---- results


@dataclass
class Row:
    """One line of the table. ``met`` is None where there is no target."""

    figure: str
    ours: str
    peer: str
    found: str
    target: str
    met: bool | None


class Report:
    """One script's results."""

    def __init__(self, name: str, question: str, options: argparse.Namespace) -> None:
        self.name = name
        self.quick: bool = options.quick
        self.machine = machine()
        # On a busy machine wall time measures the others.
        self.basis = "wall" if self.machine["idle"] else "cpu"
        self.rows: list[Row] = []
        self.data: dict[str, Any] = {}
        self.peers: dict[str, str | None] = {}
        self.document: dict[str, Any] = {}  #: what finish() wrote
        self._question = question
        self._out: Path = options.out if options.out is not None else results_folder(self.machine)
        self._begin = time.monotonic()
        self._ticks = _cpu_ticks()
        print(f"# {name}: {question}\n{machine_line(self.machine)}", flush=True)
        if not self.machine["idle"]:
            print(
                f"WARNING: the machine is not idle ({self.machine['busy']:.0%} of its CPUs are in use): "
                "calls are compared by the thread's CPU time, and throughputs and latencies are of no use",
                file=sys.stderr,
                flush=True,
            )

    @property
    def path(self) -> Path:
        """The JSON file."""
        return self._out / f"{self.name}.json"

    def row(self, figure: str, ours: str, peer: str, found: str, target: str, met: bool | None) -> None:
        """Adds a line to the table."""
        self.rows.append(Row(figure, ours, peer, found, target, None if met is None else bool(met)))

    def timings(self, timings: Mapping[str, Timing]) -> None:
        """Keeps all repetitions, and prints the medians."""
        self.data["basis"] = self.basis
        for name, timing in timings.items():
            wall, cpu = statistics.median(timing.wall), statistics.median(timing.cpu)
            self.data.setdefault("timings_ns", {})[name] = {
                "calls": timing.calls,
                "median_wall": wall,
                "median_cpu": cpu,
                "wall": timing.wall,
                "cpu": timing.cpu,
            }
            print(
                f"  {name:<42} {wall:>10.1f} ns wall {cpu:>10.1f} ns CPU   "
                f"({len(timing.wall)} × {timing.calls} calls)",
                flush=True,
            )

    def series(self, timing: Timing) -> list[float]:
        """A case's repetitions on this report's basis, ns a call."""
        return timing.wall if self.basis == "wall" else timing.cpu

    def ns(self, timing: Timing) -> float:
        """A case's median on this report's basis, ns a call."""
        return statistics.median(self.series(timing))

    def finish(self) -> int:
        """Writes the JSON file and prints the table; returns 1 where a target was missed, else 0."""
        idle, stolen, total = (b - a for a, b in zip(self._ticks, _cpu_ticks(), strict=True))
        del idle
        self._out.mkdir(parents=True, exist_ok=True)
        path = self.path
        document = {
            "name": self.name,
            "question": self._question,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "seconds": round(time.monotonic() - self._begin, 1),
            "stolen_share": stolen / max(total, 1),
            "machine": self.machine,
            "peers": self.peers,
            "rows": [asdict(row) for row in self.rows],
            "data": self.data,
        }
        path.write_text(json.dumps(document, indent=1) + "\n")
        self.document = document
        print("\n" + table(self.rows) + f"\n\n{path}", flush=True)
        return 1 if any(row.met is False for row in self.rows) else 0


def table(rows: list[Row]) -> str:
    """The rows as a markdown table."""
    mark = {True: "yes", False: "**no**", None: ""}
    lines = [
        "| figure | rubriscope | peers, same run | found | target | met |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [f"| {r.figure} | {r.ours} | {r.peer} | {r.found} | {r.target} | {mark[r.met]} |" for r in rows]
    return "\n".join(lines)


def options(description: str | None) -> argparse.ArgumentParser:
    """The options every script has."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short runs, to try the script out")
    parser.add_argument("--out", type=Path, help="folder for the JSON file (bench/results/<machine>-<date>)")
    parser.add_argument("--folder", type=Path, help="where databases are written (the temporary folder)")
    return parser


@contextlib.contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """An empty folder on a disk, removed afterwards."""
    place = Path(tempfile.mkdtemp(prefix="rubriscope-bench-", dir=folder))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def duration(ns: float) -> str:
    """A time with a unit and three digits."""
    for limit, factor, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if ns < limit:
            return f"{ns / factor:.3g} {unit}" if ns / factor < 100 else f"{ns / factor:.0f} {unit}"
    return f"{ns / 1e9:.3g} s"


def rate(per_second: float, what: str) -> str:
    """A rate with three digits."""
    if per_second >= 1e6:
        return f"{per_second / 1e6:.3g}M {what}/s"
    return f"{per_second / 1e3:.3g}k {what}/s" if per_second >= 1000 else f"{per_second:.0f} {what}/s"


# ---- throughput


def cpu_wait_s(drain: bool) -> float:
    """How long a thread was ready to run but had no CPU, so far: the drain's, or the calling one. Less this,
    a throughput is nearly what an idle machine would give."""
    if not drain:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    waits = 0
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() == "rubriscope":
            waits += int((task / "schedstat").read_text().split()[1])
    return waits / 1e9


def drive(recorder: Any, call: Runner, seconds: float, ahead: int = 200_000) -> tuple[int, float]:
    """Calls an observed rubric for ``seconds``, at most ``ahead`` records before the sinks, and flushes.

    Returns:
        How many records became durable, and the time from the first call until the last was durable, s.
    """
    before = recorder.stats()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        call(10_000)
        while recorder.stats().pending > ahead:
            time.sleep(0.001)
    recorder.flush(600)
    spent = time.perf_counter() - begin
    stats = recorder.stats()
    if stats.dropped or stats.durable != stats.accepted:
        raise RuntimeError(f"not everything was recorded: {stats}")
    return stats.durable - before.durable, spent
