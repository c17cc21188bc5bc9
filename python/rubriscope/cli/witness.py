"""``rubriscope witness``: a second signature under a ledger's checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .. import _C, ledger
from .common import FAILED, OK, CommandError, add_command, console, open_session, print_json, progress


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "witness",
        run,
        help="verify a session and sign its checkpoints with a second key",
        description="Verify a session, and where everything holds add a signature to the checkpoint of each\n"
        "of its logs, with a key that the recording user does not have. The signed checkpoints are\n"
        "printed; keep them, and give them to rubriscope verify --against later.",
        epilog="examples:\n  rubriscope witness runs.db:grpo --key auditor.key > grpo.notes",
    )
    parser.add_argument("target", metavar="TARGET", help="a database, also TARGET:SESSION")
    parser.add_argument("session", nargs="?", metavar="SESSION", help="its name, UUID or number")
    parser.add_argument("--key", required=True, metavar="FILE", help="the witness's private key (keys new)")
    parser.add_argument("--trust", action="append", default=[], metavar="KEY", help="the log's public key")


def run(arguments: argparse.Namespace) -> int:
    """Verifies, signs, prints."""
    film, session = open_session(arguments.target, arguments.session)
    key = _C.LedgerKey.read(arguments.key)
    trusted = [Path(k).read_text().strip() if Path(k).is_file() else k for k in arguments.trust]
    trusted = trusted or ledger.public_keys()
    with progress(f"verifying {session.name}") as report:
        verdicts = ledger.verify(film.target, session.uuid, keys=trusted, progress=report)
    for verdict in verdicts:
        if verdict.problem or verdict.unsigned_tail:
            problem = verdict.problem or f"{verdict.unsigned_tail:,} entries are signed by nobody"
            console(stderr=True).print(
                f"✗ {session.name}, rank {verdict.rank}: {problem}; nothing was signed"
            )
            return FAILED
    notes = []
    for verdict in verdicts:
        checkpoint = ledger.Ledger(film.target, session.uuid, verdict.writer_id).checkpoint()
        if checkpoint is None or checkpoint.size != verdict.size:
            raise CommandError(f"{session.name} went on meanwhile; try again", FAILED)
        note = _C.cosign(checkpoint.note, key)
        if not ledger.replace_checkpoint(film.target, verdict.writer_id, checkpoint.note, note):
            raise CommandError(f"{session.name} went on meanwhile; try again", FAILED)
        notes.append(note)
    if arguments.json:
        print_json({"session": session.uuid, "checkpoints": notes})
    else:
        print("\n".join(notes), end="")
    return OK
