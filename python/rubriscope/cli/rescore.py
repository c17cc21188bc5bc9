"""``rubriscope rescore``: a session through another rubric."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from typing import Any

from ..render import printable
from .common import (
    FAILED,
    OK,
    CommandError,
    add_command,
    add_range,
    console,
    many,
    open_session,
    print_json,
    progress,
)


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "rescore",
        run,
        help="score a session again with another rubric, into a new session",
        description="Replay a session's captured actions and observations through another rubric and\n"
        "record a new session, linked to the old one: episodes, steps, groups and samples are kept, so that\n"
        "'rubriscope compare' sets the two against each other. What cannot be replayed (captures that\n"
        "were cut, reprs of objects) is left out and counted.",
        epilog="examples:\n"
        "  rubriscope rescore runs.db --session grpo --rubric rewards:Strict --into grpo-strict\n"
        "  rubriscope rescore runs.db -s grpo --rubric rewards:make --into again --restore json:loads\n"
        "  rubriscope compare runs.db grpo grpo-strict\n\n"
        "Exits with 1 where --strict refused, or the rubric raised for some snapshot.",
    )
    parser.add_argument("target", metavar="TARGET", help="a database or .jsonl file, also TARGET:SESSION")
    parser.add_argument("--session", "-s", metavar="SESSION", help="name, UUID or number")
    parser.add_argument(
        "--rubric",
        required=True,
        metavar="MODULE:NAME",
        help="a rubric, its class or a function that makes it; modules are found from this folder too",
    )
    parser.add_argument("--into", required=True, metavar="NAME", help="the new session's name")
    parser.add_argument("--to-target", metavar="TARGET", help="record there instead of into TARGET")
    parser.add_argument(
        "--restore",
        metavar="MODULE:FUNCTION",
        help="makes a value of each captured text; called as f(text), or f(name, text) where it takes two",
    )
    parser.add_argument("--strict", action="store_true", help="record nothing where something is left out")
    parser.add_argument(
        "--batch-size", type=int, default=256, metavar="N", help="snapshots scored at once (default 256)"
    )
    add_range(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replays, records and reports."""
    from ..adapters._scoring import resolve

    film, session = open_session(arguments.target, arguments.session)
    sys.path.insert(0, os.getcwd())
    try:
        rubric = resolve(arguments.rubric)
        restore = None if arguments.restore is None else _restore(arguments.restore)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        given = " ".join(filter(None, (arguments.rubric, arguments.restore)))
        raise CommandError(f"{given}: {error}") from error
    with progress(f"rescoring {printable(session.name)}") as report:
        try:
            result = film.rescore(
                session,
                rubric,
                arguments.into,
                target=arguments.to_target,
                restore=restore,
                strict=arguments.strict,
                batch_size=arguments.batch_size,
                episode=arguments.episode,
                start=arguments.start,
                stop=arguments.stop,
                progress=report,
            )
        except ValueError as error:
            raise CommandError(str(error), FAILED if "cannot be replayed" in str(error) else 2) from error
    if arguments.json:
        print_json(result.to_dict())
        return FAILED if result.failed else OK
    out = console()
    out.print(
        f"{many(result.snapshots, 'snapshot')} of {printable(session.name)} rescored into "
        f"{printable(result.name)} ({result.session})",
        soft_wrap=True,
    )
    for reason, count in result.left_out.items():
        out.print(f"  {many(count, 'snapshot')} left out: {reason}", style="yellow", soft_wrap=True)
    if result.failed:
        failed = f"✗ the rubric raised for {many(result.failed, 'snapshot')}, first at {result.first_failure}"
        out.print(printable(failed), style="red", soft_wrap=True)
    other = "" if arguments.to_target is None else f"{arguments.to_target}:"
    one, two = f"{film.target}:{session.uuid[:8]}", f"{other or film.target + ':'}{result.session[:8]}"
    out.print(f"rubriscope compare {one} {two}", style="dim", soft_wrap=True)
    return FAILED if result.failed else OK


def _restore(name: str) -> Any:
    """``restore=`` of :meth:`Film.rescore` from a function of the text alone, or of name and text."""
    import inspect

    if ":" not in name:
        raise CommandError(f"--restore is MODULE:FUNCTION, got {name!r}")
    function = pkgutil.resolve_name(name)
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.default is parameter.empty
    ]
    return function if len(parameters) == 2 else lambda _, text: function(text)
