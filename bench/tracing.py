"""Spans: what one costs, recorded and while the tracer is off, beside OpenTelemetry, viztracer and stdlib
logging; how fast a trace file is read, beside jq (apt-get install jq); and that reading one of any size needs
the same memory.

python bench/tracing.py [--quick] [--gib 1] [--memory-gib 2]

The files are made in the temporary folder (or --folder) and removed. viztracer owns the interpreter's profile
function, so it runs in a process of its own, by the same thread's CPU time.
"""

from __future__ import annotations

import json
import logging
import random
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import rubriscope as rs
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rubriscope import _C
from rubriscope.targets import TraceSink
from rubriscope.tracer import _switch

Runner = Callable[[int], None]


class Drop(SpanExporter):
    """Exports nowhere: what is left is the SDK."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS


class Lines(SpanExporter):
    """One JSON object a line, as OpenTelemetry's own console exporter writes it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def export(self, spans: Any) -> SpanExportResult:
        for span in spans:
            self._file.write(span.to_json(indent=None) + "\n")
        self._file.flush()
        return SpanExportResult.SUCCESS


def ours(count: int) -> None:
    """The span of the origin's memory manager."""
    span = rs.tracer.span
    for _ in range(count):
        with span("mem", "write", "manager.py", "altitude.session"):
            pass


def ours_off(count: int) -> None:
    """The same with the tracer off. Code of its own: CPython's inline caches are not shared."""
    span = rs.tracer.span
    for _ in range(count):
        with span("mem", "write", "manager.py", "altitude.session"):
            pass


def ours_with_output(count: int) -> None:
    """The same with its output and metadata."""
    span = rs.tracer.span
    for _ in range(count):
        with span("mem", "write", "manager.py", "altitude.session") as ctx:
            ctx.set_output("written", tokens_saved=45)


def theirs(tracer: Any) -> Runner:
    """The same span as OpenTelemetry's users write it."""

    def run(count: int) -> None:
        start = tracer.start_as_current_span
        for _ in range(count):
            with start("mem.write", attributes={"component": "manager.py", "input": "altitude.session"}):
                pass

    return run


def stdlib(path: Path) -> Runner:
    """The origin's way: a JSON line through logging.FileHandler, without its span."""
    logger = logging.getLogger("bench.trace")
    logger.propagate = False
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def run(count: int) -> None:
        for number in range(count):
            logger.info(json.dumps({"trace_id": number, "operation": "write", "component": "manager.py"}))

    return run


def spans(report: measure.Report, folder: Path) -> None:
    """What a span costs its caller."""
    batch, none = TracerProvider(), TracerProvider()
    batch.add_span_processor(BatchSpanProcessor(Drop(), max_queue_size=1 << 20))
    to_lines = TracerProvider()
    to_lines.add_span_processor(BatchSpanProcessor(Lines(folder / "otel.jsonl"), max_queue_size=1 << 20))

    recorder = _switch._open([TraceSink(folder / "trace.jsonl")], 1 << 30)

    def on(run: Runner) -> Runner:
        def call(count: int) -> None:
            _C._trace_configure(True, 1, recorder._native)
            run(count)
            _C._trace_configure(False, 1, None)

        return call

    cases: dict[str, Runner] = {
        "rubriscope, to trace.jsonl": on(ours),
        "rubriscope, with output and metadata": on(ours_with_output),
        "rubriscope, off": ours_off,
        "OpenTelemetry SDK, batch": theirs(batch.get_tracer("bench")),
        "OpenTelemetry SDK, no processor": theirs(none.get_tracer("bench")),
        "OpenTelemetry SDK, batch to JSON lines": theirs(to_lines.get_tracer("bench")),
        "OpenTelemetry API only": theirs(otel.NoOpTracerProvider().get_tracer("bench")),
        "stdlib logging of a JSON line": stdlib(folder / "logging.jsonl"),
    }
    quiet = dict.fromkeys(cases, lambda: recorder.flush(60))
    found = measure.time_in_turns(
        cases, repetitions=5 if report.quick else 25, repetition_ms=20 if report.quick else 60, after=quiet
    )
    report.timings(found)
    ns = {name: report.ns(timing) for name, timing in found.items()}
    stats = recorder.stats()
    recorder.close()
    if stats.dropped:
        raise RuntimeError(f"spans were refused: {stats}")
    on_ns, off_ns = ns["rubriscope, to trace.jsonl"], ns["rubriscope, off"]
    with_output = ns["rubriscope, with output and metadata"]
    sdk, api = ns["OpenTelemetry SDK, batch"], ns["OpenTelemetry API only"]
    lines, plain = ns["OpenTelemetry SDK, batch to JSON lines"], ns["stdlib logging of a JSON line"]
    report.row(
        "span recorded", measure.duration(on_ns), f"OTel SDK batch {measure.duration(sdk)}",
        f"1/{sdk / on_ns:.1f}", "at most 1/40", on_ns <= sdk / 40,
    )  # fmt: skip
    viztracer(report, statistics.median(found["rubriscope, to trace.jsonl"].cpu))
    report.row(
        "tracer off, `with span`", measure.duration(off_ns), f"OTel API only {measure.duration(api)}",
        f"1/{api / off_ns:.1f}", "at most 1/30", off_ns <= api / 30,
    )  # fmt: skip
    report.row(
        "`trace.jsonl`, the caller",
        f"{measure.duration(on_ns)}; with output {measure.duration(with_output)}",
        f"OTel to JSONL {measure.duration(lines)}; logging {measure.duration(plain)}",
        measure.duration(with_output), "at most 0.7 µs", with_output <= 700,
    )  # fmt: skip


VIZTRACER = """
import json, sys, time
from viztracer import VizTracer

tracer = VizTracer(verbose=0)

def nothing():
    pass

def event(count):
    for _ in range(count):
        with tracer.log_event("mem.write"):
            pass

def call(count):
    for _ in range(count):
        nothing()

calls = int(sys.argv[1])
found = {"log_event": [], "a traced call": []}
for _ in range(int(sys.argv[2])):
    for name, run in (("log_event", event), ("a traced call", call)):
        tracer.start()
        before = time.thread_time_ns()
        run(calls)
        spent = time.thread_time_ns() - before
        tracer.stop()
        tracer.clear()
        found[name].append(spent / calls)
print(json.dumps(found))
"""


def viztracer(report: measure.Report, ours_ns: float) -> None:
    """What viztracer takes for a span that carries a name alone, and for a call it traces by itself."""
    done = subprocess.run(
        [sys.executable, "-c", VIZTRACER, "50000", "5" if report.quick else "25"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = {name: statistics.median(times) for name, times in json.loads(done.stdout).items()}
    report.data["viztracer_ns"] = json.loads(done.stdout)
    named = found["log_event"]
    report.row(
        "span recorded", measure.duration(ours_ns),
        "viztracer " + ", ".join(f"{name} {measure.duration(ns)}" for name, ns in found.items()),
        f"1/{named / ours_ns:.1f}" if ours_ns <= named else f"{ours_ns / named:.1f}×", "", None,
    )  # fmt: skip


KILLED = """
import os, signal, sys
import rubriscope as rs
rs.tracer.enable(sys.argv[1])
for i in range(int(sys.argv[2])):
    with rs.tracer.span("mem", "write", "manager.py", str(i)):
        pass
os.kill(os.getpid(), signal.SIGKILL)
"""


def survival(report: measure.Report, folder: Path) -> None:
    """What is there after a kill and a recovery."""
    count, path = 20_000 if report.quick else 200_000, folder / "killed.jsonl"
    subprocess.run([sys.executable, "-c", KILLED, str(path), str(count)])
    subprocess.run(
        [sys.executable, "-m", "rubriscope", "recover", str(path)], check=True, capture_output=True
    )
    with path.open() as file:
        there = len({json.loads(line)["input_summary"] for line in file})
    report.data["survival"] = {"spans": count, "there": there}
    report.row(
        "`trace.jsonl` after SIGKILL and `recover`", f"{there:,} of {count:,}", "", f"{there / count:.0%}",
        "100 %", there == count,
    )  # fmt: skip


def write_file(path: Path, gib: float) -> int:
    """A trace file of spans that differ, repeated to the size wanted; returns its bytes."""
    dice = random.Random(1)
    lines = []
    for number in range(20_000):
        event = {
            "trace_id": f"mem_{1705180800 + number}_{dice.getrandbits(64):016x}",
            "parent_id": None
            if number % 5 == 0
            else f"alt_{1705180800 + number}_{dice.getrandbits(64):016x}",
            "timestamp": f"2026-01-13T14:{number // 60 % 60:02}:{number % 60:02}.{number:06}+00:00",
            "hrm_layer": dice.choice(["altitude", "focus", "reasoning", "learning", "memory"]),
            "operation": dice.choice(["transition", "gate_check", "write", "read"]),
            "component": "manager.py",
            "input_summary": "altitude.session → " + "x" * dice.randrange(60),
            "output_summary": "written",
            "duration_ms": round(dice.lognormvariate(0, 2), 6),
            "status": dice.choices(["success", "error", "blocked"], [98, 1, 1])[0],
            "metadata": {"tokens_saved": dice.randrange(100), "tier": "warm"},
        }
        lines.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
    block = "".join(lines).encode()
    with path.open("wb") as file:
        while file.tell() < gib * 2**30:
            file.write(block)
        return file.tell()


JQ_STATS = """reduce inputs as $e ({}; .[$e.hrm_layer] |= {n: (.n + 1), ms: (.ms + $e.duration_ms),
errors: (.errors + (if $e.status == "error" then 1 else 0 end))})"""


def timed(command: list[str]) -> tuple[float, float, str]:
    """A command's wall and CPU time, s, and its output."""
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - wall, cpu, done.stdout


def reading(report: measure.Report, folder: Path, gib: float) -> None:
    """Statistics and a filtered view of a large file; answers are compared."""
    if shutil.which("jq") is None:
        raise RuntimeError("jq is not installed: apt-get install jq")
    path = folder / "large.jsonl"
    size = write_file(path, gib)
    ours = [sys.executable, "-m", "rubriscope", "trace"]
    pairs = {
        "stats": ([*ours, "stats", str(path), "--json"], ["jq", "-n", JQ_STATS, str(path)]),
        "view of the blocked of a layer": (
            [*ours, "view", str(path), "--last", "0", "--hrm", "memory", "--status", "blocked", "--json"],
            ["jq", "-c", 'select(.hrm_layer == "memory" and .status == "blocked")', str(path)],
        ),
    }
    for name, (mine, peer) in pairs.items():
        my_wall, my_cpu, my_answer = timed(mine)
        jq_wall, jq_cpu, jq_answer = timed(peer)
        if name == "stats":
            found, expected = json.loads(my_answer)["layers"], json.loads(jq_answer)
            same = {n: (f["operations"], f["errors"]) for n, f in found.items()} == {
                n: (f["n"], f["errors"]) for n, f in expected.items()
            }
        else:
            same = sorted(map(json.loads, my_answer.splitlines()), key=str) == sorted(
                map(json.loads, jq_answer.splitlines()), key=str
            )
        if not same:
            raise RuntimeError(f"{name}: jq has another answer")
        ratio = jq_wall / my_wall if report.basis == "wall" else jq_cpu / my_cpu
        report.data[name] = {
            "bytes": size, "wall_s": my_wall, "cpu_s": my_cpu, "jq_wall_s": jq_wall, "jq_cpu_s": jq_cpu,
        }  # fmt: skip
        report.row(
            f"{name}, {size / 2**30:.2g} GiB", f"{my_wall:.2f} s ({my_cpu:.2f} s CPU)",
            f"jq {jq_wall:.1f} s ({jq_cpu:.1f} s CPU)", f"{ratio:.1f}×", "at least 5×", ratio >= 5,
        )  # fmt: skip
    path.unlink()


#: A view holds 10,000 of the events it shows at once.
HELD_MIB = 16

MEASURED = """
import sys
from rubriscope.cli import main
code = main(sys.argv[1:])
# Not getrusage(): that also counts the process that started this one.
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(code)
"""


def memory(report: measure.Report, folder: Path, gib: float) -> None:
    """The command line's peak resident set over a file of 1/16 of the size and over the whole one.

    Raises:
        RuntimeError: it grows by more than what is held at once.
    """
    path = folder / "memory.jsonl"
    commands = {
        "stats": ["stats", str(path), "--json"],
        "view --last 100": ["view", str(path)],
        "view of all that are blocked": ["view", str(path), "--last", "0", "--status", "blocked", "--json"],
    }
    peaks: dict[str, list[float]] = {name: [] for name in commands}
    sizes = [write_file(path, gib / 16)]
    for turn in range(2):
        if turn == 1:
            sizes.append(write_file(path, gib))
        for name, command in commands.items():
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, "trace", *command],
                check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            peaks[name].append(int(done.stderr.splitlines()[-1]) / 1024)
    path.unlink()
    report.data["memory"] = {"bytes": sizes, "peak_mib": peaks}
    flat = all(large - small <= HELD_MIB for small, large in peaks.values())
    small, large = (" / ".join(f"{both[turn]:.0f}" for both in peaks.values()) for turn in (0, 1))
    report.row(
        f"memory of stats, view, filtered view, {sizes[1] / 2**30:.2g} GiB", f"{large} MiB", "",
        f"{small} MiB of {sizes[0] / 2**30:.2g} GiB", f"flat: at most {HELD_MIB} MiB more", flat,
    )  # fmt: skip
    if not flat:
        raise RuntimeError(f"reading a trace file takes memory by its size: {peaks}")


def main() -> int:
    """Runs it."""
    options = measure.options(__doc__)
    options.add_argument("--gib", type=float, help="size of the file read beside jq (1; quick: 1/16)")
    options.add_argument("--memory-gib", type=float, help="size of the file for the memory (2; quick: 1/4)")
    arguments = options.parse_args()
    report = measure.Report("tracing", "What does a span cost, and how fast is a trace read?", arguments)
    report.peers = {
        name: measure.version(name) for name in ("opentelemetry-sdk", "opentelemetry-api", "viztracer")
    }
    jq = subprocess.run(["jq", "--version"], capture_output=True, text=True, check=True)
    report.peers["jq"] = jq.stdout.strip()
    with measure.scratch(arguments.folder) as folder:
        spans(report, folder)
        survival(report, folder)
        reading(report, folder, arguments.gib or (1 / 16 if arguments.quick else 1))
        memory(report, folder, arguments.memory_gib or (1 / 4 if arguments.quick else 2))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
