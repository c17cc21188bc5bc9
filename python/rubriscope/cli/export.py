"""``rubriscope export``: a session in another format."""

from __future__ import annotations

import argparse
from typing import Any

from .common import OK, add_command, console, open_session, print_json, progress


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "export",
        run,
        help="write a session as .json, .jsonl, .csv or .parquet",
        description="Write a session to a file whose suffix says how:\n"
        "  .json           results.json: summary, detailed results, snapshots, scalars\n"
        "  .jsonl          as the recorder writes it; can be read back as a target\n"
        "  .csv, .parquet  one row a record (Parquet needs the extra [arrow])\n"
        "or, with --bundle, to a folder: records, Merkle tiles, signed checkpoints and public keys, which\n"
        "examples/verify_film.py verifies without rubriscope.",
        epilog="examples:\n"
        "  rubriscope export runs.db results.json\n"
        "  rubriscope export runs.db:grpo grpo.parquet\n"
        "  rubriscope export runs.db:grpo grpo-bundle --bundle",
    )
    parser.add_argument("target", metavar="TARGET", help="a database or .jsonl file, also TARGET:SESSION")
    parser.add_argument("output", metavar="FILE", help="the file to write; replaced when complete")
    parser.add_argument("--bundle", action="store_true", help="write a folder that anyone can verify")
    parser.add_argument("--session", "-s", metavar="SESSION", help="name, UUID or number")


def run(arguments: argparse.Namespace) -> int:
    """Writes the file."""
    film, session = open_session(arguments.target, arguments.session)
    with progress(f"exporting {session.name}") as report:
        if arguments.bundle:
            from ..bundle import export_bundle

            records = export_bundle(film.target, arguments.output, session.uuid, progress=report)
        else:
            records = film.export(arguments.output, session, progress=report)
    if arguments.json:
        print_json({"output": arguments.output, "session": session.uuid, "records": records})
    else:
        console().print(f"wrote {records:,} records of {session.name} to {arguments.output}")
    return OK
