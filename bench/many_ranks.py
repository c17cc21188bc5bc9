"""How many steps a second do several ranks of one machine bring into one place, and where does it saturate?

Each rank is a process that calls an observed 15-node tree in a loop, never far ahead of the sink, all in one
session; counted is what is durable, from the first call of the first rank until the last rank's ``flush()``
returned. Into one SQLite file, one PostgreSQL database, Redis Streams (``appendfsync always``) and a folder
of Parquet files, on servers of our own. Then ``rubriscope ingest`` empties the Redis streams into SQLite or
PostgreSQL. One rank is the peer that several are held against: on one machine they share its cores, with
the server.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

import rubriscope as rs
from measure import HERE, Report, caller, drive, options, rate, scratch
from peers import tree, varying_leaf
from rubriscope.ingest import Ingester

TESTS = HERE.parent / "tests"
sys.path[:0] = [str(TESTS / "python"), str(TESTS / "crash")]
from postgres_server import PostgresServer  # noqa: E402
from redis_server import RedisServer  # noqa: E402

RANKS = (1, 2, 4)


def child(target: str, session: str, journal: str, seconds: float) -> None:
    """One rank: records until the time is over; prints begin, end and count."""
    recorder = rs.record(target, session="bench", session_id=session, journal_dir=journal)
    rubric = tree(rs, 2, 5, varying_leaf)
    recorder.observe(rubric, capture="none")
    call = caller(rubric, "the model's answer", "the question")
    drive(recorder, call, 0.2)
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    count, _ = drive(recorder, call, seconds, ahead=100_000)
    print(begin, time.monotonic(), count, flush=True)
    recorder.close()


def together(ranks: int, target: str, folder: Path, seconds: float) -> float:
    """Steps a second of all ranks together."""
    session = str(uuid.uuid4())
    command = [sys.executable, __file__, "--child", target, session, str(folder / "journal"), str(seconds)]
    processes = []
    for rank in range(ranks):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks)}
        processes.append(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    results = [process.communicate()[0].split() for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("a rank failed")
    begin, end = min(float(r[0]) for r in results), max(float(r[1]) for r in results)
    return sum(int(r[2]) for r in results) / (end - begin)


def run(args: argparse.Namespace) -> int:
    """Measures and reports."""
    report = Report("many_ranks", "how many steps a second do several ranks bring into one place?", args)
    turns, seconds = (1, 1.0) if args.quick else (3, 3.0)
    server = PostgresServer(settings={"max_wal_size": "8GB"})
    with scratch(args.folder) as folder:
        redis = RedisServer(folder / "redis")
        postgres = f"postgresql://postgres@/postgres?host={server.folder}&port={server.port}"
        rates: dict[str, dict[int, list[float]]] = {}
        ingested: dict[str, list[float]] = {}
        try:
            for turn in range(turns):
                for ranks in RANKS:
                    targets = {
                        "one SQLite file": str(folder / f"{turn}-{ranks}.db"),
                        "PostgreSQL": postgres,
                        "Redis Streams": f"{redis.url}?stream=r{turn}-{ranks}",
                        "Parquet": f"parquet:{folder / f'parts{turn}-{ranks}'}",
                    }
                    for name, target in targets.items():
                        got = together(ranks, target, folder / f"{turn}-{ranks}-{name.split()[0]}", seconds)
                        rates.setdefault(name, {}).setdefault(ranks, []).append(got)
                        print(f"  {name:<18} {ranks} ranks {got:>10,.0f} steps/s", flush=True)
                    into = {"SQLite": str(folder / f"in{turn}-{ranks}.db"), "PostgreSQL": postgres}
                    name = list(into)[(turn + ranks) % 2]
                    begin = time.monotonic()
                    counts = Ingester(f"{redis.url}?stream=r{turn}-{ranks}", into[name]).run(once=True)
                    got = counts.stored / (time.monotonic() - begin)
                    ingested.setdefault(name, []).append(got)
                    print(f"  ingest into {name:<10} {got:>10,.0f} steps/s", flush=True)
        finally:
            server.close()
            redis.kill()
    report.data |= {"steps_per_s": rates, "ingested_per_s": ingested}
    for name, by_ranks in rates.items():
        one = statistics.median(by_ranks[1])
        shown = ", ".join(f"{n}: {rate(statistics.median(by_ranks[n]), 'steps')}" for n in RANKS)
        best = max(RANKS, key=lambda n: statistics.median(by_ranks[n]))
        found = f"{statistics.median(by_ranks[best]) / one:.2f}× at {best}"
        report.row(f"ranks of one machine into {name}", shown, "1 rank", found, "", None)
    for name, got in ingested.items():
        report.row(f"ingest from Redis into {name}", rate(statistics.median(got), "steps"), "", "", "", None)
    return report.finish()


def main() -> int:
    """Run it, or one rank of it."""
    if sys.argv[1:2] == ["--child"]:
        target, session, journal, seconds = sys.argv[2:]
        child(target, session, journal, float(seconds))
        return 0
    return run(options(__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
