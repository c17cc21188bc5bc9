"""``rubriscope doctor``: versions, what was found, and problems with their remedies."""

from __future__ import annotations

import argparse
from typing import Any

from .common import add_command


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "doctor",
        run,
        help="versions, what was found, and problems with their remedies",
        description="Print versions, torch, SQLite, where journals live, and problems with their remedies.",
        takes_rest=True,
    )
    parser.add_argument("target", nargs="?", metavar="TARGET", help="also look at this target's journals")


def run(arguments: argparse.Namespace) -> int:
    """Hands over to :mod:`rubriscope.doctor`."""
    from ..doctor import main

    argv = ["--json"] if arguments.json else []
    if arguments.target is not None:
        argv.append(arguments.target)
    return int(main(argv + arguments.rest))
