"""``rubriscope demo``: programs that show rubriscope at work."""

from __future__ import annotations

import argparse
from typing import Any

from ..demos.first_light import options
from .common import Parser, add_command


def register(commands: Any) -> None:
    """Adds the command; each demo is a command of its own below it."""
    parser: Parser = commands.add_parser(
        "demo",
        help="a program that shows rubriscope at work",
        description="Run a program that shows rubriscope at work.",
    )
    demos = parser.add_subparsers(
        dest="demo", metavar="DEMO", title="demos", required=True, parser_class=Parser
    )
    first_light = add_command(
        demos,
        "first-light",
        _first_light,
        help="a physics-informed twin of a car, watched by three sight points",
        description=options.DESCRIPTION,
        epilog=options.EPILOG,
    )
    options.add_arguments(first_light)


def _first_light(arguments: argparse.Namespace) -> int:
    from ..demos.first_light.app import run

    return run(arguments)
