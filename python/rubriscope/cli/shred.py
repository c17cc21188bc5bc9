"""``rubriscope shred``: makes an encrypted session unreadable for good."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .. import vault
from ..film import Film
from .common import OK, CommandError, add_command, print_json, split_target


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "shred",
        run,
        help="destroy an encrypted session's keys: nobody can read it any more",
        description="Destroys the data keys of an encrypted session. Nobody can read it then, with whatever\n"
        "key; it is still listed, and its ledger still verifies. Copies of the file made before keep theirs.",
        epilog="examples:\n  rubriscope shred runs.db:grpo\n  rubriscope shred runs.db grpo --yes",
    )
    parser.add_argument("target", metavar="TARGET[:SESSION]", help="the recording")
    parser.add_argument("session", nargs="?", metavar="SESSION", help="name, UUID or number")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    """Asks, and shreds."""
    target, in_target = split_target(arguments.target)
    with Film(target) as film:
        session = film.session(arguments.session if arguments.session is not None else in_target)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise CommandError("shredding cannot be undone: say --yes where nobody can be asked")
        print(
            f"{target}: session {session.name!r} ({session.uuid}), {session.steps:,} steps.", file=sys.stderr
        )
        if input("Make it unreadable for ever? Type its name: ") != session.name:
            raise CommandError("nothing was shredded")
    keys = vault.shred(target, session)
    if keys == 0:
        raise CommandError(
            f"session {session.name!r} has no keys: it is not encrypted, or was shredded before"
        )
    if arguments.json:
        print_json({"session": session.uuid, "keys": keys})
    else:
        print(f"{session.name}: {keys:,} keys destroyed; nobody can read it any more")
    return OK
