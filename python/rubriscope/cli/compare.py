"""``rubriscope compare``: two sessions side by side."""

from __future__ import annotations

import argparse
from typing import Any

from ..compare import Comparison, compare
from ..film import Film
from .common import FAILED, OK, CommandError, add_command, add_range, console, print_json, split_target


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "compare",
        run,
        help="two sessions side by side, with paired differences",
        description="Compare two sessions: means of every rubric and scalar, their difference, and the mean\n"
        "difference paired by step with a 95 % interval (Student's t over the steps both have).",
        epilog="examples:\n"
        "  rubriscope compare runs.db sft grpo\n"
        "  rubriscope compare a.db b.db\n"
        "  rubriscope compare a.db:sft b.db:grpo --json\n"
        "  rubriscope compare runs.db main branch --max-drop 0.01 || echo 'the reward fell'",
    )
    parser.add_argument(
        "what", nargs="+", metavar="WHAT", help="TARGET A B, or two of TARGET or TARGET:SESSION"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="X",
        help="exit with 1 where a rubric's mean fell by more than X from A to B",
    )
    parser.add_argument(
        "--path",
        action="append",
        dest="paths",
        metavar="PATH",
        help="for --max-drop: this rubric instead of root; may be given again",
    )
    add_range(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints the comparison."""
    film_a, a, film_b, b = _sides(arguments.what)
    result = compare(
        film_a, a, film_b, b, episode=arguments.episode, start=arguments.start, stop=arguments.stop
    )
    dropped = [] if arguments.max_drop is None else _dropped(result, arguments)
    if arguments.json:
        report = result.to_dict()
        if arguments.max_drop is not None:
            report["dropped"] = dropped
        print_json(report)
    else:
        out = console()
        out.print(result)
        for path in dropped:
            fall = result[path].delta
            out.print(f"✗ {path} fell by {-(fall or 0):.4f}, more than {arguments.max_drop:g}", style="red")
    return FAILED if dropped else OK


def _sides(what: list[str]) -> tuple[Film, str | None, Film, str | None]:
    if len(what) == 3:
        film = Film(what[0])
        return film, what[1], film, what[2]
    if len(what) == 2:
        (target_a, a), (target_b, b) = split_target(what[0]), split_target(what[1])
        return Film(target_a), a, Film(target_b), b
    raise CommandError(
        f"compare takes TARGET A B, or two targets (a.db b.db, a.db:A b.db:B); {len(what)} arguments given"
    )


def _dropped(result: Comparison, arguments: argparse.Namespace) -> list[str]:
    dropped = []
    for path in arguments.paths or ["root"]:
        delta = result[path].delta
        if delta is None:
            raise CommandError(f"{path!r} has no value in one of the sessions: nothing to hold --max-drop to")
        if delta < -arguments.max_drop:
            dropped.append(path)
    return dropped
