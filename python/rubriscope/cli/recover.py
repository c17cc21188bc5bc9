"""``rubriscope recover``: what died processes left in their journals, into the sinks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from .common import FAILED, OK, CommandError, add_command, console, print_json, progress


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "recover",
        run,
        help="bring what a killed process had accepted into its sinks",
        description="Bring the records that a killed process had accepted into its sinks, once each.\n"
        "Journals of living processes are left alone. rs.record() on the target does the same.",
        epilog="examples:\n  rubriscope recover runs.db\n  rubriscope recover runs.db.rubriscope\n\n"
        "Exits with 1 where a record was damaged; its journal is set aside as *.damaged.",
    )
    parser.add_argument("target", metavar="DIR|TARGET", help="a target, or a folder of journals")


def run(arguments: argparse.Namespace) -> int:
    """Recovers and reports."""
    from .._C import recover

    native: Callable[..., dict[str, Any]] = recover
    folder = journal_folder(arguments.target)
    if not os.path.isdir(folder):
        if folder != arguments.target and os.path.exists(_path(arguments.target)):
            return _report({}, folder, arguments.json)
        raise CommandError(f"{arguments.target}: no such target or folder of journals")
    with progress("recovering") as report:
        result = native(folder, report)
    return _report(result, folder, arguments.json)


def journal_folder(target: str) -> str:
    """The folder of a target's journals: itself where it is a folder, else ``<target>.rubriscope``."""
    path = _path(target)
    return path if os.path.isdir(path) else path + ".rubriscope"


def _path(target: str) -> str:
    scheme, colon, rest = target.partition(":")
    if colon and scheme.lower() in ("sqlite", "jsonl") and not os.path.exists(target):
        return "/" + rest.lstrip("/") if rest.startswith("//") else rest
    return target


def _count(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


def _report(result: dict[str, Any], folder: str, json: bool) -> int:
    names = ("records", "damaged", "writers", "left_alone", "set_aside")
    found = {name: result.get(name, 0) for name in names}
    code = FAILED if _count(found["damaged"]) else OK
    if json:
        print_json({"folder": folder, **found})
        return code
    out = console()
    writers, records = _count(found["writers"]), _count(found["records"])
    if writers == 0 and code == OK:
        out.print("nothing to recover")
    else:
        out.print(f"recovered {records:,} records of {writers:,} writer{'' if writers == 1 else 's'}")
    if _count(found["left_alone"]):
        out.print(f"left alone: {_count(found['left_alone'])} journals of living processes")
    if code != OK:
        out.print(f"✗ {_count(found['damaged']):,} damaged records could not be read", style="red")
    set_aside = found["set_aside"]
    if _count(set_aside):
        shown = (
            "\n  ".join(map(str, set_aside)) if isinstance(set_aside, (list, tuple)) else f"{set_aside} files"
        )
        out.print(f"set aside:\n  {shown}")
    return code
