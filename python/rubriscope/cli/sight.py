"""``rubriscope sight``: what is observed in a running process, and injections that come and go."""

from __future__ import annotations

import argparse
from typing import Any

from ..code_sight._control import ask, listening
from .common import OK, CommandError, add_command, console, many, print_json

_TARGET = """\
TARGET is a Python function or method of the process, as pkg.mod:Class.method, or the end of such a name that
only one function of its loaded modules has, as Class.method."""

_CONDITIONS = """\
conditions and messages:
  execution_time_ms, cpu_time_ms, result, error, args.NAME, metrics.NAME, with .attr, [3] or ["key"] behind
  objects; or and not, comparisons, + - * / // % **, numbers, 'text', True False None, abs min max isnan len.
  A message holds them in braces.

examples:
  rubriscope sight inject --pid 4242 Policy.forward --metric execution_time_ms --threshold 1.2
  rubriscope sight inject --pid 4242 train:step --metric result.loss
  rubriscope sight inject --pid 4242 train:step --condition 'args.batch > 64 and execution_time_ms > 5' \\
      --message 'slow: {execution_time_ms} ms'"""


def register(commands: Any) -> None:
    """Adds ``sight list``, ``inject``, ``remove``, ``enable`` and ``disable``."""
    sight = commands.add_parser(
        "sight",
        help="watch functions of a running process",
        description="Watch functions of a running process. It must listen: start it with\n"
        "RUBRISCOPE_SIGHT=1, or call rs.get_code_sight().listen() in it. Only its own user (and root)\n"
        "can reach it.",
    )
    below = sight.add_subparsers(dest="sight_command", metavar="COMMAND", title="commands", required=True)
    shown = add_command(
        below,
        "list",
        run_list,
        help="injections and figures of a process, or the processes that listen",
        description="List injections and the figures of all sight points of a process; without --pid, the\n"
        "processes of this user that listen.",
    )
    shown.add_argument("--pid", type=int, help="the process")
    inject = add_command(
        below,
        "inject",
        run_inject,
        help="measure or log calls of a function",
        description=f"Measure or log every call of a function from now on.\n\n{_TARGET}",
        epilog=_CONDITIONS,
    )
    _add_pid(inject)
    inject.add_argument("target", metavar="TARGET", help="the function")
    what = inject.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--metric",
        metavar="NAME",
        help="execution_time_ms, cpu_time_ms, result, args.NAME or result.NAME",
    )
    what.add_argument("--message", metavar="TEXT", help="a message to log")
    inject.add_argument("--threshold", type=float, metavar="X", help="a metric above this is a violation")
    inject.add_argument("--condition", metavar="EXPR", help="log only calls at which this holds")
    inject.add_argument(
        "--action",
        choices=("log", "metric", "alert", "snapshot", "fail_closed"),
        help="what is done then (alert with --threshold, metric without; log with --message)",
    )
    inject.add_argument("--level", default="info", help="of the logged message (info)")
    inject.add_argument("--modality", help="of the observations (inference)")
    for name, help in (
        ("remove", "take an injection away"),
        ("enable", "let an injection act, or observe a point, again"),
        ("disable", "let an injection or a point rest"),
    ):
        parser = add_command(below, name, run_change, help=help, description=f"{help.capitalize()}.")
        _add_pid(parser)
        of = "an injection" if name == "remove" else "an injection, or a point's name"
        parser.add_argument("id", metavar="ID", help=f"the id of {of}")


def _add_pid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pid", type=int, required=True, help="the process")


def run_list(arguments: argparse.Namespace) -> int:
    """Processes, or what one of them observes."""
    if arguments.pid is None:
        return _list_processes(arguments.json)
    status = _ask(arguments.pid, "list")
    if arguments.json:
        print_json(status)
        return OK
    from rich.table import Table

    out = console()
    injections = Table("id", "function", "what", "action", "state", "acted", "undecided", box=None)
    for one in status["injections"]:
        state = "on" if one["enabled"] else "off"
        counts = (f"{one['hits']:,}", f"{one['undecided']:,}")
        injections.add_row(one["id"], one["target"], _what(one), one["action"], state, *counts)
    out.print(many(len(status["injections"]), "injection"))
    if status["injections"]:
        out.print(injections)
    points = Table("point", "calls", "errors", "p50 ms", "p95 ms", "p99 ms", box=None)
    for name, figures in status["points"].items():
        times = (f"{figures[key]:.3f}" for key in ("p50_ms", "p95_ms", "p99_ms"))
        points.add_row(name, f"{figures['count']:,}", f"{figures['errors']:,}", *times)
    if status["points"]:
        out.print(points)
    return OK


def _list_processes(as_json: bool) -> int:
    pids = listening()
    if as_json:
        print_json(pids)
    elif pids:
        print("\n".join(map(str, pids)))
    else:
        print("no process listens (RUBRISCOPE_SIGHT=1, or rs.get_code_sight().listen() in it)")
    return OK


def _what(injection: dict[str, Any]) -> str:
    if injection["kind"] == "metric":
        limit = injection["alert_threshold"]
        return str(injection["metric_name"]) + (f" > {limit:g}" if limit is not None else "")
    condition = injection["condition"]
    return (f"if {condition}: " if condition is not None else "") + repr(injection["message"])


def run_inject(arguments: argparse.Namespace) -> int:
    """Injects and prints the id."""
    common = {"target": arguments.target, "modality": arguments.modality}
    if arguments.metric is not None:
        if arguments.condition is not None:
            raise CommandError("--condition is for --message; a metric has --threshold")
        id = _ask(
            arguments.pid,
            "inject_metric",
            metric_name=arguments.metric,
            alert_threshold=arguments.threshold,
            action=arguments.action,
            **common,
        )
    else:
        if arguments.threshold is not None:
            raise CommandError("--threshold is for --metric; a message has --condition")
        id = _ask(
            arguments.pid,
            "inject_log",
            condition=arguments.condition,
            message=arguments.message,
            action=arguments.action or "log",
            level=arguments.level,
            **common,
        )
    if arguments.json:
        print_json({"id": id})
    else:
        print(id)
    return OK


def run_change(arguments: argparse.Namespace) -> int:
    """Removes, enables or disables."""
    operation = arguments.sight_command
    _ask(arguments.pid, operation, **{"id" if operation == "remove" else "name": arguments.id})
    if arguments.json:
        print_json({"id": arguments.id})
    return OK


def _ask(pid: int, op: str, **request: Any) -> Any:
    try:
        return ask(pid, op, **request)
    except (KeyError, LookupError, TypeError, ValueError, RuntimeError, ProcessLookupError) as error:
        raise CommandError(str(error.args[0]) if error.args else str(error)) from error
