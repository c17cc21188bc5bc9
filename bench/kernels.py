"""How fast are the operators, against the libraries people use for the same thing?

Every row goes through the torch operator, with the same threads, dtype and data as its peers, timed in turns;
the figure is the median of the process's CPU time a call on the CPU (all threads together), of the wall time
between two synchronisations on a GPU. A row is met by its target, or by 70 % of the machine's own limit for
it (copy or read bandwidth, FMA peak), measured in the same run. The rows are in `kernel_rows/`.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measure import Report, Row, duration, machine_line, options, table, version

FAMILIES = ("hausdorff", "masks", "stencils", "pinn", "stats", "watch")
LIMIT_SHARE = 0.70  #: of the machine's own limit, where a row is met too

Call = Callable[[], Any]


@dataclass
class Seconds:
    """One case: what a call took, by repetition, in seconds."""

    cpu: list[float]
    wall: list[float]


class KernelBench:
    """What a family's ``rows`` gets."""

    def __init__(self, report: Report, device: torch.device, quick: bool) -> None:
        self.report = report
        self.device = device
        self.quick = quick
        self.threads = torch.get_num_threads()
        #: A generator for the data: every run of the benchmark has the same.
        self.generator = torch.Generator().manual_seed(20261120)

    # -- timing

    def _once(self, call: Call, calls: int) -> tuple[float, float]:
        self._synchronise()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call()
        self._synchronise()
        return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def time(
        self, cases: Mapping[str, Call], *, repetitions: int = 15, repetition_s: float = 0.05
    ) -> dict[str, Seconds]:
        """Times every case in turns.

        Args:
            cases: Name → a call without arguments. Each is called once beforehand, untimed.
            repetitions: How often each case is timed; at most 3 for a case that takes over 2 s.
            repetition_s: How long one timing lasts, about; a slower case is called once.
        """
        if self.quick:
            repetitions = min(repetitions, 3)
        found = {name: Seconds([], []) for name in cases}
        calls, most = {}, {}
        for name, call in cases.items():
            call()
            _, wall = self._once(call, 1)
            calls[name] = max(1, int(repetition_s / max(wall, 1e-7)))
            most[name] = repetitions if wall < 2 else min(repetitions, 3)
        names = list(cases)
        gc.collect()
        gc.disable()
        try:
            for turn in range(repetitions):
                for name in names[turn % len(names) :] + names[: turn % len(names)]:
                    if len(found[name].cpu) < most[name]:
                        cpu, wall = self._once(cases[name], calls[name])
                        found[name].cpu.append(cpu)
                        found[name].wall.append(wall)
        finally:
            gc.enable()
        return found

    def seconds(self, timing: Seconds) -> float:
        """A case's median: process CPU time on the CPU, wall time on a GPU."""
        return statistics.median(timing.cpu if self.device.type == "cpu" else timing.wall)

    # -- the machine's limits, in the same units as seconds()

    def copy(self, read_bytes: int, written_bytes: int) -> Call:
        """A ``copy_`` that moves as many bytes in all: a row's limit, timed in turns with its cases."""
        count = max((read_bytes + written_bytes) // 8, 1)
        source = torch.zeros(count, device=self.device)
        target = torch.ones(count, device=self.device)
        return lambda: target.copy_(source)

    def matmul_seconds(self, flops: float, dtype: torch.dtype = torch.float32) -> float:
        """What so many floating-point operations take at the rate of a large matrix product."""
        n = 1024 if self.device.type == "cpu" else 8192
        a = torch.ones(n, n, device=self.device, dtype=dtype)
        timing = self.seconds(self.time({"matmul": lambda: a @ a})["matmul"])
        return timing * flops / (2.0 * n**3)

    # -- rows

    def row(
        self,
        figure: str,
        cases: Mapping[str, Call],
        targets: Mapping[str, float],
        *,
        ours: str = "rubriscope",
        limit: tuple[str, float | Call] | None = None,
        repetitions: int = 15,
    ) -> dict[str, float]:
        """Times the cases and adds one line to the table.

        Args:
            figure: What is computed, on what.
            cases: Name → call; one is named ``ours``, the others are peers.
            targets: Peer → how many times faster ours is to be. Peers without a target are shown only.
            limit: What bounds the row (``"copy bandwidth"``) and the seconds it takes at that bound, or a
                call that takes as long, timed in turns with the cases.

        Returns:
            Name → median seconds a call.
        """
        at_limit = {limit[0]: limit[1]} if limit is not None and callable(limit[1]) else {}
        timings = self.time({**cases, **at_limit}, repetitions=repetitions)
        medians = {name: self.seconds(timings[name]) for name in cases}
        mine = medians[ours]
        ratios = {name: value / mine for name, value in medians.items() if name != ours}
        met: bool | None = None
        if targets:
            met = all(ratios[peer] >= times for peer, times in targets.items())
        found = ", ".join(f"{ratio:.3g}× {name}" for name, ratio in ratios.items())
        target = ", ".join(f"{times:g}× {name}" for name, times in targets.items())
        if limit is not None:
            bound = self.seconds(timings[limit[0]]) if callable(limit[1]) else limit[1]
            share = bound / mine
            found += f"{', ' if found else ''}{share:.0%} of {limit[0]}"
            target += f"{' or ' if target else ''}{LIMIT_SHARE:.0%} of {limit[0]}"
            met = bool(met) or share >= LIMIT_SHARE
        peers = ", ".join(f"{name} {duration(v * 1e9)}" for name, v in medians.items() if name != ours)
        self.report.row(figure, duration(mine * 1e9), peers, found, target, met)
        self.report.data.setdefault("seconds", {})[figure] = {
            name: {"cpu": timing.cpu, "wall": timing.wall} for name, timing in timings.items()
        }
        judged = "" if met is None else "; met" if met else "; missed"
        print(f"  {figure}: {duration(mine * 1e9)}; {found}{judged}", flush=True)
        return medians

    def peer(self, distribution: str) -> None:
        """Names a peer's distribution and version in the results."""
        self.report.peers[distribution] = version(distribution)


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, default=list(FAMILIES), help="some families")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="torch's threads (all cores)")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    name = "kernels" if device.type == "cpu" else "kernels-cuda"
    report = Report(name, "how fast are the operators?", args)
    from rubriscope import _C

    report.data["threads"] = torch.get_num_threads()
    report.data["isa"] = _C.isa_name()
    if device.type == "cuda":
        report.data["gpu"] = torch.cuda.get_device_name(device)
    bench = KernelBench(report, device, args.quick)
    for family in args.only:
        importlib.import_module(f"kernel_rows.{family}").rows(bench)
    code = report.finish()
    write_table(report.document, report.data.get("gpu"), report.path.with_suffix(".md"))
    return code


def write_table(document: Mapping[str, Any], gpu: str | None, path: Path) -> None:
    """The results as a Markdown page beside the JSON file."""
    rows = table([Row(**row) for row in document["rows"]])
    where = f"{gpu} in a machine with " if gpu else ""
    short = ", short runs (--quick)" if document["quick"] else ""
    line = machine_line(document["machine"])
    path.write_text(f"{rows}\n\nMeasured {document['date'][:10]}{short} on {where}{line}.\n")


if __name__ == "__main__":
    sys.exit(main())
