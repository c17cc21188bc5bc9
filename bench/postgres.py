"""How many steps a second become durable in PostgreSQL, 15 scores a step, against COPY from Python?

A server of our own, on a Unix socket, with PostgreSQL's settings as they come but for a larger write-ahead
log; `synchronous_commit` and `fsync` are on. rubriscope: a Python loop calls an observed 15-node tree, never
far ahead of the sink; counted is what is committed, from the first call until ``flush()`` returned. `COPY by
hand`: psycopg's binary ``copy.write_row``, transactions of 1000 steps, a row a score (step, path, score), or
a row a step with the scores as an array. The server's limit: the bytes that rubriscope sends, sent again by
``copy.write`` alone, in the same transactions, into new tables of the same form. In turns, then one long run
of each that is judged.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import rubriscope as rs
from measure import HERE, Report, caller, cpu_wait_s, drive, options, rate
from peers import tree, varying_leaf
from rubriscope import _C

sys.path.insert(0, str(HERE.parent / "tests" / "python"))
from postgres_server import PostgresServer

ACTION, OBSERVATION = "the model's answer", "the question"
PATHS = ["root", *(name for name, _ in tree(rs, 2, 5).named_rubrics())]
BATCH = 1000
SETTINGS = {"fsync": "on", "max_wal_size": "8GB"}
#: The streams to be sent again, the steps in each and the bytes of a piece, as rubriscope has them.
STREAMS, TRANSACTION, PIECE = 24, 8192, 128 * 1024


class ByHand:
    """psycopg as a careful user would write it."""

    def __init__(self, url: str, as_array: bool) -> None:
        self._db = psycopg.connect(url)
        table = "hand_steps(step bigint, scores float8[])" if as_array else (
            "hand_scores(step bigint, rubric text, score float8)"
        )  # fmt: skip
        self._db.execute(f"CREATE TABLE {table}")
        self._db.commit()
        self._as_array = as_array
        self._step = 0
        rng = random.Random(7)
        self._values = [[rng.random() for _ in PATHS] for _ in range(BATCH)]

    def _write(self, first: int) -> None:
        table = "hand_steps" if self._as_array else "hand_scores"
        with self._db.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN (FORMAT binary)") as copy:
            if self._as_array:
                copy.set_types(["int8", "float8[]"])
                for step, scores in enumerate(self._values, first):
                    copy.write_row((step, scores))
                return
            copy.set_types(["int8", "text", "float8"])
            for step, scores in enumerate(self._values, first):
                for path, score in zip(PATHS, scores, strict=True):
                    copy.write_row((step, path, score))

    def drive(self, seconds: float) -> tuple[int, float]:
        """Writes for ``seconds``; returns steps committed and seconds."""
        first, begin = self._step, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            self._write(self._step)
            self._db.commit()
            self._step += BATCH
        return self._step - first, time.perf_counter() - begin

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()


class Ours:
    """An observed 15-node tree called in a loop; its leaves' scores are random, as the peers' are."""

    def __init__(self, url: str, journal: Path) -> None:
        self._recorder = rs.record(url, session="bench", journal_dir=journal)
        rubric = tree(rs, 2, 5, varying_leaf)
        self._recorder.observe(rubric, capture="none")
        self._call = caller(rubric, ACTION, OBSERVATION)

    def drive(self, seconds: float) -> tuple[int, float]:
        """Records for ``seconds``; returns snapshots committed and seconds."""
        return drive(self._recorder, self._call, seconds)

    def close(self) -> None:
        """Closes the recorder."""
        self._recorder.close()


class ServersLimit:
    """Streams that are ready, into tables like `steps`: into a new one, made untimed, before a table would
    hold a key twice. All are kept until the end of a drive, so that the database grows as it does for the
    others."""

    def __init__(self, url: str, streams: list[list[bytes]], records: int) -> None:
        self._db = psycopg.connect(url, autocommit=True)
        self._streams = streams
        self._records = records

    def drive(self, seconds: float) -> tuple[int, float]:
        """Writes for ``seconds`` of writing; returns steps committed and seconds."""
        tables: list[str] = []
        spent = 0.0
        while spent < seconds:
            tables.append(f"again{len(tables)}")
            self._db.execute(f"CREATE TABLE {tables[-1]}(LIKE steps INCLUDING ALL)")
            sql = f"COPY {tables[-1]}({_C._POSTGRES_STEP_COLUMNS}) FROM STDIN WITH (FORMAT binary)"
            begin = time.perf_counter()
            for stream in self._streams:
                with self._db.cursor() as cursor, cursor.copy(sql) as copy:
                    for piece in stream:
                        copy.write(piece)
            spent += time.perf_counter() - begin
        self._db.execute(f"DROP TABLE {', '.join(tables)}")
        return len(tables) * self._records, spent

    def close(self) -> None:
        """Closes the connection."""
        self._db.close()


def streams_of(url: str, journal: Path) -> tuple[list[list[bytes]], int]:
    """What rubriscope sends for some seconds of recording, a list of pieces a transaction, and how many rows
    that is. Taken from the server: its binary COPY writes the very bytes that it reads."""
    ours = Ours(url, journal)
    with psycopg.connect(url, autocommit=True) as db:
        count = 0
        while count < STREAMS * TRANSACTION:
            ours.drive(0.2)
            (count,) = db.execute("SELECT count(*) FROM steps").fetchone() or (0,)
        ours.close()
        (first,) = db.execute("SELECT min(step_key) FROM steps").fetchone() or (0,)
        streams = []
        for begin in range(first, first + STREAMS * TRANSACTION, TRANSACTION):
            sql = (
                f"COPY (SELECT {_C._POSTGRES_STEP_COLUMNS} FROM steps "
                f"WHERE step_key >= {begin} AND step_key < {begin + TRANSACTION} ORDER BY step_key) "
                "TO STDOUT WITH (FORMAT binary)"
            )
            with db.cursor() as cursor, cursor.copy(sql) as copy:
                stream = b"".join(copy)
            streams.append([stream[at : at + PIECE] for at in range(0, len(stream), PIECE)])
    return streams, STREAMS * TRANSACTION


def run(args: argparse.Namespace) -> int:
    """Measures and reports; the exit code is 1 where the target is missed."""
    report = Report("postgres", "how many steps a second become durable in PostgreSQL?", args)
    turns, seconds, long_run = (5, 0.5, 3.0) if args.quick else (7, 2.0, 20.0)
    server = PostgresServer(settings=SETTINGS)
    try:
        return measure(report, server, turns, seconds, long_run)
    finally:
        server.close()


def measure(report: Report, server: PostgresServer, turns: int, seconds: float, long_run: float) -> int:
    """The runs against one server."""
    url = f"postgresql://postgres@/postgres?host={server.folder}&port={server.port}"
    journal = server.folder / "journal"
    with psycopg.connect(url) as db:
        report.machine["postgresql"] = db.info.parameter_status("server_version")
    report.peers["psycopg"] = psycopg.__version__
    hand, array = "COPY by hand, 15 rows", "COPY by hand, one row with an array"
    limit = "the server's own limit"
    streams, records = streams_of(url, journal)
    writers: dict[str, Any] = {
        "rubriscope": Ours(url, journal),
        hand: ByHand(url, as_array=False),
        array: ByHand(url, as_array=True),
        limit: ServersLimit(url, streams, records),
    }
    rates: dict[str, list[float]] = {name: [] for name in writers}
    net: dict[str, list[float]] = {name: [] for name in writers}  # steps/s, less waiting for a CPU
    names = list(writers)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            wait = cpu_wait_s(name == "rubriscope")
            count, spent = writers[name].drive(seconds)
            rates[name].append(count / spent)
            net[name].append(count / (spent - cpu_wait_s(name == "rubriscope") + wait))
            server.psql("CHECKPOINT")  # each pays for its own pages, not for another's
    sustained = {}
    for name in ("rubriscope", hand, limit):
        count, spent = writers[name].drive(long_run)
        sustained[name] = count / spent
        server.psql("CHECKPOINT")
    for writer in writers.values():
        writer.close()
    for name, got in rates.items():
        print(
            f"  {name:<38} {statistics.median(got):>10,.0f} steps/s   "
            f"{statistics.median(net[name]):>10,.0f} steps/s net of its thread's waiting for a CPU"
        )
    report.data |= {"steps_per_s": rates, "net_steps_per_s": net}
    report.data |= {"sustained_steps_per_s": sustained, "sustained_s": long_run}
    report.data["bytes_a_step_sent"] = sum(len(p) for stream in streams for p in stream) / records

    ours = statistics.median(rates["rubriscope"])
    of = {name: ours / statistics.median(rates[name]) for name in names[1:]}
    long_of = {name: sustained["rubriscope"] / sustained[name] for name in (hand, limit)}
    met = min(of[hand], long_of[hand]) >= 2 or min(of[limit], long_of[limit]) >= 0.8
    for name in names[1:]:
        shown = f"{rate(ours, 'steps')} (sustained {long_run:g} s: {rate(sustained['rubriscope'], 'steps')})"
        form = "{:.0%} of it" if name == limit else "{:.1f}×"
        found = form.format(of[name])
        peer = f"{name} {rate(statistics.median(rates[name]), 'steps')}"
        if name in long_of:
            found += (
                f", sustained {long_of[name]:.0%}" if name == limit else f", sustained {long_of[name]:.1f}×"
            )
            peer += f" (sustained: {rate(sustained[name], 'steps')})"
        report.row(
            "accepted → durable in PostgreSQL, 15 scores a snapshot",
            shown,
            peer,
            found,
            "≥ 2×, or 80 % of the server's limit" if name == hand else "",
            met if name == hand else None,
        )
    return report.finish()


def main() -> int:
    """Run it."""
    return run(options(__doc__).parse_args())


if __name__ == "__main__":
    sys.exit(main())
