"""What does encryption cost?

A snapshot of 618 bytes sealed (`cpp/seal_bench.cpp`), against AES-256-GCM alone of the same bytes; and an
observed 13-node tree recorded into an encrypted and a plain database, in turns, by the calling thread's CPU
time.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import rubriscope as rs
from measure import Report, caller, drive, duration, options, scratch
from native import run
from peers import tree, varying_leaf

ACTION, OBSERVATION = "the model's answer", "the question"


def record(sink: object, seconds: float) -> float:
    """Records for ``seconds``; returns the calling thread's CPU seconds a call."""
    with rs.record(sink, session="bench", ledger=False) as recorder:
        rubric = tree(rs, 3, 2, varying_leaf)
        recorder.observe(rubric)
        call = caller(rubric, ACTION, OBSERVATION)
        drive(recorder, call, 0.2)
        calls, begin, until = 0, time.thread_time(), time.monotonic() + seconds
        while time.monotonic() < until:
            call(1000)
            calls += 1000
        return (time.thread_time() - begin) / calls


def main() -> int:
    """Run it; the exit code is 1 where a target is missed."""
    parser = options(__doc__)
    parser.add_argument("--programs", type=Path, default=Path("build/bench/bin"), help="the C++ benchmarks")
    args = parser.parse_args()
    report = Report("vault", "what does encryption cost?", args)
    turns, seconds = (3, 0.5) if args.quick else (9, 2.0)
    found = run(args.programs / "bench_seal_bench", "200000", "618", str(turns))
    more = found["sealed_bytes"] - found["record_bytes"]
    report.row(
        f"seal a snapshot of {found['record_bytes']} B",
        duration(found["seal_ns"]),
        f"AES-256-GCM alone {duration(found['aead_ns'])}",
        f"{more} B more",
        "≤ 1.5 µs, ≤ 48 B more",
        found["seal_ns"] <= 1500 and more <= 48,
    )
    sealed: list[float] = []
    plain: list[float] = []
    with scratch(args.folder) as place:
        for turn in range(turns):
            sealed.append(
                record(rs.EncryptedDatabaseSink(place / f"sealed{turn}.db", key=bytes(32)), seconds)
            )
            plain.append(record(place / f"plain{turn}.db", seconds))
    report.row(
        "13-node tree observed into an encrypted database, caller's CPU",
        duration(statistics.median(sealed) * 1e9),
        f"plain {duration(statistics.median(plain) * 1e9)}",
        f"+{duration((statistics.median(sealed) - statistics.median(plain)) * 1e9)}",
        "",
        None,
    )
    report.data = {"seal": found, "sealed_s": sealed, "plain_s": plain}
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
