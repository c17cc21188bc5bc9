"""``rubriscope verify``: is everything recorded still what was signed?"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..render import printable
from .common import FAILED, OK, CommandError, add_command, console, many, print_json, progress, split_target

if TYPE_CHECKING:
    from rich.console import Console

    from ..checkpoints import Finding, State

_OTHERS: dict[State, str] = {"replaced": "replaced by a later one", "no file": "without a file"}


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "verify",
        run,
        help="check a recording against its ledger",
        description="Read every record again and compare it with the signed Merkle tree: changed, removed,\n"
        "inserted, reordered or truncated records, rows that disagree with their signed bytes, a\n"
        "rewound log and a forged checkpoint are found, and the first record that does not hold\n"
        "is named. Checkpoints of models are read too: a file that is missing or has changed is named.",
        epilog="examples:\n  rubriscope verify runs.db\n"
        "  rubriscope verify runs.db --session grpo --against kept.note\n"
        "  rubriscope verify runs.db --key auditor/host.pub --strict\n"
        "  rubriscope verify runs.db --checkpoints /mnt/models\n\n"
        "Exits with 0 only where everything holds. Entries after the last checkpoint (a process\n"
        "was killed, or recovered without the key) are checked, counted and reported; --strict\n"
        "makes them a failure.",
    )
    parser.add_argument("target", metavar="TARGET", help="a database, or TARGET:SESSION")
    parser.add_argument("--session", metavar="S", help="one session: name, UUID or number (all)")
    parser.add_argument(
        "--against", metavar="FILE", action="append", default=[], help="an earlier checkpoint, kept elsewhere"
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        action="append",
        default=[],
        help="a public key (name+id+base64) or a file with one, instead of this user's",
    )
    parser.add_argument(
        "--checkpoints", metavar="DIR", help="where the models' checkpoints are now, by their last names"
    )
    parser.add_argument(
        "--no-checkpoints", action="store_true", help="do not read the models' checkpoints again"
    )
    parser.add_argument("--strict", action="store_true", help="entries that nobody signed are a failure")


def run(arguments: argparse.Namespace) -> int:
    """Verifies and reports."""
    from .. import checkpoints, ledger
    from ..film import Film

    path, named = split_target(arguments.target)
    with Film(path) as film:
        wanted = arguments.session if arguments.session is not None else named
        sessions = film.sessions() if wanted is None else [film.session(wanted)]
        # Of all sessions: a later one may have written to the same path.
        taken = [] if arguments.no_checkpoints else [c for s in film.sessions() for c in film.checkpoints(s)]
    if not sessions:
        raise CommandError(f"{arguments.target} holds no session")
    keys = [_key(given) for given in arguments.key] or ledger.public_keys()
    against = [ledger.Checkpoint.parse(Path(path).read_text()) for path in arguments.against]
    verdicts: dict[str, list[ledger.Verdict]] = {}
    left = {checkpoint.origin: checkpoint for checkpoint in against}
    for session in sessions:
        mine = [c for c in against if c.origin.split("/")[1:2] == [session.uuid]]
        for checkpoint in mine:
            left.pop(checkpoint.origin, None)
        with progress(f"verifying {printable(session.name)}") as report:
            try:
                verdicts[session.uuid] = ledger.verify(
                    path, session.uuid, keys=keys, against=mine, progress=report
                )
            except ledger.NoLedgerError:
                if mine:
                    raise
                verdicts[session.uuid] = []
    if left:
        raise CommandError(f"no session here has the log {next(iter(left))} of a given checkpoint", FAILED)
    with progress("reading checkpoints") as report:
        findings = checkpoints.check(taken, folder=arguments.checkpoints, progress=report)
    chosen = {session.uuid for session in sessions}
    findings = [finding for finding in findings if finding.checkpoint.session in chosen]
    return _report(arguments, sessions, verdicts, keys, findings)


def _key(given: str) -> str:
    return Path(given).read_text().strip() if Path(given).is_file() else given


def _report(
    arguments: argparse.Namespace,
    sessions: list[Any],
    verdicts: dict[str, list[Any]],
    keys: list[str],
    findings: list[Finding],
) -> int:
    from ..ledger import fingerprint

    logs = [verdict for found in verdicts.values() for verdict in found]
    tail = sum(verdict.unsigned_tail for verdict in logs)
    broken = [verdict for verdict in logs if verdict.problem]
    missing = [session for session in sessions if not verdicts[session.uuid]]
    lost = [finding for finding in findings if finding.state in ("changed", "missing")]
    failed = bool(broken or lost or (arguments.strict and (tail or missing)))
    signers = {verdict.signed_by for verdict in logs if verdict.signed_by}
    used = [key for key in keys if key.split("+")[0] in signers]
    if arguments.json:
        print_json(
            {
                "holds": not failed,
                "keys": {key: fingerprint(key) for key in used},
                "sessions": [
                    {
                        "session": session.uuid,
                        "name": session.name,
                        "logs": [
                            {
                                "origin": v.origin,
                                "rank": v.rank,
                                "size": v.size,
                                "records": v.records,
                                "signed_size": v.signed_size,
                                "unsigned_tail": v.unsigned_tail,
                                "signed_by": v.signed_by,
                                "root": v.root.hex(),
                                "problem": v.problem,
                            }
                            for v in verdicts[session.uuid]
                        ],
                        "checkpoints": [
                            {**f.checkpoint.to_dict(), "state": f.state, "detail": f.detail}
                            for f in findings
                            if f.checkpoint.session == session.uuid
                        ],
                    }
                    for session in sessions
                ],
            }
        )
        return FAILED if failed else OK
    out = console()
    for session in sessions:
        found = verdicts[session.uuid]
        if not found:
            style = "red" if arguments.strict else "yellow"
            out.print(f"{printable(session.name)}: has no ledger", style=style)
        for v in found:
            place = f"{printable(session.name)}, rank {v.rank}"
            if v.problem:
                out.print(f"✗ {place}: {printable(v.problem)}", style="red", soft_wrap=True)
                continue
            signed = f"signed by {v.signed_by}" if v.signed_by else "signed by nobody"
            out.print(
                f"✓ {place}: {v.records:,} records in {v.size:,} entries hold, {signed}", soft_wrap=True
            )
            if v.unsigned_tail:
                out.print(
                    f"  {v.unsigned_tail:,} entries after the last checkpoint are whole, but not signed",
                    style="red" if arguments.strict else "yellow",
                )
        _print_checkpoints(out, session, [f for f in findings if f.checkpoint.session == session.uuid])
    for key in used:
        out.print(f"key {key.split('+')[0]}: {fingerprint(key)}", soft_wrap=True)
    return FAILED if failed else OK


def _print_checkpoints(out: Console, session: Any, findings: list[Finding]) -> None:
    name = printable(session.name)
    for finding in findings:
        if finding.state in ("changed", "missing"):
            place = f"{name}, step {finding.checkpoint.step}, rank {finding.checkpoint.rank}"
            said = f"✗ {place}: the checkpoint is {finding.state}: {printable(finding.detail)}"
            out.print(said, style="red", soft_wrap=True)
    counts = Counter(finding.state for finding in findings)
    others = [f"{counts[state]:,} {said}" for state, said in _OTHERS.items() if counts[state]]
    if counts["holds"] or others:
        verb = "holds" if counts["holds"] == 1 else "hold"
        held = f"{many(counts['holds'], 'checkpoint')} of the model {verb}"
        out.print(", ".join([f"✓ {name}: {held}", *others]), soft_wrap=True)
