"""``rubriscope recover``: what died processes left in their journals, into the sinks."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .._postgres_url import is_postgres, remember
from ..render import printable
from ..targets import _SINK_MODULES
from .common import FAILED, OK, CommandError, add_command, console, file_of, many, print_json, progress


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "recover",
        run,
        help="bring what a killed process had accepted into its sinks",
        description="Bring the records that a killed process had accepted into its sinks, once each.\n"
        "Journals of living processes are left alone. rs.record() on the target does the same.",
        epilog="examples:\n  rubriscope recover runs.db\n  rubriscope recover runs.db.rubriscope\n"
        "  PGPASSWORD=… rubriscope recover postgresql://me@host/runs\n\n"
        "Exits with 1 where a record was damaged (its journal is set aside), or where a sink\n"
        "could not take what there is (the journal is kept, and can be recovered later).",
    )
    parser.add_argument("target", metavar="DIR|TARGET", help="a target, or a folder of journals")


def run(arguments: argparse.Namespace) -> int:
    """Recovers and reports."""
    folder = journal_folder(arguments.target)
    if not os.path.isdir(folder):
        is_server = is_postgres(arguments.target) or _is_url(arguments.target)
        if not is_server and not os.path.exists(file_of(arguments.target)):
            raise CommandError(f"{arguments.target}: no such target or folder of journals")
        return _report({}, folder, arguments.json)
    from .._C import recover
    from ..ledger import use_default_key
    from ..targets import sink_for_target

    use_default_key()
    with progress("recovering") as report:
        result = recover(folder, sink_for_target, lambda journal, done, total: report(done, total))
    return _report(result, folder, arguments.json)


def journal_folder(target: str) -> str:
    """The folder of a target's journals: itself where it is a folder, ``<target>.rubriscope`` for a file, and
    one below the state folder for what is no file. A password in the URL is kept for opening it."""
    if is_postgres(target):
        from .._C import journal_dir_for

        return str(journal_dir_for(remember(target)))
    path = file_of(target)
    if os.path.isdir(path):
        return path
    if _is_url(target):
        from .._C import journal_dir_for
        from ..targets import sink_for_target, target_of

        return str(journal_dir_for(target_of(sink_for_target(target))))
    return path + ".rubriscope"


def _is_url(target: str) -> bool:
    scheme, colon, _ = target.partition(":")
    return bool(colon) and scheme in _SINK_MODULES


def _report(result: dict[str, Any], folder: str, json: bool) -> int:
    counts = ("journals", "delivered", "torn", "damaged")
    found: dict[str, Any] = {name: result.get(name, 0) for name in counts}
    for name in ("set_aside", "kept", "left_alone"):
        found[name] = [os.fspath(path) for path in result.get(name, [])]
    found["messages"] = list(result.get("messages", []))
    code = FAILED if found["damaged"] or found["kept"] else OK
    if json:
        print_json({"folder": folder, **found})
        return code
    out = console()
    if found["journals"]:
        records, journals = many(found["delivered"], "record"), many(found["journals"], "journal")
        out.print(f"recovered {records} from {journals}")
    else:
        out.print("nothing to recover")
    if found["torn"]:
        out.print(f"{many(found['torn'], 'record')} were still being written, so never accepted")
    if found["damaged"]:
        out.print(f"✗ {many(found['damaged'], 'record')} damaged and lost", style="red")
    for name, label in (
        ("set_aside", "set aside, to be looked at"),
        ("kept", "✗ not delivered, kept"),
        ("left_alone", "left alone: its process lives"),
    ):
        for path in found[name]:
            out.print(f"{label}: {printable(path)}", style="red" if name == "kept" else None, soft_wrap=True)
    for message in found["messages"]:
        out.print(printable(message), soft_wrap=True)
    return code
