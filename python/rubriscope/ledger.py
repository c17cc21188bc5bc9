"""The ledger: a Merkle tree over everything a session recorded, signed, so that a later change shows.

What it proves, and what not, is in docs/ledger.md.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import _C
from ._C import MerkleTree, verify_consistency, verify_inclusion

__all__ = [
    "Checkpoint",
    "Ledger",
    "MerkleTree",
    "NoLedgerError",
    "Verdict",
    "fingerprint",
    "public_keys",
    "verify",
    "verify_consistency",
    "verify_inclusion",
]


class NoLedgerError(ValueError):
    """A session that was recorded with ``ledger=False``."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session!r} has no ledger: it was recorded with ledger=False")


@dataclass(frozen=True)
class Checkpoint:
    """What a log's key vouches for: that the log ``origin`` began with ``size`` entries of this root."""

    note: str  #: the signed note (c2sp.org/signed-note), to be kept where the log's keeper cannot change it
    origin: str
    size: int
    root: bytes

    @classmethod
    def parse(cls, note: str) -> Checkpoint:
        """Reads a signed note; the signature is not looked at here.

        Raises:
            ValueError: the text is no signed checkpoint.
        """
        found = _C.open_checkpoint(note, [])
        return cls(note, found["origin"], found["size"], found["root"])


@dataclass(frozen=True)
class Verdict:
    """What became of one log in a verification."""

    origin: str
    writer_id: str
    rank: int
    size: int  #: entries of the log
    records: int  #: snapshots and scalars among them that were gone through
    root: bytes  #: of all entries, where nothing is wrong
    signed_size: int  #: entries under the log's own checkpoint
    signed_by: str  #: its key's name, "" where there is no checkpoint
    problem: str  #: the first thing that does not hold, "" where all holds

    @property
    def unsigned_tail(self) -> int:
        """Entries after the last checkpoint: whole, and vouched for by nobody."""
        return self.size - self.signed_size


class Ledger:
    """One writer's log of a recorded session.

    Args:
        target: The database, a path, ``sqlite:///…`` or ``postgresql://…``.
        session: Name, UUID or number; may be left out where there is one session.
        writer: The writer's UUID; may be left out where the session has one writer.

    Raises:
        FileNotFoundError: there is no such database.
        KeyError: no such session or writer, or none given where there are several.
        NoLedgerError: the session was recorded with ``ledger=False``.
        ValueError: the target is no database.
    """

    def __init__(
        self, target: str | os.PathLike[str], session: str | None = None, writer: str | None = None
    ) -> None:
        self._reader, self._session, self._name = _open(target, session)
        self._writer = self._find(writer).writer_id

    def _find(self, writer: str | None) -> Any:
        logs = self._reader.logs(self._session)
        if not logs:
            raise NoLedgerError(self._name)
        fitting = [log for log in logs if writer in (None, log.writer_id)]
        if len(fitting) != 1:
            known = ", ".join(f"{log.writer_id} (rank {log.rank})" for log in logs)
            what = f"no writer {writer!r}" if not fitting else "several writers, name one"
            raise KeyError(f"session {self._name!r}: {what}; there are {known}")
        return fitting[0]

    @property
    def _log(self) -> Any:
        return self._find(self._writer)

    @property
    def origin(self) -> str:
        """What the log is called in its checkpoints."""
        return str(self._log.origin)

    @property
    def size(self) -> int:
        """Entries stored so far: records, and the definitions they refer to."""
        return int(self._log.size)

    def __len__(self) -> int:
        return self.size

    def root(self, size: int | None = None) -> bytes:
        """The root of the first ``size`` entries, of all when left out; 32 bytes.

        Raises:
            ValueError: there are fewer.
        """
        log = self._log
        return bytes(self._reader.root(log, log.size if size is None else size))

    def entry(self, index: int) -> bytes:
        """The bytes of entry ``index``: a record's canonical CBOR, or a definition's.

        Raises:
            ValueError: there is none.
        """
        if index < 0:
            raise ValueError(f"there is no entry {index}")
        return bytes(self._reader.entries(self._log, index, index + 1)[0])

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """The hashes that lead from entry ``index`` to ``root(size)``; for :func:`verify_inclusion`.

        Raises:
            ValueError: there is no such entry, or fewer than ``size``.
        """
        log = self._log
        return list(self._reader.inclusion_proof(log, index, log.size if size is None else size))

    def consistency_proof(self, m: int, n: int | None = None) -> list[bytes]:
        """The hashes that show ``root(m)`` to be of a prefix of ``root(n)``; for :func:`verify_consistency`.

        Raises:
            ValueError: ``m > n``, or there are fewer than ``n`` entries.
        """
        log = self._log
        return list(self._reader.consistency_proof(log, m, log.size if n is None else n))

    def checkpoint(self) -> Checkpoint | None:
        """The last signed checkpoint; None where the log was written without a key."""
        note = self._log.checkpoint
        return Checkpoint.parse(note) if note else None

    def verify(
        self,
        *,
        keys: Iterable[str] | None = None,
        against: Iterable[Checkpoint] = (),
        progress: Callable[[int, int], object] | None = None,
    ) -> Verdict:
        """Reads everything again and compares; see :func:`verify`."""
        return _verify_log(self._reader, self._log, keys, against, progress)


def verify(
    target: str | os.PathLike[str],
    session: str | None = None,
    *,
    keys: Iterable[str] | None = None,
    against: Iterable[Checkpoint] = (),
    progress: Callable[[int, int], object] | None = None,
) -> list[Verdict]:
    """Reads every record of a session again and compares it with the ledger, row by row and byte by byte.

    Args:
        target: The database, a path, ``sqlite:///…`` or ``postgresql://…``.
        session: Name, UUID or number; may be left out where there is one session.
        keys: Public keys to trust (``name+id+base64``); left out, :func:`public_keys`.
        against: Earlier checkpoints, kept elsewhere: a log that was rewound behind one of them, or does not
            begin with what it was signed for, does not hold.
        progress: Called with the entries gone through and all of them, now and then.

    Returns:
        One verdict a log; all holds where no ``problem`` is set.

    Raises:
        NoLedgerError: the session has none.
        ValueError: a key or a checkpoint is not trusted or cannot be read.
    """
    reader, number, name = _open(target, session)
    logs = reader.logs(number)
    verdicts = [_no_log(log) for log in reader.without_log(number)]
    if not logs and not verdicts:
        raise NoLedgerError(name)
    given = list(against)
    trusted = list(public_keys() if keys is None else keys)
    for checkpoint in given:
        if checkpoint.origin not in {log.origin for log in logs}:
            raise ValueError(f"there is no log {checkpoint.origin} in session {name!r}")
    total = sum(log.size for log in logs)
    done = 0
    for log in logs:
        mine = [checkpoint for checkpoint in given if checkpoint.origin == log.origin]
        report = None if progress is None else lambda n, _, done=done: progress(done + n, total)
        verdicts.append(_verify_log(reader, log, trusted, mine, report))
        done += log.size
    return verdicts


def _no_log(log: Any) -> Verdict:
    return Verdict(
        origin=log.origin,
        writer_id=log.writer_id,
        rank=log.rank,
        size=0,
        records=0,
        root=b"",
        signed_size=0,
        signed_by="",
        problem="its records are in no log: it was removed, or they were recorded with ledger=False",
    )


def _verify_log(
    reader: Any,
    log: Any,
    keys: Iterable[str] | None,
    against: Iterable[Checkpoint],
    progress: Callable[[int, int], object] | None,
) -> Verdict:
    trusted = list(public_keys() if keys is None else keys)
    texts = []
    for checkpoint in against:
        opened = _C.open_checkpoint(checkpoint.note, trusted)
        if not opened["signed_by"]:
            raise ValueError(
                f"the checkpoint of {checkpoint.origin} at {checkpoint.size} is not signed by a trusted key"
            )
        if checkpoint.origin != log.origin:
            raise ValueError(f"the checkpoint is of the log {checkpoint.origin}, not of {log.origin}")
        texts.append(opened["text"])
    report = None if progress is None else lambda done: progress(done, log.size)
    found = reader.verify(log, trusted, texts, report)
    return Verdict(
        origin=log.origin,
        writer_id=log.writer_id,
        rank=log.rank,
        size=found["size"],
        records=found["records"],
        root=found["root"],
        signed_size=found["signed_size"],
        signed_by=found["signed_by"],
        problem=found["problem"],
    )


def _open(target: str | os.PathLike[str], session: str | None) -> tuple[Any, int, str]:
    from .film import Film

    film = Film(target)
    found = film.session(session)
    return film._reader.ledgers(), found.id, found.name


def replace_checkpoint(target: str | os.PathLike[str], writer_id: str, old: str, new: str) -> bool:
    """Puts a note that says the same with more signatures in the place of a log's checkpoint.

    Returns:
        False where that was replaced meanwhile.
    """
    from .film import Film

    with Film(target) as film:
        if film.path is not None:
            return bool(_C.replace_checkpoint(str(film.path), writer_id, old, new))
        from . import postgres_ledger

        return postgres_ledger.replace_checkpoint(film.target, writer_id, old, new)


# ---- keys


def public_keys() -> list[str]:
    """The public keys this user trusts.

    Those of ``RUBRISCOPE_LEDGER_KEY`` or ``RUBRISCOPE_LEDGER_KEY_FILE``, where one is set, and of the files
    ``*.key`` (private, this user's own) and ``*.pub`` in ``$XDG_CONFIG_HOME/rubriscope``.
    """
    folder = Path(_C.ledger_key_folder())
    if text := os.environ.get("RUBRISCOPE_LEDGER_KEY"):
        own = [_C.LedgerKey.parse(text).public]
    elif path := os.environ.get("RUBRISCOPE_LEDGER_KEY_FILE"):
        own = [_C.LedgerKey.read(path).public]
    else:
        own = []
    found = own + [_C.LedgerKey.read(path).public for path in sorted(folder.glob("*.key"))]
    found += [path.read_text().strip() for path in sorted(folder.glob("*.pub"))]
    return list(dict.fromkeys(found))


def fingerprint(public: str) -> str:
    """A public key's SHA-256 as people compare it: ``SHA256:…``, as ssh-keygen prints one."""
    digest = hashlib.sha256(base64.b64decode(public.split("+", 2)[2])[1:]).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def use_default_key() -> None:
    """Signs this process's ledgers with the user's key, which is made where there is none.

    A key that cannot be had is reported; the ledgers are then kept unsigned.
    """
    if _C.has_ledger_key():
        return
    try:
        _C.set_ledger_key(_C.LedgerKey.default())
    except (OSError, ValueError) as error:
        _C._report("warning", f"ledgers are not signed: {error}")
