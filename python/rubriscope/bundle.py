"""A session as a bundle of files that anyone can verify: its logs in the layout of c2sp.org/tlog-tiles."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ledger

_WIDTH = 256  #: hashes of a tile, entries of an entry bundle
_LARGEST = 65535  #: bytes of an entry that an entry bundle can hold

Progress = Callable[[int, int], object]


def export_bundle(
    target: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    session: str | None = None,
    *,
    keys: list[str] | None = None,
    progress: Progress | None = None,
) -> int:
    """Writes a session's records, the tiles of its ledger, its checkpoints and the public keys into a folder.

    ``examples/verify_film.py`` verifies one without rubriscope. docs/formats.md has the layout.

    Args:
        target: The database, a path, ``sqlite:///…`` or ``postgresql://…``.
        folder: A folder that does not exist yet; it appears when it is complete.
        session: Name, UUID or number; may be left out where there is one session.
        keys: The public keys to add; left out, those this user trusts.
        progress: Called with the entries written and all of them, now and then.

    Returns:
        How many entries were written.

    Raises:
        FileExistsError: the folder is there.
        NoLedgerError: the session has none.
    """
    place = Path(folder)
    if place.exists():
        raise FileExistsError(f"{place} is there already; name a new folder")
    reader, number, name = ledger._open(target, session)
    logs = reader.logs(number)
    if not logs:
        raise ledger.NoLedgerError(name)
    public = ledger.public_keys() if keys is None else keys
    aside = place.with_name(place.name + ".new")
    shutil.rmtree(aside, ignore_errors=True)
    total = sum(log.size for log in logs)
    done = 0
    aside.mkdir(parents=True)
    try:
        for log in logs:
            before = done
            _export_log(reader, log, aside / log.writer_id, lambda n: _report(progress, before + n, total))  # noqa: B023
            done += log.size
        (aside / "public.keys").write_text("".join(f"{key}\n" for key in public))
        described = {
            "format": "rubriscope-bundle-1",
            "session": logs[0].origin.split("/")[1],
            "name": name,
            "logs": [
                {"origin": log.origin, "folder": log.writer_id, "rank": log.rank, "size": log.size}
                for log in logs
            ],
        }
        (aside / "bundle.json").write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n")
        aside.rename(place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return done


def _report(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)


def tile_path(kind: str, index: int, width: int) -> str:
    """Where a tile lies: ``tile/0/x001/234``, with ``.p/<width>`` behind it where it is not full."""
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03}")
    path = "/".join(["tile", kind, *reversed(groups)])
    return path if width == _WIDTH else f"{path}.p/{width}"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _export_log(reader: Any, log: Any, place: Path, progress: Callable[[int], object]) -> None:
    for begin in range(0, log.size, _WIDTH):
        entries = reader.entries(log, begin, min(begin + _WIDTH, log.size))
        packed = []
        for entry in entries:
            if len(entry) > _LARGEST:
                digest = hashlib.sha256(entry).hexdigest()
                _write(place / "large" / digest, entry)
                entry = f"sha256:{digest}".encode()
            packed.append(len(entry).to_bytes(2, "big") + entry)
        _write(place / tile_path("entries", begin // _WIDTH, len(entries)), b"".join(packed))
        if begin // _WIDTH % 64 == 0:
            progress(begin)
    subtrees, level = log.size, 0
    while subtrees:
        for index in range((subtrees + _WIDTH - 1) // _WIDTH):
            width = min(subtrees - index * _WIDTH, _WIDTH)
            hashes = reader.tile(log, level, index)
            if len(hashes) != width:
                raise ValueError(
                    f"tile {level}/{index} of the ledger is missing; rubriscope verify says more"
                )
            _write(place / tile_path(str(level), index, width), b"".join(hashes))
        subtrees, level = subtrees // _WIDTH, level + 1
    if log.checkpoint:
        _write(place / "checkpoint", log.checkpoint.encode())
