"""Restart campaign: stops a PostgreSQL server at once in the middle of a stream, again and again.

    python tests/crash/postgres_campaign.py --restarts 20

A process records without a pause; the server is stopped `immediate` at random moments and started again. In
some rounds the recording process is killed while the server is away, and another brings in what it left. In
the end every record that was accepted must be in the database once, with its own bytes, and the ledger must
hold, signed to its end. Exit status 0 when all held.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cbor2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
from postgres_server import PostgresServer

#: Records rewards 1, 2, 3, … in bursts until its standard input ends; then prints how many were accepted.
WRITER = """
import os, select, sys, time
import rubriscope as rs

class Echo(rs.Rubric):
    def forward(self, action, observation):
        return action

tree = rs.Sequential(Echo(), Echo())
recorder = rs.record(sys.argv[1], session="restarts", flush_interval_ms=5)
recorder.observe(tree)
accepted = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
print("ready", flush=True)
i = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(200):
        i += 1
        if i % 7 == 0:
            recorder.log({"n": i}, step=i)
        else:
            tree(float(i), "o" * (i % 50))
    os.pwrite(accepted, b"%12d" % i, 0)
    time.sleep(0.005)
recorder.flush(120)
recorder.close()
assert recorder.stats().dropped == 0, recorder.stats()
print(recorder.stats().accepted, flush=True)
"""


class Campaign:
    """One server and its writers, one after another."""

    def __init__(self, server: PostgresServer, folder: Path, seed: int, local: bool) -> None:
        self._server = server
        self._folder = folder
        self._chance = random.Random(seed)
        url = server.create_database()
        self._database = url.rsplit("/", 1)[1]
        self._url = server.local_url(url) if local else url
        self._environment = {
            **os.environ,
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        self._said = open(folder / "said", "a")  # noqa: SIM115
        self._writer: subprocess.Popen[str] | None = None
        self._accepted: list[tuple[int, int]] = []  # of each writer: at least, at most

    def _start_writer(self) -> None:
        self._writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, self._url, str(self._folder / "accepted")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env=self._environment,
        )
        assert self._writer.stdout is not None
        if self._writer.stdout.readline() != "ready\n":
            raise RuntimeError(f"the writer did not start: {(self._folder / 'said').read_text()[-2000:]}")

    def run(self, restarts: int) -> None:
        """Raises RuntimeError where a record is missing, twice or not itself."""
        self._start_writer()
        for number in range(restarts):
            time.sleep(0.1 + self._chance.random() * 0.4)
            self._server.stop("immediate")
            kill = number % 5 == 2
            if kill:
                self._kill_writer()
            time.sleep(self._chance.random() * 0.3)
            self._server.start()
            if kill:
                self._start_writer()  # recovers, too
        time.sleep(0.2)
        self._end_writer()
        self._check(self._verified())

    def _kill_writer(self) -> None:
        assert self._writer is not None
        time.sleep(self._chance.random() * 0.2)
        self._writer.kill()
        self._writer.wait()
        noted = int((self._folder / "accepted").read_text() or 0)
        self._accepted.append((noted, noted + 200))

    def _end_writer(self) -> None:
        assert self._writer is not None and self._writer.stdin is not None
        self._writer.stdin.close()
        assert self._writer.stdout is not None
        said = self._writer.stdout.read()
        if self._writer.wait(180) != 0:
            raise RuntimeError(f"the writer failed: {(self._folder / 'said').read_text()[-2000:]}")
        self._accepted.append((int(said), int(said)))

    def _verified(self) -> list[int]:
        """The records in each writer's ledger. Raises RuntimeError where one does not hold."""
        done = subprocess.run(
            [sys.executable, "-m", "rubriscope", "verify", self._url, "--strict", "--json"],
            capture_output=True,
            text=True,
            env=self._environment,
        )
        if done.returncode != 0:
            raise RuntimeError(f"the ledger does not hold: {done.stdout}{done.stderr}")
        return [log["records"] for session in json.loads(done.stdout)["sessions"] for log in session["logs"]]

    def _check(self, verified: list[int]) -> None:
        rows = self._server.psql(
            "SELECT key >> 40, key & 1099511627775, value, encode(record, 'hex') FROM ("
            "SELECT step_key AS key, reward AS value, record FROM steps UNION ALL "
            'SELECT scalar_key, "values"[1], record FROM scalars) AS records ORDER BY key',
            self._database,
        ).splitlines()
        found: dict[int, int] = {}
        for row in rows:
            writer, sequence, value, record = row.split("|")
            expected = found.get(int(writer), 0)
            if int(sequence) != expected or float(value) != expected + 1:
                raise RuntimeError(
                    f"writer {writer}: expected sequence {expected}, found {sequence}: {value}"
                )
            if cbor2.loads(bytes.fromhex(record))[4] != expected:
                raise RuntimeError(f"writer {writer}: the record of {sequence} is another one's")
            found[int(writer)] = expected + 1
        counts = [found[key] for key in sorted(found)]
        good = len(counts) == len(self._accepted) and all(
            low <= count <= high for count, (low, high) in zip(counts, self._accepted, strict=True)
        )
        if not good:
            raise RuntimeError(f"accepted {self._accepted} (from, to) by each writer, stored {counts}")
        if verified != counts:
            raise RuntimeError(f"stored {counts} by each writer, in their ledgers are {verified}")
        print(
            f"{sum(counts):,} records of {len(counts)} writers, each once, and their ledgers hold", flush=True
        )


def main() -> int:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--local", action="store_true", help="through the server's Unix socket")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    server = PostgresServer()
    try:
        with tempfile.TemporaryDirectory(prefix="rubriscope-restarts-") as folder:
            Campaign(server, Path(folder), arguments.seed, arguments.local).run(arguments.restarts)
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
