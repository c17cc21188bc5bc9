"""Runs every benchmark, each in a process of its own, and writes the table for the README.

    python bench/run_all.py [--quick] [--only NAME …] [--native build/bench/bin] [--readme]

Takes about 16 minutes on 2 cores, 5 with ``--quick``. The results are
bench/results/<machine>-<date>/<name>.json and bench/results/TABLE.md; a quick or a partial run leaves the
latter as it is. ``--readme`` puts the table between the bench marks of README.md, too. The exit code is 1
where a target was missed, 2 where a script failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import HERE, RESULTS, Row, machine, machine_line, options, results_folder, table

SCRIPTS = (
    "tree_call",
    "leaf_call",
    "observing",
    "latency",
    "path_lookup",
    "sqlite_durable",
    "postgres",
    "jsonl_lines",
    "survival",
    "grpo_demo",
    "memory",
    "kernels",
    "native",
    "ledger",
    "vault",
    "sight",
    "tracing",
    "many_ranks",
    "first_light",
)
#: These need the C++ benchmarks' programs.
NATIVE = ("native", "ledger", "vault")
#: The demo's own benchmark has options of its own.
GRPO_OPTIONS = ("--seeds", "0", "--pairs", "10", "--steps", "100")
GRPO_QUICK = ("--seeds", "--pairs", "2", "--steps", "20")


def grpo_rows(figures: dict[str, Any]) -> list[Row]:
    """The demo's figures as rows of the table."""
    cost = figures["cost_of_recording"]
    (thread, thread_half), (process, process_half) = cost["thread_mean_ci"], cost["process_mean_ci"]
    scoring, scoring_half = cost["scoring_mean_ci"]

    def judge(mean: float, half: float, gate: float) -> tuple[str, bool | None]:
        if mean + half <= gate:
            return "", True
        return ("", False) if mean - half > gate else ("undecided: the interval holds the target", None)

    by_thread, by_process = judge(thread, thread_half, 0.02), judge(process, process_half, 0.10)
    return [
        Row(
            f"cost of recording in the demo, training thread's CPU, {cost['pairs']} pairs",
            f"{thread:+.1%} ± {thread_half:.1%} (scoring part alone {scoring:+.2%} ± {scoring_half:.2%})",
            "the same run unrecorded",
            f"at {cost['rubric_calls_per_cpu_s']:,.0f} rubric calls/s; {by_thread[0]}".removesuffix("; "),
            "≤ 2 %",
            by_thread[1],
        ),
        Row(
            "the same, whole process with the drain",
            f"{process:+.1%} ± {process_half:.1%}",
            "the same run unrecorded",
            by_process[0],
            "≤ 10 %",
            by_process[1],
        ),
    ]


def run_one(name: str, args: argparse.Namespace, out: Path) -> tuple[list[Row], bool]:
    """Runs one script; returns its rows and whether it got to its end."""
    command = [sys.executable, str(HERE / f"{name}.py")]
    folder = () if args.folder is None else ("--folder", str(args.folder))
    path = out / f"{name}.json"
    if name == "grpo_demo":
        out.mkdir(parents=True, exist_ok=True)
        command += [*(GRPO_QUICK if args.quick else GRPO_OPTIONS), *folder, "--out", str(path)]
    else:
        command += [*(("--quick",) if args.quick else ()), *folder, "--out", str(out)]
    if name in NATIVE:
        command += ["--programs", str(args.native)]
    path.unlink(missing_ok=True)
    done = subprocess.run(command)
    if done.returncode not in (0, 1) or not path.exists():
        print(f"FAILED: {name} exited with {done.returncode}", file=sys.stderr, flush=True)
        return [], False
    document = json.loads(path.read_text())
    if name == "grpo_demo":
        return grpo_rows(document), True
    return [Row(**row) for row in document["rows"]], True


def write_readme(text: str) -> None:
    """Replaces what stands between the marks ``<!-- bench:begin -->`` and ``<!-- bench:end -->``."""
    path = HERE.parent / "README.md"
    begin, end = "<!-- bench:begin -->", "<!-- bench:end -->"
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{path} holds no {begin} … {end} to put the table between")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")


def main() -> int:
    """Run all of them, or those named."""
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, metavar="NAME", help=f"of {', '.join(SCRIPTS)}")
    parser.add_argument("--native", type=Path, help="folder of the C++ benchmarks' programs")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md, too")
    args = parser.parse_args()
    described = machine()
    out: Path = args.out if args.out is not None else results_folder(described)
    begin = time.monotonic()
    rows: list[Row] = []
    failed: list[str] = []
    scripts = args.only or [name for name in SCRIPTS if name not in NATIVE or args.native is not None]
    for name in scripts:
        print(
            f"\n{'=' * 20} {name} ({time.monotonic() - begin:.0f} s, load {os.getloadavg()[0]:.1f})",
            flush=True,
        )
        got, finished = run_one(name, args, out)
        rows += got
        failed += [] if finished else [name]
    caption = f"Measured {time.strftime('%Y-%m-%d')} on {machine_line(described)}."
    if not described["idle"]:
        caption += f" The machine was not idle ({described['busy']:.0%} of its CPUs in use)."
    text = f"{table(rows)}\n\n{caption}\n"
    print(f"\n{text}\n{time.monotonic() - begin:.0f} s in all", flush=True)
    missed = [row.figure for row in rows if row.met is False]
    for figure in missed:
        print(f"MISSED: {figure}")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
        return 2
    if not args.quick and not args.only:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "TABLE.md").write_text(text)
        if args.readme:
            write_readme(text)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
