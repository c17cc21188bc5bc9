"""Checkpoints of models: records that tie a file, or a folder of shards, to the step it was saved at."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import _C
from ._details import to_json

if TYPE_CHECKING:
    from .event import Event
    from .recorder import Recorder

#: The event's name, and its fields.
NAME = "checkpoint"
FIELDS = ("name", "path", "sha256", "size", "files")

#: Called with (bytes read, bytes in all).
Progress = Callable[[int, int], None]

State = Literal["holds", "changed", "missing", "replaced", "no file"]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a folder."""

    path: str  #: below the folder, with slashes
    sha256: str
    size: int  #: bytes


@dataclass(frozen=True, slots=True)
class ModelCheckpoint:
    """A checkpoint as it was recorded."""

    name: str  #: what ``recorder.checkpoint`` was given
    path: str | None  #: absolute; None where a name was given that is no file
    sha256: str | None  #: of the file; of a folder, see :func:`digest_folder`
    size: int | None  #: bytes, of a folder all of its files'
    files: tuple[Shard, ...] = ()  #: of a folder
    info: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None  #: None only in what ``recorder.checkpoint`` gives back, where it had no step
    time_ns: int = 0  #: wall clock
    rank: int = 0
    session: str = ""  #: the session's UUID
    id: str = ""  #: ``"<writer UUID>:<sequence>"``

    @classmethod
    def from_event(cls, event: Event) -> ModelCheckpoint:
        """Reads an event of the kind ``checkpoint``."""
        fields = event.fields
        return cls(
            name=fields.get("name", event.name),
            path=fields.get("path"),
            sha256=fields.get("sha256"),
            size=fields.get("size"),
            files=tuple(Shard(*shard) for shard in fields.get("files") or ()),
            info=event.metadata,
            step=event.step,
            time_ns=event.time_ns,
            rank=event.rank,
            session=event.session_id,
            id=event.id,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        found: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        found["files"] = [{"path": one.path, "sha256": one.sha256, "size": one.size} for one in self.files]
        return found


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether what a checkpoint was taken of is still the same."""

    checkpoint: ModelCheckpoint
    state: State
    detail: str = ""  #: what is missing or differs; by what it was replaced


def take(
    recorder: Recorder, path_or_name: str | os.PathLike[str], step: int | None, info: Mapping[str, Any]
) -> ModelCheckpoint:
    """Hashes and records."""
    given = os.fspath(path_or_name)
    path = Path(given).expanduser().absolute()
    begin = time.monotonic_ns()
    where: str | None = None
    sha256: str | None = None
    size: int | None = None
    files: tuple[Shard, ...] = ()
    if path.is_dir():
        where, (sha256, files) = str(path), digest_folder(path)
        size = sum(one.size for one in files)
        if not files:
            raise FileNotFoundError(2, "no checkpoint in the empty folder", str(path))
    elif path.exists() or os.sep in given or isinstance(path_or_name, os.PathLike):
        where, (sha256, size) = str(path), _C.file_sha256(path)
    found = ModelCheckpoint(
        name=given,
        path=where,
        sha256=sha256,
        size=size,
        files=files,
        info=dict(info),
        step=recorder.step if step is None else step,
        session=recorder.session_id,
    )
    fields: dict[int, Any] = {}
    for place, name in enumerate(FIELDS):
        value: Any = getattr(found, name)
        if name == "files":
            value = [[one.path, one.sha256, one.size] for one in found.files] or None
        if value is not None:
            fields[place] = value
    recorder._native.emit_event(
        "checkpoint",
        recorder._checkpoint_schema(),
        values=[],
        fields=fields,
        duration_ns=time.monotonic_ns() - begin,
        step=step,
        metadata_json=to_json(dict(info)) if info else "",
    )
    return found


def digest_folder(
    folder: Path, progress: Callable[[int], None] | None = None
) -> tuple[str, tuple[Shard, ...]]:
    """All files below a folder, and the SHA-256 of their list: a line ``sha256  path`` each, as ``sha256sum``
    prints them, in the order of their paths' bytes.

    Args:
        folder: Links to folders are not followed, links to files are.
        progress: Called with the bytes read so far.
    """
    paths = [
        Path(place, name).relative_to(folder).as_posix()
        for place, _, names in os.walk(folder)
        for name in names
    ]
    shards: list[Shard] = []
    done = 0
    for path in sorted(paths, key=os.fsencode):
        shard = Shard(path, *_C.file_sha256(folder / path, _after(done, progress)))
        shards.append(shard)
        done += shard.size
    lines = b"".join(f"{one.sha256}  ".encode() + os.fsencode(one.path) + b"\n" for one in shards)
    return hashlib.sha256(lines).hexdigest(), tuple(shards)


def check(
    checkpoints: Iterable[ModelCheckpoint],
    *,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Finding]:
    """Reads the files again and compares.

    Of several checkpoints with one path the latest counts, the others were replaced by it.

    Args:
        checkpoints: As :meth:`Film.checkpoints` gives them, of all sessions that may have written a path.
        folder: Where the files are now; each is looked for by its last name there.
        progress: Called with (bytes read, bytes in all).
    """
    many = list(checkpoints)
    latest: dict[str, ModelCheckpoint] = {}
    for one in many:
        if one.path is not None and (one.path not in latest or one.time_ns >= latest[one.path].time_ns):
            latest[one.path] = one
    total = sum(one.size or 0 for one in latest.values())
    done = 0
    findings: list[Finding] = []
    for one in many:
        if one.path is None:
            findings.append(Finding(one, "no file"))
        elif latest[one.path] is not one:
            findings.append(Finding(one, "replaced", f"by the one of step {latest[one.path].step}"))
        else:
            report = None if progress is None else functools.partial(_report, progress, total)
            findings.append(_check_one(one, folder, _after(done, report)))
            done += one.size or 0
            if progress is not None:
                progress(done, total)
    return findings


def _report(progress: Progress, total: int, read: int) -> None:
    progress(read, total)


def _after(done: int, progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Tells ``progress`` of bytes that are read after ``done`` others."""
    return None if progress is None else lambda read: progress(done + read)


def _check_one(
    one: ModelCheckpoint, folder: str | os.PathLike[str] | None, report: Callable[[int], None] | None
) -> Finding:
    assert one.path is not None
    path = Path(one.path) if folder is None else Path(folder) / Path(one.path).name
    if not path.exists():
        return Finding(one, "missing", str(path))
    if path.is_dir() != bool(one.files):
        return Finding(one, "changed", f"{path} was a {'folder' if one.files else 'file'}")
    if not one.files:
        if path.stat().st_size != one.size:
            return Finding(one, "changed", f"{path} has {path.stat().st_size:,} bytes, had {one.size:,}")
        sha256, _ = _C.file_sha256(path, report)
        return Finding(one, "holds") if sha256 == one.sha256 else Finding(one, "changed", str(path))
    sha256, shards = digest_folder(path, report)
    if sha256 == one.sha256:
        return Finding(one, "holds")
    before, now = ({shard.path: shard.sha256 for shard in many} for many in (one.files, shards))
    for name in before:
        if name not in now:
            return Finding(one, "missing", str(path / name))
    for name, digest in before.items():
        if now[name] != digest:
            return Finding(one, "changed", str(path / name))
    added = next(name for name in now if name not in before)
    return Finding(one, "changed", f"{path / added} was not there")
