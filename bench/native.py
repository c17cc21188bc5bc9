"""How fast are the parts alone, without Python? The C++ programs of `bench/cpp`, seven runs each.

    cmake -S . -B build/bench -DRUBRISCOPE_BUILD_BENCH=ON -DRUBRISCOPE_BUILD_TESTS=OFF
    cmake --build build/bench && python bench/native.py --programs build/bench/bin

`bench_journal_bench`: what publishing a record of 13 scores costs its caller while the drain runs, into a
sink that does nothing. `bench_sink_bench`: snapshots of 15 scores a second that a sink makes durable, from
records in memory.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from measure import Report, duration, options, rate, scratch


def run(program: Path, *arguments: str) -> dict[str, Any]:
    """One run of a program; the JSON line it prints.

    Raises:
        FileNotFoundError: it was not built.
        subprocess.CalledProcessError: it failed.
    """
    if not program.exists():
        raise FileNotFoundError(f"{program} was not built: configure with -DRUBRISCOPE_BUILD_BENCH=ON")
    done = subprocess.run([str(program), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> int:
    """Run them all."""
    parser = options(__doc__)
    parser.add_argument(
        "--programs", type=Path, default=Path("build/bench/bin"), help="where they were built"
    )
    args = parser.parse_args()
    report = Report("native", "how fast are the parts alone?", args)
    turns, seconds, records = (2, "0.5", "500000") if args.quick else (7, "1", "2000000")
    journal: list[dict[str, Any]] = []
    sinks: dict[str, list[dict[str, Any]]] = {"sqlite": [], "jsonl": []}
    for _ in range(turns):
        with scratch(args.folder) as place:
            journal.append(run(args.programs / "bench_journal_bench", records, "1", str(place)))
            for sink, runs in sinks.items():
                path = str(place / f"runs.{sink}")
                runs.append(
                    run(args.programs / "bench_sink_bench", sink, path, "--seconds", seconds, "--slots", "15")
                )
    if any(figures["dropped"] for figures in journal):
        raise RuntimeError(f"records were dropped: {journal}")
    report.data = {"journal": journal, "sinks": sinks}

    def middle(name: str) -> str:
        return duration(statistics.median(figures["publish_ns"][name] for figures in journal))

    report.row(
        "publishing a record natively, p50 / p99 / p99.9",
        " / ".join(middle(name) for name in ("median", "p99", "p999")),
        "",
        f"drained {rate(statistics.median(f['durable_per_s'] for f in journal), 'records')}",
        "",
        None,
    )
    for sink, runs in sinks.items():
        report.row(
            f"the {sink} sink alone, from memory, 15 scores",
            rate(statistics.median(figures["per_second"] for figures in runs), "snapshots"),
            "",
            f"{statistics.median(figures['cpu_ns_per_snapshot'] for figures in runs):.0f} ns CPU a snapshot",
            "",
            None,
        )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
