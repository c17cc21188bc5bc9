"""Kills the ingester while two ranks record, and checks that the database has every snapshot once.

    python tests/crash/ingest_campaign.py --kills 20 --snapshots 10000 [--postgres]

Half of the kills come from within, at a known point (after reading, after the database's commit, after the
acknowledgement), half from outside at a random time. Exit status 0 when nothing was lost, stored twice, out
of order or under another writer, and the ledger holds. The database is an SQLite file or, with --postgres, on
a PostgreSQL server of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg
from ingest_child import BATCH
from redis_server import RedisServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
from postgres_server import PostgresServer

_COMMAND = [sys.executable, "-m", "rubriscope.cli"]

_RANK = """
import sys, time
import rubriscope as rs

class Half(rs.Rubric):
    def forward(self, action, observation):
        return action / 2

url, snapshots = sys.argv[1], int(sys.argv[2])
with rs.record(url, session="ranks", flush_interval_ms=5) as recorder:
    tree = rs.Sequential(Half(), Half())
    recorder.observe(tree)
    print(recorder.writer_id, flush=True)
    for i in range(snapshots):
        tree(float(i), "seen")
        if i % 50 == 49:
            time.sleep(0.002)
    recorder.flush()
"""


def start_rank(url: str, rank: int, snapshots: int, folder: Path) -> subprocess.Popen[str]:
    """A process that records."""
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "XDG_STATE_HOME": str(folder / "state"),
    }
    return subprocess.Popen(
        [sys.executable, "-c", _RANK, url, str(snapshots)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, kills: int, snapshots: int, seed: int, target: str | None = None) -> dict[str, float]:
    """The campaign, into ``target`` or a file in the folder; raises RuntimeError with what was wrong."""
    chance = random.Random(seed)
    server = RedisServer(folder / "redis")
    target = target or str(folder / "runs.db")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(folder / "config")}
    child = Path(__file__).with_name("ingest_child.py")
    # Few enough that there is something left for the last of them.
    most = max(1, 3 * snapshots // BATCH // kills // 2)
    started = time.monotonic()
    try:
        ranks = [start_rank(server.url, rank, snapshots // 2, folder) for rank in range(2)]
        writers = [rank.stdout.readline().strip() for rank in ranks if rank.stdout is not None]
        done = 0
        while done < kills:
            seed = chance.randrange(2**32)
            inside = done % 2 == 0
            ingester = subprocess.Popen(
                [sys.executable, str(child), server.url, target, str(seed), str(most if inside else 0)],
                stdout=subprocess.PIPE,
                env=environment,
            )
            assert ingester.stdout is not None
            if not inside:
                ingester.stdout.readline()
                time.sleep(chance.random() * 0.25)
                ingester.kill()
            try:
                ingester.wait(20)
            except subprocess.TimeoutExpired:  # it found nothing more to read before its kill was due
                ingester.kill()
                ingester.wait()
            ingester.stdout.close()
            if ingester.returncode != -signal.SIGKILL:
                raise RuntimeError(f"an ingester ended by itself with status {ingester.returncode}")
            done += 1
        for rank in ranks:
            if rank.wait(60) != 0:
                raise RuntimeError(f"a rank ended with status {rank.returncode}")
        before = stored(target)
        last = subprocess.run(
            [*_COMMAND, "ingest", server.url, "--to", target, "--once", "--json"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if last.returncode != 0:
            raise RuntimeError(f"the last ingester failed: {last.stderr}")
        verified = subprocess.run(
            [*_COMMAND, "verify", target, "--strict"],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if verified.returncode != 0:
            raise RuntimeError(f"the ledger does not hold: {verified.stdout}{verified.stderr}")
        check(target, writers, snapshots // 2)
        return {"kills": done, "snapshots": snapshots, "lost": 0, "twice": 0} | {
            "stored_before_the_last_ingester": before,
            "seconds": round(time.monotonic() - started, 1),
        }
    finally:
        server.kill()


def ask(target: str, sql: str) -> list[tuple[Any, ...]]:
    """What a query that both databases understand finds."""
    if target.startswith("postgresql:"):
        with psycopg.connect(target) as connection:
            return connection.execute(sql.encode()).fetchall()
    with contextlib.closing(sqlite3.connect(target)) as database:
        return database.execute(sql).fetchall()


def stored(target: str) -> int:
    """How many snapshots the database has."""
    return int(ask(target, "SELECT count(*) FROM steps")[0][0])


def check(target: str, writers: list[str], snapshots: int) -> None:
    """Whether the database has what each rank recorded, in order, once; raises RuntimeError."""
    for rank, writer in enumerate(writers):
        rows = ask(
            target,
            "SELECT step_key & 1099511627775, step_index, CAST(action AS double precision), rank, "
            "writers.closed_ns IS NOT NULL FROM steps JOIN writers ON writer_key = step_key >> 40 "
            f"WHERE writer_id = '{writer}' ORDER BY step_key",
        )
        expected = [(i, i, float(i), rank, 1) for i in range(snapshots)]
        if rows != expected:
            wrong = next((pair for pair in zip(rows, expected, strict=False) if pair[0] != pair[1]), None)
            raise RuntimeError(f"rank {rank}: {len(rows)} of {snapshots} rows, first difference {wrong}")
    ((total, sessions),) = ask(target, "SELECT (SELECT count(*) FROM steps), (SELECT count(*) FROM sessions)")
    if total != snapshots * len(writers):
        raise RuntimeError(f"{total} rows in all, expected {snapshots * len(writers)}")
    if sessions != len(writers):  # nothing told the ranks that they are one session
        raise RuntimeError(f"{sessions} sessions, expected {len(writers)}")


def main() -> int:
    """Run the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(description="kill the ingester")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--snapshots", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--postgres", action="store_true", help="into PostgreSQL")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rubriscope-ingest-"))
    server = PostgresServer() if options.postgres else None
    try:
        target = None if server is None else server.create_database()
        counts = run(folder, options.kills, options.snapshots, options.seed, target)
    except RuntimeError as error:
        print(f"--seed {options.seed} FAILED in {folder}: {error}", file=sys.stderr)
        return 1
    finally:
        if server is not None:
            server.close()
    shutil.rmtree(folder)
    print(json.dumps({**counts, "seed": options.seed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
