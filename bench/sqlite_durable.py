"""How many steps a second become durable in SQLite, 15 scores a step, against what others do?

rubriscope: a Python loop calls an observed 15-node tree, never far ahead of the sink; counted is what is
committed with ``synchronous=FULL``, from the first call until ``flush()`` returned; without a ledger, which
`ledger.py` measures. `executemany`: Python's sqlite3, WAL, transactions of 1000 steps, with SQLite's usual
``synchronous=NORMAL`` (which favours it); 15 rows a step, or one row with the scores as JSON. In turns, then
one long run of each.

MLflow, TensorBoard and W&B offline are timed on the caller's side: what they have accepted, durable or not.
Each is a step of 15 figures; they run in processes of their own (`--peer`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rubriscope as rs
from measure import Report, caller, cpu_wait_s, drive, options, rate, scratch, version
from peers import tree, varying_leaf

ACTION, OBSERVATION = "the model's answer", "the question"
PATHS = ["root", *(name for name, _ in tree(rs, 2, 5).named_rubrics())]
BATCH = 1000


class ExecuteMany:
    """sqlite3 as a careful user would write it."""

    def __init__(self, path: Path, as_json: bool, synchronous: str = "NORMAL") -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        self._db.execute("CREATE TABLE scores(step INTEGER, rubric TEXT, score REAL)")
        self._db.execute("CREATE TABLE steps(step INTEGER, scores TEXT)")
        self._write = self._json if as_json else self._rows
        self._step = 0
        rng = random.Random(7)
        self._values = [[rng.random() for _ in PATHS] for _ in range(BATCH)]

    def _rows(self, first: int) -> None:
        rows = [
            (step, path, score)
            for step, scores in enumerate(self._values, first)
            for path, score in zip(PATHS, scores, strict=True)
        ]
        self._db.executemany("INSERT INTO scores VALUES (?, ?, ?)", rows)

    def _json(self, first: int) -> None:
        import orjson

        rows = [
            (step, orjson.dumps(dict(zip(PATHS, scores, strict=True))))
            for step, scores in enumerate(self._values, first)
        ]
        self._db.executemany("INSERT INTO steps VALUES (?, ?)", rows)

    def drive(self, seconds: float) -> tuple[int, float]:
        """Writes for ``seconds``; returns steps committed and seconds."""
        first, begin = self._step, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            self._db.execute("BEGIN")
            self._write(self._step)
            self._db.execute("COMMIT")
            self._step += BATCH
        return self._step - first, time.perf_counter() - begin

    def close(self) -> None:
        """Closes the database."""
        self._db.close()


class Ours:
    """An observed 15-node tree called in a loop; its leaves' scores are random, as the peers' are."""

    def __init__(self, path: Path) -> None:
        self._recorder = rs.record(path, session="bench", ledger=False)
        rubric = tree(rs, 2, 5, varying_leaf)
        self._recorder.observe(rubric, capture="none")
        self._call = caller(rubric, ACTION, OBSERVATION)

    def drive(self, seconds: float) -> tuple[int, float]:
        """Records for ``seconds``; returns snapshots committed and seconds."""
        return drive(self._recorder, self._call, seconds)

    def close(self) -> None:
        """Closes the recorder."""
        self._recorder.close()


def backend_cpu_ns(name: str) -> int:
    """CPU time so far of what writes: the calling thread, for rubriscope all others."""
    own = time.thread_time_ns()
    return time.process_time_ns() - own if name == "rubriscope" else own


# ---- peers that run in a process of their own


def _logged(log: Callable[[int, dict[str, float]], object], seconds: float, turns: int) -> list[float]:
    """Steps a second of each turn."""
    values = {path: random.Random(7).random() for path in PATHS}
    rates, step = [], 0
    for _ in range(turns):
        begin, first = time.perf_counter(), step
        while time.perf_counter() - begin < seconds:
            log(step, values)
            step += 1
        rates.append((step - first) / (time.perf_counter() - begin))
    return rates


def mlflow_rate(place: Path, seconds: float, turns: int) -> list[float]:
    """MLflow into its SQLite store, a synchronous log_metrics a step."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    with mlflow.start_run():
        return _logged(lambda step, values: mlflow.log_metrics(values, step=step), seconds, turns)


def tensorboard_rate(place: Path, seconds: float, turns: int) -> list[float]:
    """TensorBoard's SummaryWriter, an add_scalar a figure."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(place)) as writer:

        def log(step: int, values: dict[str, float]) -> None:
            for path, value in values.items():
                writer.add_scalar(path, value, step)

        return _logged(log, seconds, turns)


def wandb_rate(place: Path, seconds: float, turns: int) -> list[float]:
    """W&B offline, a log a step."""
    import wandb

    run = wandb.init(
        project="bench", dir=str(place), mode="offline", settings=wandb.Settings(silent=True, console="off")
    )
    rates = _logged(lambda step, values: run.log(values, step=step), seconds, turns)
    run.finish()
    return rates


PEERS: dict[str, tuple[str, str, Callable[[Path, float, int], list[float]]]] = {
    "mlflow": ("MLflow", "mlflow-skinny", mlflow_rate),
    "tensorboard": ("TensorBoard", "tensorboard", tensorboard_rate),
    "wandb": ("W&B offline", "wandb", wandb_rate),
}


def peer_rates(name: str, place: Path, seconds: float, turns: int) -> list[float] | None:
    """A peer's steps a second, measured in a fresh process; None where it is not installed."""
    if version(PEERS[name][1]) is None:
        print(f"  {PEERS[name][0]} is not installed (pip install {PEERS[name][1]}): left out", flush=True)
        return None
    command = [
        sys.executable,
        __file__,
        "--peer",
        name,
        "--folder",
        str(place),
        "--peer-time",
        str(seconds),
        str(turns),
    ]
    environment = {
        **os.environ,
        "WANDB_SILENT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr[-2000:]}")
    rates: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return rates


def run(args: argparse.Namespace) -> int:
    """Measures and reports; the exit code is 1 where a target is missed."""
    report = Report("sqlite_durable", "how many steps a second become durable in SQLite?", args)
    turns, seconds, long_run, peer_s = (7, 0.5, 3.0, 0.2) if args.quick else (7, 2.0, 20.0, 1.0)
    kinds: dict[str, Callable[[Path], Any]] = {
        "rubriscope": Ours,
        "executemany, 15 rows": lambda path: ExecuteMany(path, as_json=False),
        "executemany, one JSON row": lambda path: ExecuteMany(path, as_json=True),
        "executemany, 15 rows, FULL": lambda path: ExecuteMany(path, as_json=False, synchronous="FULL"),
    }
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    cpu_ns: dict[str, list[float]] = {name: [] for name in kinds}
    net: dict[str, list[float]] = {name: [] for name in kinds}  # steps/s, less waiting for a CPU
    sustained: dict[str, float] = {}
    with scratch(args.folder) as place:
        writers = {name: make(place / f"{i}.db") for i, (name, make) in enumerate(kinds.items())}
        names = list(writers)
        for turn in range(turns):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                cpu, wait = backend_cpu_ns(name), cpu_wait_s(name == "rubriscope")
                count, spent = writers[name].drive(seconds)
                rates[name].append(count / spent)
                cpu_ns[name].append((backend_cpu_ns(name) - cpu) / count)
                net[name].append(count / (spent - cpu_wait_s(name == "rubriscope") + wait))
        for writer in writers.values():
            writer.close()
    for name in ("rubriscope", "executemany, 15 rows"):
        with scratch(args.folder) as place:
            writer = kinds[name](place / "long.db")
            count, spent = writer.drive(long_run)
            sustained[name] = count / spent
            writer.close()
            report.data[f"bytes a step, {name}"] = (place / "long.db").stat().st_size / count
    for name, got in rates.items():
        print(
            f"  {name:<28} {statistics.median(got):>10,.0f} steps/s   "
            f"{statistics.median(cpu_ns[name]) / 1e3:.2f} µs of the writing thread's CPU a step   "
            f"{statistics.median(net[name]):,.0f} steps/s net of its waiting for a CPU"
        )
    report.data |= {"steps_per_s": rates, "writer_cpu_ns_a_step": cpu_ns, "net_steps_per_s": net}
    report.data |= {"sustained_steps_per_s": sustained, "sustained_s": long_run}

    ours = statistics.median(rates["rubriscope"])
    own = statistics.median(net["rubriscope"])
    for name in list(kinds)[1:]:
        peer = statistics.median(rates[name])
        judged = name == "executemany, 15 rows"
        met = min(ours / peer, sustained["rubriscope"] / sustained[name]) >= 5 if judged else None
        shown = f"{rate(ours, 'steps')} (sustained {long_run:g} s: {rate(sustained['rubriscope'], 'steps')})"
        beside = f" (sustained: {rate(sustained[name], 'steps')})" if judged else ""
        report.row(
            "accepted → durable in SQLite, 15 scores a snapshot",
            shown,
            f"{name} {rate(peer, 'steps')}{beside}",
            f"{ours / peer:.1f}×"
            + (f", sustained {sustained['rubriscope'] / sustained[name]:.1f}×" if judged else "")
            + f"; net of waiting for a CPU {own / statistics.median(net[name]):.1f}×",
            "≥ 5×" if judged else "",
            met,
        )
    for name, (title, distribution, _) in PEERS.items():
        with scratch(args.folder) as place:
            got = peer_rates(name, place, peer_s, turns)
        report.peers[distribution] = version(distribution)
        if got is not None:
            peer = statistics.median(got)
            report.data.setdefault("peer_steps_per_s", {})[title] = got
            report.row(
                "the same, steps logged (not durable there)",
                rate(ours, "steps"),
                f"{title} {rate(peer, 'steps')}",
                f"{ours / peer:.0f}×",
                "",
                None,
            )
    return report.finish()


def main() -> int:
    """Run it, or one peer of it."""
    parser = options(__doc__)
    parser.add_argument("--peer", choices=list(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--peer-time", nargs=2, type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        rates = PEERS[args.peer][2](args.folder, args.peer_time[0], int(args.peer_time[1]))
        print("\n" + json.dumps(rates))
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
