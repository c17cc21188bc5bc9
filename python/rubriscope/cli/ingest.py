"""``rubriscope ingest``: from the Redis streams of many ranks into one database."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from .common import FAILED, OK, add_command, console, many, print_json


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "ingest",
        run,
        help="bring the Redis streams of many ranks into one database",
        description="Bring what ranks record into redis:// into one database, each record once, until\n"
        "interrupted. It may be killed at any time and started again; several may run at once.",
        epilog="examples:\n  rubriscope ingest redis://host:6379/0 --to runs.db\n"
        "  rubriscope ingest 'redis://host/0?stream=team' --to runs.db --once\n\n"
        "A password is taken from the URL or from REDISCLI_AUTH.",
    )
    parser.add_argument(
        "url", metavar="REDIS", help="what rs.record() was given: redis://host:6379/0?stream=NAME"
    )
    parser.add_argument("--to", required=True, metavar="TARGET", help="the database")
    parser.add_argument("--once", action="store_true", help="end when every stream is empty")
    parser.add_argument(
        "--lease",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="after how long the streams of an ingester whose machine vanished are taken over (10)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Ingests and reports."""
    from ..ingest import Ingester
    from ..targets import without_password

    ingester = Ingester(arguments.url, arguments.to, lease_s=arguments.lease)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ingester.stop())
    counts = ingester.run(once=arguments.once)
    target = without_password(arguments.to)
    if arguments.json:
        print_json(
            {
                "stored": counts.stored,
                "repeated": counts.repeated,
                "damaged": counts.damaged,
                "writers": len(counts.writers),
            }
        )
    else:
        out = console()
        records, writers = many(counts.stored, "record"), many(len(counts.writers), "writer")
        out.print(f"ingested {records} of {writers} into {target}", soft_wrap=True)
        if counts.repeated:
            out.print(f"{counts.repeated:,} were there already")
        if counts.damaged:
            damaged = many(counts.damaged, "damaged record")
            out.print(f"✗ {damaged} set aside in Redis", style="red")
    return FAILED if counts.damaged else OK
