"""The main job, timed: does `examples/grpo_digits.py` learn in time, and what does recording cost it?

    python bench/grpo_demo.py [--seeds 0 1 2] [--pairs 10] [--steps 150] [--out bench/results/grpo_demo.json]

1. One recorded run a seed, from scratch: the time until the held-out reward was above 0.9 twice in a row
   (gate: 60 s).
2. Pairs of runs of the same fixed work, one with and one without recording, in turns and each in a fresh
   process: the CPU time that recording adds on the training thread (gate: 2 %) and to the process (gate:
   10 %), as the mean of the pairs' relative differences with its 95 % confidence interval (Student's t). The
   process's CPU time includes the opening of the recorder, the drain and the wait until all is durable.
   On a machine that others use the whole thread's time is noisy; what the scoring part of it grows by (rubric
   calls, recording, logging: a tenth of the whole) is measured beside it and is the sharper figure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scipy.stats import t as student_t

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "grpo_digits.py"
BUDGET_S = 60.0
THREAD_GATE, PROCESS_GATE = 0.02, 0.10


def run(folder: Path, *options: str) -> dict[str, Any]:
    """One run of the example in a fresh process and a fresh database; its JSON figures."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, str(EXAMPLE), "--quiet", "--json", "--db", f"{place}/runs.db", *options]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def confidence(values: list[float]) -> tuple[float, float]:
    """The mean and the half width of its 95 % confidence interval."""
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values), float(student_t.ppf(0.975, len(values) - 1)) * spread


def time_to_target(folder: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Recorded runs from scratch, printed as a table."""
    print(
        f"{'seed':>4} {'reached':>8} {'wall s':>7} {'thread CPU s':>13} {'process CPU s':>14} {'steps':>6} "
        f"{'first':>6} {'last':>6} {'calls':>9} {'calls/s':>8}"
    )
    rows = []
    for seed in seeds:
        result = run(folder, "--seed", str(seed), "--budget-s", str(BUDGET_S))
        calls = sum(result["rubric_calls"].values())
        rewards = [reward for _, reward in result["evaluations"]]
        seconds, thread, process = (result[k] for k in ("seconds", "training_thread_cpu_s", "process_cpu_s"))
        print(
            f"{seed:>4} {result['reached']!s:>8} {seconds:>7.1f} {thread:>13.1f} {process:>14.1f} "
            f"{result['steps']:>6} {rewards[0]:>6.3f} {rewards[-1]:>6.3f} {calls:>9,} "
            f"{calls / seconds:>8,.0f}",
            flush=True,
        )
        rows.append(result)
    return rows


def cost_of_recording(folder: Path, pairs: int, steps: int) -> dict[str, Any]:
    """Interleaved pairs of equal work with and without recording; relative differences of CPU time."""
    thread: list[float] = []
    process: list[float] = []
    scoring: list[float] = []
    rate: list[float] = []
    for pair in range(pairs):
        options = ("--steps", str(steps), "--seed", str(pair))
        results: dict[bool, dict[str, Any]] = {}
        for recorded in (True, False) if pair % 2 == 0 else (False, True):
            results[recorded] = run(folder, *options, *(() if recorded else ("--no-record",)))
        on, off = results[True], results[False]
        if on["reward_mean"] != off["reward_mean"] or on["evaluations"] != off["evaluations"]:
            raise RuntimeError(
                f"pair {pair}: recording changed the training itself, so the work is not the same"
            )
        if on["recorder"]["durable"] != on["recorder"]["accepted"] or on["recorder"]["dropped"]:
            raise RuntimeError(f"pair {pair}: not everything was recorded: {on['recorder']}")
        thread.append(on["training_thread_cpu_s"] / off["training_thread_cpu_s"] - 1)
        process.append(on["process_cpu_s"] / off["process_cpu_s"] - 1)
        scoring.append((on["scoring_cpu_s"] - off["scoring_cpu_s"]) / off["training_thread_cpu_s"])
        rate.append(sum(on["rubric_calls"].values()) / on["training_thread_cpu_s"])
        print(
            f"pair {pair:>2}: training thread {off['training_thread_cpu_s']:.2f} → "
            f"{on['training_thread_cpu_s']:.2f} s ({thread[-1]:+.1%}), process "
            f"{off['process_cpu_s']:.2f} → {on['process_cpu_s']:.2f} s ({process[-1]:+.1%}), scoring alone "
            f"{scoring[-1]:+.2%} of the thread",
            flush=True,
        )
    return {
        "pairs": pairs,
        "steps": steps,
        "rubric_calls_per_cpu_s": statistics.fmean(rate),
        "thread": thread,
        "process": process,
        "scoring": scoring,
        "thread_mean_ci": confidence(thread),
        "process_mean_ci": confidence(process),
        "scoring_mean_ci": confidence(scoring),
    }


def main() -> int:
    """Run both parts; the exit code is 1 where a gate is missed for certain."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--pairs", type=int, default=10, help="pairs of runs; 0 leaves that part out")
    parser.add_argument("--steps", type=int, default=150, help="training steps of a run in a pair")
    parser.add_argument(
        "--folder", type=Path, help="where the databases are written (the system's temporary folder)"
    )
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    args = parser.parse_args()
    if args.pairs == 1:
        parser.error("--pairs must be 0 or at least 2: one pair has no confidence interval")
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_before": os.getloadavg(),
    }
    missed: list[str] = []
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="grpo-demo-") as name:
        folder = Path(name)
        if args.seeds:
            figures["time_to_target"] = time_to_target(folder, args.seeds)
            for row in figures["time_to_target"]:
                if not (row["reached"] and row["seconds"] <= BUDGET_S and row["evaluations"][0][1] < 0.1):
                    missed.append(f"seed {row['seed']}: from below 0.1 to above 0.9 within {BUDGET_S:g} s")
        if args.pairs:
            cost = figures["cost_of_recording"] = cost_of_recording(folder, args.pairs, args.steps)
            print(
                f"recording, at {cost['rubric_calls_per_cpu_s']:,.0f} rubric calls a second of the training "
                f"thread's CPU time, {args.pairs} pairs:"
            )
            for what, gate in (("thread", THREAD_GATE), ("scoring", THREAD_GATE), ("process", PROCESS_GATE)):
                mean, half = cost[f"{what}_mean_ci"]
                # An interval around the gate says that the machine was too noisy, not which side is true.
                verdict = "met" if mean + half <= gate else "missed" if mean - half > gate else "undecided"
                print(f"  {what:>7} CPU {mean:+.2%} ± {half:.2%} (95 %; gate {gate:+.0%}): {verdict}")
                if verdict == "missed":
                    missed.append(f"{what} CPU of recording at most {gate:.0%}")
    for miss in missed:
        print(f"MISSED: {miss}")
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
