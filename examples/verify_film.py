"""Verifies a bundle (``rubriscope export runs.db --bundle FOLDER``) without rubriscope and without torch.

    pip install cbor2 cryptography
    python verify_film.py FOLDER [--key PUBLIC] [--against CHECKPOINT] [--strict]

Reads every record again, builds the Merkle tree of RFC 6962 over it, compares it with the stored tiles and
with the signed checkpoint, and prints what ``rubriscope verify`` prints: the first thing that does not hold,
or that everything does. Without ``--key`` the bundle's own public keys are trusted, which shows damage, but
not that somebody made the whole bundle anew: get the key from whom you trust.

Exit codes: 0 everything holds, 1 something does not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256


class Problem(Exception):
    """What does not hold."""


# ---- RFC 6962


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The roots of the full subtrees that the leaves so far are made of."""

    def __init__(self) -> None:
        self.size = 0
        self._subtrees: list[tuple[int, bytes]] = []  # (leaves, root), the largest first

    def add(self, leaf: bytes) -> None:
        count = 1
        while self._subtrees and self._subtrees[-1][0] == count:
            leaf = node_hash(self._subtrees.pop()[1], leaf)
            count *= 2
        self._subtrees.append((count, leaf))
        self.size += 1

    def root(self) -> bytes:
        if not self._subtrees:
            return hashlib.sha256(b"").digest()
        root = self._subtrees[-1][1]
        for _, left in reversed(self._subtrees[:-1]):
            root = node_hash(left, root)
        return root


# ---- c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-tiles


def parse_key(text: str) -> tuple[str, bytes, Ed25519PublicKey]:
    """Name, id and key of ``name+id+base64``."""
    name, key_id, encoded = text.strip().split("+", 2)
    raw = base64.b64decode(encoded, validate=True)
    expected = hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4]
    if raw[:1] != b"\x01" or key_id != expected.hex():
        raise ValueError(f"not an Ed25519 verifier key: {text!r}")
    return name, expected, Ed25519PublicKey.from_public_bytes(raw[1:])


def signers(note: str, keys: list[str]) -> tuple[str, list[str]]:
    """A note's text, and the names of the given keys that signed it."""
    text, _, rest = note.rpartition("\n\n")
    text += "\n"
    found = []
    for key in keys:
        name, key_id, public = parse_key(key)
        for line in rest.splitlines():
            dash, signer, encoded = line.split(" ", 2)
            signature = base64.b64decode(encoded)
            if dash != "—" or signer != name or signature[:4] != key_id:
                continue
            try:
                public.verify(signature[4:], text.encode())
            except InvalidSignature:
                continue
            found.append(name)
    return text, found


def tile_path(kind: str, index: int, width: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03}")
    path = "/".join(["tile", kind, *reversed(groups)])
    return path if width == WIDTH else f"{path}.p/{width}"


def read(path: Path) -> bytes:
    if not path.is_file():
        raise Problem(f"{path.name} is missing ({path})")
    return path.read_bytes()


def entries(folder: Path, size: int) -> Iterator[bytes]:
    """A log's entries, in order."""
    for begin in range(0, size, WIDTH):
        count = min(WIDTH, size - begin)
        packed = read(folder / tile_path("entries", begin // WIDTH, count))
        at = 0
        for _ in range(count):
            length = int.from_bytes(packed[at : at + 2], "big")
            entry = packed[at + 2 : at + 2 + length]
            at += 2 + length
            # Records are CBOR maps; a text stands for one that is too large, in a file of its own.
            if entry.startswith(b"sha256:"):
                entry = read(folder / "large" / entry[7:].decode())
            yield entry


# ---- the records


class Records:
    """Checks that entries are this log's, in canonical form, and that no record is missing or there twice."""

    def __init__(self, session: bytes, writer: bytes) -> None:
        self.count = 0
        self.next = 0  #: the sequence that has to come
        self._owner = (session, writer)
        self._missing: set[int] = set()
        self._late: int | None = None

    def add(self, entry: bytes) -> None:
        fields: dict[int, Any] = cbor2.loads(entry)
        if cbor2.dumps(fields, canonical=True) != entry:
            raise Problem(f"record {self.next} is not in canonical form")
        if (fields[2], fields[3]) != self._owner:
            raise Problem(f"record {self.next} belongs to another session or writer")
        kind = fields[1]
        if kind == 5:  # a gap
            if fields[33] != self.next or fields[34] < fields[33]:
                raise Problem("the log notes a gap where there is none")
            self._missing.update(range(fields[33], fields[34] + 1))
            self.next = fields[34] + 1
        elif kind == 6:  # a record of a gap, after all
            if fields[33] not in self._missing:
                raise Problem(f"record {fields[33]} is noted as late, and was not missing")
            self._late = fields[33]
        elif kind in (1, 2):
            expected = self.next if self._late is None else self._late
            if fields[4] != expected:
                raise Problem(f"record {expected} is missing: record {fields[4]} stands in its place")
            if self._late is None:
                self.next += 1
            else:
                self._missing.discard(expected)
                self._late = None
            self.count += 1


def verify_log(
    folder: Path, log: dict[str, Any], keys: list[str], against: list[str]
) -> tuple[int, int, str]:
    """Records, entries that nobody signed, and who signed. Raises Problem."""
    _, session, writer = (part.replace("-", "") for part in log["origin"].split("/"))
    roots: dict[int, bytes] = {}
    signed, names = 0, ""
    notes = [(note, False) for note in against]
    if (folder / "checkpoint").is_file():
        notes.append(((folder / "checkpoint").read_text(), True))
    for note, own in notes:
        text, found = signers(note, keys)
        origin, size, root, *_ = text.split("\n")
        if not found:
            raise Problem("its checkpoint is not signed by a key that is trusted here")
        if origin != log["origin"]:
            if own:
                raise Problem(f"its checkpoint is that of {origin}")
            continue
        if int(size) > log["size"]:
            raise Problem(
                f"the log was rewound: it has {log['size']} entries, and a checkpoint of {size} was signed"
            )
        if roots.setdefault(int(size), base64.b64decode(root)) != base64.b64decode(root):
            raise Problem(f"two checkpoints of {size} entries differ")
        if own:
            signed, names = int(size), ", ".join(found)
    tree = Tree()
    tile: list[bytes] = []
    records = Records(bytes.fromhex(session), bytes.fromhex(writer))
    for index, entry in enumerate(entries(folder, log["size"])):
        if index in roots and roots[index] != tree.root():
            raise Problem(f"its first {index} entries are not those that a checkpoint was signed for")
        leaf = leaf_hash(entry)
        if index % WIDTH == 0:
            width = min(WIDTH, log["size"] - index)
            stored = read(folder / tile_path("0", index // WIDTH, width))
            tile = [stored[i : i + 32] for i in range(0, len(stored), 32)]
        if leaf != tile[index % WIDTH]:
            raise Problem(f"record {records.next} was changed: its bytes are not those in the log")
        records.add(entry)
        tree.add(leaf)
    if roots.get(log["size"], tree.root()) != tree.root():
        raise Problem(f"its first {log['size']} entries are not those that a checkpoint was signed for")
    return records.count, log["size"] - signed, names


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, metavar="FOLDER", help="what rubriscope export --bundle wrote")
    parser.add_argument("--key", action="append", default=[], help="a public key, or a file with one")
    parser.add_argument("--against", action="append", default=[], type=Path, help="an earlier checkpoint")
    parser.add_argument("--strict", action="store_true", help="entries that nobody signed are a failure")
    arguments = parser.parse_args()
    try:
        described = json.loads((arguments.bundle / "bundle.json").read_text())
        keys = [Path(key).read_text() if Path(key).is_file() else key for key in arguments.key]
        keys = keys or (arguments.bundle / "public.keys").read_text().splitlines()
        against = [path.read_text() for path in arguments.against]
    except (OSError, ValueError) as error:
        print(f"verify_film: {error}", file=sys.stderr)
        return 2
    failed = False
    for log in described["logs"]:
        place = f"{described['name']}, rank {log['rank']}"
        try:
            records, tail, names = verify_log(arguments.bundle / log["folder"], log, keys, against)
        except (Problem, ValueError, KeyError, IndexError, cbor2.CBORDecodeError) as problem:
            print(f"✗ {place}: {problem}")
            failed = True
            continue
        print(
            f"✓ {place}: {records:,} records in {log['size']:,} entries hold, signed by {names or 'nobody'}"
        )
        if tail:
            print(f"  {tail:,} entries after the last checkpoint are whole, but not signed")
            failed = failed or arguments.strict
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
