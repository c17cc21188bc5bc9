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
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="recordings whose journals to look at")


def run(arguments: argparse.Namespace) -> int:
    """Hands over to :mod:`rubriscope.doctor`."""
    from ..doctor import main

    return main([*(["--json"] if arguments.json else []), *arguments.targets])
