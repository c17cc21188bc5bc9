"""What does the ledger cost, and how fast is it verified?

Recording: a Python loop calls an observed 15-node tree, once with a signed ledger and once without, in turns
with `executemany` (15 rows a step) as in `sqlite_durable.py`; counted is what is committed with
``synchronous=FULL``, from the first call until ``flush()`` returned. Verifying: one thread reads everything
again, by CPU time. The bare tree: `cpp/ledger_bench.cpp`, against SHA-256 alone of the same bytes. An
inclusion proof is read from the database on disk, at random places, caches as they come; its log is one of
10 million records of a single rubric.
"""

from __future__ import annotations

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import rubriscope as rs
from measure import Report, caller, cpu_wait_s, drive, duration, options, rate, scratch
from native import run
from peers import tree, varying_leaf
from rubriscope import ledger
from sqlite_durable import ExecuteMany

ACTION, OBSERVATION = "the model's answer", "the question"


def record(path: Path, with_ledger: bool, seconds: float) -> tuple[float, float, float]:
    """Records for ``seconds``; returns steps a second, all threads' CPU seconds a step, and steps a second of
    the time in which the drain did not wait for a CPU."""
    with rs.record(path, session="bench", ledger=with_ledger) as recorder:
        rubric = tree(rs, 2, 5, varying_leaf)
        recorder.observe(rubric, capture="none")
        call = caller(rubric, ACTION, OBSERVATION)
        drive(recorder, call, 0.2)
        cpu, wait = time.process_time(), cpu_wait_s(drain=True)
        steps, taken = drive(recorder, call, seconds)
        net = taken - cpu_wait_s(drain=True) + wait
        return steps / taken, (time.process_time() - cpu) / steps, steps / net


def record_many(path: Path, rubric: Any, count: int) -> None:
    """Records ``count`` calls, never far ahead of the drain."""
    with rs.record(path, session="many") as recorder:
        recorder.observe(rubric, capture="none")
        call = caller(rubric, ACTION, OBSERVATION)
        for _ in range(count // 50_000):
            call(50_000)
            recorder.flush(600)


def verify(report: Report, path: Path) -> None:
    """Reads everything again, in one thread."""
    begin = time.thread_time()
    (verdict,) = ledger.verify(path)
    taken = time.thread_time() - begin
    if verdict.problem:
        raise RuntimeError(verdict.problem)
    report.row(
        f"verify {verdict.records:,} records, one core",
        rate(verdict.records / taken, "records"),
        "",
        duration(taken / verdict.records * 1e9) + " a record",
        "≥ 500k/s",
        verdict.records / taken >= 500e3,
    )


def prove(report: Report, path: Path) -> None:
    """Inclusion proofs of 200 entries, read from disk."""
    log = rs.Ledger(path)
    size, root = log.size, log.root()
    times = []
    for index in random.Random(7).sample(range(size), 200):
        entry = log.entry(index)
        before = time.perf_counter_ns()
        proof = log.inclusion_proof(index, size)
        times.append(time.perf_counter_ns() - before)
        if not rs.verify_inclusion(entry, index, size, proof, root):
            raise RuntimeError(f"the proof of entry {index} does not hold")
    report.data["proof_ns"] = times
    report.row(
        f"inclusion proof from {size:,} entries, p50 / p99",
        f"{duration(statistics.median(times))} / {duration(sorted(times)[197])}",
        "",
        "",
        "≤ 1 ms",
        statistics.median(times) <= 1e6,
    )


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--programs", type=Path, default=Path("build/bench/bin"), help="the C++ benchmarks")
    args = parser.parse_args()
    report = Report("ledger", "what does the ledger cost?", args)
    turns, seconds, verified, proved = (
        (3, 1.0, 200_000, 1_000_000) if args.quick else (9, 3.0, 1_000_000, 10_000_000)
    )

    bare = run(args.programs / "bench_ledger_bench", "200000", "512", str(turns))
    share = bare["tree_per_s"] / bare["sha256_per_s"]
    report.row(
        "ledger append, 512 B records, one core, in memory",
        rate(bare["tree_per_s"], "records"),
        f"SHA-256 alone {rate(bare['sha256_per_s'], 'records')}",
        f"{share:.0%}",
        "≥ 70 %",
        share >= 0.70,
    )
    report.data["bare"] = bare

    on: list[tuple[float, float, float]] = []
    off: list[tuple[float, float, float]] = []
    peer: list[float] = []
    with scratch(args.folder) as place:
        executemany = ExecuteMany(place / "peer.db", as_json=False)
        for turn in range(turns):
            for name in (("on", "off", "peer"), ("peer", "off", "on"))[turn % 2]:
                if name == "peer":
                    steps, taken = executemany.drive(seconds)
                    peer.append(steps / taken)
                else:
                    path = place / f"{name}{turn}.db"
                    (on if name == "on" else off).append(record(path, name == "on", seconds))
                    path.unlink()
        executemany.close()
        report.data["recording"] = {"on": on, "off": off, "executemany": peer}
        with_it, without, rows = (
            statistics.median(r for r, _, _ in on),
            statistics.median(r for r, _, _ in off),
            statistics.median(peer),
        )
        cpu = statistics.median(c for _, c, _ in on) / statistics.median(c for _, c, _ in off)
        net = statistics.median(n for _, _, n in off) / statistics.median(n for _, _, n in on)
        report.row(
            "durable append with a signed ledger, 15 scores a step",
            rate(with_it, "steps"),
            f"without {rate(without, 'steps')}, executemany, 15 rows {rate(rows, 'steps')}",
            f"{without / with_it:.2f}× the time (less waiting for a CPU {net:.2f}×; CPU time {cpu:.2f}×), "
            f"{with_it / rows:.1f}× executemany",
            "≥ 100k/s, ≤ 1.22× the time, ≥ 4× executemany",
            with_it >= 100e3 and without / with_it <= 1.22 and with_it / rows >= 4,
        )

        path = place / "many.db"
        record_many(path, tree(rs, 2, 5, varying_leaf), verified)
        verify(report, path)
        path.unlink()
        record_many(path, rs.native.ExactMatch(), proved)
        prove(report, path)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
