"""``rubriscope keys``: the keys that sign ledgers, and those that encrypt recordings."""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import sys
from pathlib import Path
from typing import Any

from .. import _C, ledger, vault
from .common import OK, CommandError, Parser, add_command, print_json


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "keys",
        run,
        help="make, list and show the keys that sign ledgers; make and change those that encrypt",
        description="The Ed25519 keys that sign the checkpoints of ledgers. A recorder signs with\n"
        "RUBRISCOPE_LEDGER_KEY, else the file RUBRISCOPE_LEDGER_KEY_FILE, else ledger.key in\n"
        "$XDG_CONFIG_HOME/rubriscope, which it makes where there is none.\n"
        "And the keys of encrypted recordings (rs.EncryptedDatabaseSink).",
        epilog="examples:\n  rubriscope keys show\n  rubriscope keys new --name lab/cluster-3 cluster.key\n"
        "  rubriscope keys show cluster.key > cluster.pub\n  rubriscope keys new --vault vault.key\n"
        "  rubriscope keys rotate runs.db --key-file vault.key --new-key-file next.key",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    new = actions.add_parser("new", help="make a key; never overwrites one")
    new.add_argument("file", nargs="?", metavar="FILE", help="where (ledger.key in the key folder)")
    new.add_argument("--vault", action="store_true", help="a key that encrypts: 64 random hex digits in FILE")
    new.add_argument("--name", help="what the key is called in signatures, without + and spaces")
    show = actions.add_parser("show", help="print a key's public half, and its fingerprint on stderr")
    show.add_argument(
        "file", nargs="?", metavar="FILE", help="of this key (the one recorders here sign with)"
    )
    rotate = actions.add_parser(
        "rotate",
        help="change the key that encrypts a recording",
        description="Wraps the data keys of a recording by a new key; no record is written. It may be\n"
        "interrupted at any time and done again.",
    )
    rotate.add_argument("target", metavar="TARGET", help="runs.db")
    rotate.add_argument("--key-file", required=True, metavar="FILE", help="the key now")
    rotate.add_argument("--new-key-file", required=True, metavar="FILE", help="the key from now on")
    actions.add_parser("list", help="the keys that verify trusts")


def run(arguments: argparse.Namespace) -> int:
    """Does what the action says."""
    if arguments.action == "list":
        return _list(arguments)
    if arguments.action == "rotate":
        return _rotate(arguments)
    if arguments.action == "new" and arguments.vault:
        return _new_vault_key(arguments)
    path = Path(arguments.file) if arguments.file else Path(_C.ledger_key_folder()) / "ledger.key"
    if arguments.action == "new":
        if path.exists():
            raise CommandError(f"{path} is there already; remove it, or name another file")
        name = arguments.name or f"rubriscope/{platform.node()}".replace("+", "-").replace(" ", "-")
        public = _C.LedgerKey.make(path, name).public
    elif path.is_file():
        public = _C.LedgerKey.read(path).public
    else:
        raise CommandError(f"there is no key {path}; rubriscope keys new makes one")
    if arguments.json:
        print_json({"file": str(path), "public": public, "fingerprint": ledger.fingerprint(public)})
        return OK
    print(public)
    print(f"{path}: {ledger.fingerprint(public)}", file=sys.stderr)
    return OK


def _new_vault_key(arguments: argparse.Namespace) -> int:
    if not arguments.file:
        raise CommandError("name the file of the key: rubriscope keys new --vault FILE")
    try:
        file = os.open(arguments.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{arguments.file} is there already; remove it, or name another file") from None
    with os.fdopen(file, "w") as out:
        out.write(secrets.token_hex(32) + "\n")
    identity = vault.load_key(key_file=arguments.file).id
    if arguments.json:
        print_json({"file": arguments.file, "id": identity})
    else:
        print(f"{arguments.file}: key {identity}. Who loses it loses what it encrypts.", file=sys.stderr)
    return OK


def _rotate(arguments: argparse.Namespace) -> int:
    before = vault.load_key(key_file=arguments.key_file)
    now = vault.load_key(key_file=arguments.new_key_file)
    rewrapped, already = vault.rotate(arguments.target, before, now)
    if arguments.json:
        print_json({"key": now.id, "rewrapped": rewrapped, "already": already})
        return OK
    rest = f" ({already:,} were already)" if already else ""
    print(f"{arguments.target}: {rewrapped:,} keys are wrapped by {now.id} now{rest}")
    return OK


def _list(arguments: argparse.Namespace) -> int:
    keys = {public: ledger.fingerprint(public) for public in ledger.public_keys()}
    if arguments.json:
        print_json([{"public": public, "fingerprint": digest} for public, digest in keys.items()])
        return OK
    for public, digest in keys.items():
        print(f"{public}  {digest}")
    return OK
