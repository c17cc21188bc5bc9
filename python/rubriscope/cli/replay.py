"""``rubriscope replay``: the snapshots again, at the pace they were recorded."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from typing import Any

from ..render import colour_wanted, is_terminal, snapshot_line, snapshot_tree
from .common import OK, CommandError, add_command, add_range, console, open_session, print_json


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "replay",
        run,
        help="print snapshots at the pace of recording",
        description="Print a session's snapshots at the pace they were recorded, times a factor.\n"
        "With --json, one object a line.",
        epilog="examples:\n"
        "  rubriscope replay runs.db --speed 10 --from 100 --to 200\n"
        "  rubriscope replay runs.db --speed inf --json | head -1",
    )
    parser.add_argument("target", metavar="TARGET", help="a database or .jsonl file, also TARGET:SESSION")
    parser.add_argument("session", nargs="?", metavar="SESSION", help="its name, UUID or number")
    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="X", help="2 is twice as fast, 0 or inf do not wait"
    )
    parser.add_argument("--tree", action="store_true", help="draw each snapshot as a tree")
    parser.add_argument(
        "--max-wait", type=float, default=5.0, metavar="S", help="longest pause, in seconds (default 5)"
    )
    add_range(parser)


def _speed(text: str) -> float:
    value = float(text)
    if math.isnan(value) or value < 0:
        raise argparse.ArgumentTypeError(f"a speed is 0 or more, or inf, not {text}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Prints the snapshots."""
    film, session = open_session(arguments.target, arguments.session)
    waits = arguments.speed != 0 and not math.isinf(arguments.speed)
    out = sys.stdout
    trees = console() if arguments.tree and not arguments.json else None
    ranked = len(session.ranks) > 1
    before: int | None = None
    shown = 0
    for snapshot in film.snapshots(
        session, episode=arguments.episode, start=arguments.start, stop=arguments.stop
    ):
        if waits and before is not None:
            pause = (snapshot.time_ns - before) / 1e9 / arguments.speed
            if pause > 0:
                time.sleep(min(pause, arguments.max_wait))
        before = snapshot.time_ns
        shown += 1
        if arguments.json:
            print_json(snapshot.to_dict(), indent=None)
        elif trees is not None:
            trees.print(snapshot_tree(snapshot, ranked=ranked))
        else:
            width = shutil.get_terminal_size().columns if is_terminal(out) else None
            line = snapshot_line(snapshot, colour=colour_wanted(out), width=width, ranked=ranked)
            out.write(line + "\n")
        if waits:
            out.flush()
    if shown == 0:
        raise CommandError(f"session {session.name!r} has no snapshots there")
    return OK
