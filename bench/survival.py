"""How much of what was accepted is there after ``SIGKILL``?

Steps are 1 ms apart; the process dies at a random time.

A child logs a step of 15 figures every millisecond and, after each call has returned, counts it in shared
memory: that is *accepted*. The parent kills the child (only the training process: W&B's helper process
lives on and may finish), waits until nothing is written any more, and counts the steps that can be read.
For rubriscope the target is recovered as its user would, by `rubriscope recover`; each step must be there
exactly once and in order.

Peers as they come: W&B offline; OpenTelemetry's batch span processor with default settings and an exporter
that appends to a file; MLflow with ``synchronous=False`` into its SQLite store.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from measure import Report, options, scratch, version
from peers import tree, varying_leaf

NAMES = [f"score_{i}" for i in range(15)]
PERIOD_S = 0.001


# ---- the child: accepts a step every millisecond until it is killed


def _loop(accept: Callable[[int], object], counter: mmap.mmap) -> None:
    step, due = 0, time.perf_counter()
    while True:
        accept(step)
        step += 1
        struct.pack_into("<q", counter, 0, step)
        due += PERIOD_S
        time.sleep(max(due - time.perf_counter(), 0))


def _values(step: int) -> dict[str, float]:
    return {name: 0.001 * step + i for i, name in enumerate(NAMES)}


def child_rubriscope(place: Path, counter: mmap.mmap) -> None:
    """An observed 15-node tree."""
    import rubriscope as rs

    recorder = rs.record(place / "runs.db", session="bench")
    rubric = tree(rs, 2, 5, varying_leaf)
    recorder.observe(rubric)
    _loop(lambda step: rubric("the model's answer", "the question"), counter)


def child_wandb(place: Path, counter: mmap.mmap) -> None:
    """W&B offline, a log a step."""
    import wandb

    run = wandb.init(
        project="bench", dir=str(place), mode="offline", settings=wandb.Settings(silent=True, console="off")
    )
    _loop(lambda step: run.log(_values(step), step=step), counter)


def child_otel(place: Path, counter: mmap.mmap) -> None:
    """A span a step through the batch span processor."""
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class FileExporter(SpanExporter):
        """Appends a line a span, flushed: the fastest and safest of exporters."""

        def __init__(self) -> None:
            self._file = (place / "spans.jsonl").open("a")

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            for span in spans:
                self._file.write(json.dumps({"step": span.attributes["step"]}) + "\n")  # type: ignore[index]
            self._file.flush()
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(FileExporter()))
    tracer = provider.get_tracer("bench")

    def accept(step: int) -> None:
        with tracer.start_as_current_span("step", attributes={"step": step, **_values(step)}):
            pass

    _loop(accept, counter)


def child_mlflow(place: Path, counter: mmap.mmap) -> None:
    """MLflow's asynchronous logging, a log_metrics a step."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    mlflow.start_run()
    _loop(lambda step: mlflow.log_metrics(_values(step), step=step, synchronous=False), counter)


# ---- the parent: what is there afterwards


def read_rubriscope(place: Path) -> list[int]:
    """Steps in the database after `rubriscope recover`, in the order of their sequence."""
    program = "import sys; from rubriscope.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "recover", str(place / "runs.db")]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"rubriscope recover exited with {done.returncode}: {done.stderr or done.stdout}")
    with sqlite3.connect(place / "runs.db") as db:
        return [step for (step,) in db.execute("SELECT step_index FROM steps ORDER BY step_key")]


def _leveldb_log(path: Path) -> Iterator[bytes]:
    """Records of a `.wandb` file: LevelDB's log format in blocks of 32 KiB, after a header of 7 bytes."""
    data = path.read_bytes()
    at, parts = 7, bytearray()
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 0 or at + 7 + length > len(data):
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield bytes(parts)
            parts.clear()


def read_wandb(place: Path) -> list[int]:
    """Steps in the offline run's file."""
    from wandb.proto import wandb_internal_pb2

    steps = []
    for path in place.rglob("*.wandb"):
        for payload in _leveldb_log(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            if record.WhichOneof("record_type") == "history":
                for item in record.history.item:
                    if item.key == "_step" or list(item.nested_key) == ["_step"]:
                        steps.append(int(float(item.value_json)))
    return steps


def read_otel(place: Path) -> list[int]:
    """Steps whose span was exported."""
    path = place / "spans.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def read_mlflow(place: Path) -> list[int]:
    """Steps with all 15 metrics in the store."""
    with sqlite3.connect(place / "mlflow.db") as db:
        found = db.execute("SELECT step FROM metrics GROUP BY step HAVING count(*) = ?", (len(NAMES),))
        return [step for (step,) in found]


KINDS: dict[str, tuple[str, str, Callable[[Path, mmap.mmap], None], Callable[[Path], list[int]]]] = {
    "rubriscope": ("rubriscope", "torch", child_rubriscope, read_rubriscope),
    "wandb": ("W&B offline", "wandb", child_wandb, read_wandb),
    "otel": ("OTel batch", "opentelemetry-sdk", child_otel, read_otel),
    "mlflow": ("MLflow async", "mlflow-skinny", child_mlflow, read_mlflow),
}


def _settled(place: Path, quiet_s: float = 1.0, limit_s: float = 30.0) -> None:
    """Waits until no file of ``place`` has changed for a while: a helper process may still be writing."""
    begin = changed = time.monotonic()
    seen: dict[str, tuple[int, int]] = {}
    while time.monotonic() - changed < quiet_s:
        if time.monotonic() - begin > limit_s:
            raise TimeoutError(f"files in {place} still change {limit_s:g} s after the kill")
        now = {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in place.rglob("*") if p.is_file()}
        if now != seen:
            seen, changed = now, time.monotonic()
        time.sleep(0.1)


def kill_once(kind: str, place: Path, life_s: float) -> tuple[int, int]:
    """Lets a child log for ``life_s``, kills it; returns steps accepted and steps that are there."""
    with (place / "accepted").open("wb+") as file:
        file.truncate(8)
        with mmap.mmap(file.fileno(), 8) as counter:
            environment = {
                **os.environ,
                "WANDB_SILENT": "true",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
            }
            log = place / "child.log"
            with log.open("wb") as output:
                child = subprocess.Popen(
                    [sys.executable, __file__, "--child", kind, "--folder", str(place)],
                    stdout=output,
                    stderr=output,
                    env=environment,
                )
                try:
                    limit = time.monotonic() + 120
                    while struct.unpack_from("<q", counter)[0] == 0:
                        if child.poll() is not None or time.monotonic() > limit:
                            raise RuntimeError(f"the {kind} child did not start: {log.read_text()[-2000:]}")
                        time.sleep(0.01)
                    time.sleep(life_s)
                finally:
                    child.send_signal(signal.SIGKILL)
                    child.wait()
            accepted: int = struct.unpack_from("<q", counter)[0]
    if child.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the {kind} child ended by itself: {log.read_text()[-2000:]}")
    if kind != "rubriscope":
        _settled(place)
    steps = KINDS[kind][3](place)
    if kind == "rubriscope" and steps != list(range(len(steps))):
        raise RuntimeError(
            f"steps are missing inside, twice or out of order after a kill: {len(steps)} found"
        )
    # A step that was complete but not yet counted when the kill came is no loss and no gain.
    return accepted, len({step for step in steps if step < accepted})


def run(args: argparse.Namespace) -> int:
    """Measures and reports; the exit code is 1 where a target is missed."""
    report = Report("survival", "how much of what was accepted is there after SIGKILL?", args)
    kills = 2 if args.quick else 7
    rng = random.Random(7)
    results: dict[str, list[tuple[int, int]]] = {}
    for turn in range(kills):
        life = rng.uniform(0.5, 1.0) if args.quick else rng.uniform(1.0, 3.0)
        for kind, (title, distribution, *_) in KINDS.items():
            if version(distribution) is None:
                if turn == 0:
                    print(f"  {title} is not installed (pip install {distribution}): left out", flush=True)
                continue
            with scratch(args.folder) as place:
                results.setdefault(kind, []).append(kill_once(kind, place, life))
    report.data = {"kills": kills, "accepted_and_found": results}
    shares: dict[str, Any] = {}
    for kind, counts in results.items():
        accepted, found = (sum(column) for column in zip(*counts, strict=True))
        shares[kind] = found / accepted
        each = ", ".join(f"{there / gave:.0%}" for gave, there in counts)
        print(f"  {KINDS[kind][0]:<14} {found}/{accepted} of {kills} kills ({each})", flush=True)
        report.peers[KINDS[kind][1]] = version(KINDS[kind][1])
    report.row(
        f"survival of SIGKILL, steps 1 ms apart, {kills} kills",
        f"{sum(found for _, found in results['rubriscope'])} of {sum(a for a, _ in results['rubriscope'])}",
        ", ".join(f"{KINDS[k][0]} {share:.0%}" for k, share in shares.items() if k != "rubriscope"),
        "each once and in order",
        "100 %",
        shares["rubriscope"] == 1.0,
    )
    return report.finish()


def main() -> int:
    """Run it, or be one of its children."""
    parser = options(__doc__)
    parser.add_argument("--child", choices=list(KINDS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        with (args.folder / "accepted").open("rb+") as file, mmap.mmap(file.fileno(), 8) as counter:
            KINDS[args.child][2](args.folder, counter)
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
