"""``rubriscope sessions``: what a target holds."""

from __future__ import annotations

import argparse
from typing import Any

from ..film import Film, Session
from ..render import Column, fitted_table, printable
from .common import OK, add_command, console, note_journals, print_json


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "sessions",
        run,
        help="list the sessions of a target",
        description="List the sessions of a target, the newest last.",
        epilog="example:\n  rubriscope sessions runs.db --json | jq '.[-1].uuid'",
    )
    parser.add_argument("target", metavar="TARGET", help="a database, a .jsonl file or their URL")


def run(arguments: argparse.Namespace) -> int:
    """Prints the sessions."""
    film = Film(arguments.target)
    note_journals(film)
    found = film.sessions()
    if arguments.json:
        print_json([session.to_dict() for session in found])
        return OK
    out = console()
    if not found:
        out.print(f"{arguments.target} holds no session yet")
        return OK
    name, uuid, started, length, episodes, snapshots, scalars, writers, rank = columns = [
        Column("session", right=False),
        Column("uuid", 3, right=False, style="dim"),
        Column("started", 2, right=False),
        Column("took", 4),
        Column("episodes", 5),
        Column("snapshots"),
        Column("scalars", 6),
        Column("writers", 7),
        Column("ranks", 8),
    ]
    for session in found:
        name.cells.append(printable(session.name))
        uuid.cells.append(session.uuid[:8])
        started.cells.append(f"{session.created.astimezone():%Y-%m-%d %H:%M:%S}")
        length.cells.append(took(session))
        episodes.cells.append(f"{session.episodes:,}")
        snapshots.cells.append(f"{session.steps:,}")
        scalars.cells.append(f"{session.scalars:,}")
        writers.cells.append(str(session.writers))
        rank.cells.append(ranks(session.ranks))
    out.print(fitted_table(columns, out.width))
    return OK


def took(session: Session) -> str:
    """Length of a session; ``>`` up to the latest record where it has no end (running, killed, or JSONL)."""
    if session.closed_ns is not None:
        return _length(session.closed_ns - session.created_ns)
    return "" if session.last_ns is None else f">{_length(session.last_ns - session.created_ns)}"


def _length(nanoseconds: int) -> str:
    seconds = max(nanoseconds, 0) / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def ranks(numbers: tuple[int, ...]) -> str:
    """``0``, ``0–3`` or ``0, 2``."""
    if len(numbers) > 1 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}–{numbers[-1]}"
    return ", ".join(map(str, numbers))
