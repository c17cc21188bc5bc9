"""The film: a recording read back. Sessions, snapshots, score columns, exports and comparisons."""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._postgres_url import is_postgres, remember
from .event import EVENT_KINDS, Event, EventKind
from .reader import Reader
from .series import Kind, ScoreSeries, Summary
from .snapshot import NeuralSnapshot
from .targets import _refuse_later, without_password

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from ._C import Kek, Rubric
    from .checkpoints import ModelCheckpoint
    from .compare import Comparison
    from .rescoring import Rescored
    from .vault import Key

#: Called with (records done, records in all) while something long runs.
Progress = Callable[[int, int], None]

_URL = re.compile(r"^([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, slots=True)
class Session:
    """A named run in a film. Names may repeat; ``uuid`` does not."""

    id: int  #: the session's number in this file
    uuid: str
    name: str
    created_ns: int  #: ns since the Unix epoch
    closed_ns: int | None  #: None while it is running, or after it died; JSONL keeps no end
    last_ns: int | None  #: wall clock of the latest record, None without records
    metadata: dict[str, Any]
    steps: int  #: snapshots
    episodes: int
    scalars: int  #: ``recorder.log`` records
    events: int  #: observations, spans, checkpoints
    writers: int
    ranks: tuple[int, ...]

    @property
    def created(self) -> datetime.datetime:
        """Start of the session, UTC."""
        return _utc(self.created_ns)

    @property
    def closed(self) -> datetime.datetime | None:
        """End of the session, UTC; None while it is running, or after it died."""
        return None if self.closed_ns is None else _utc(self.closed_ns)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, and ``created``/``closed`` as ISO 8601."""
        result: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        result["ranks"] = list(self.ranks)
        result["created"] = self.created.isoformat()
        result["closed"] = None if self.closed is None else self.closed.isoformat()
        return result


class Film:
    """A recording, read back.

    ``target`` is what :func:`rubriscope.record` took: a path, ``sqlite:///…``, ``postgresql://…`` or
    ``jsonl:…``. A film may be read while it is being recorded; each call sees what was durable when it began.

    Raises ``FileNotFoundError`` for a target that does not exist, ``rubriscope.FormatError`` for one that is
    not a recording or of a newer format, ``ValueError`` for a target that cannot be read back,
    ``ConnectionError`` for a server that is not there.

    What is encrypted opens with its key: ``key_file``, ``key`` or ``key_env`` as in
    :func:`rubriscope.vault.load_key`, else ``RUBRISCOPE_KEY_FILE`` or ``RUBRISCOPE_KEY``. Without one its
    sessions are listed and its ledger is verified, and what asks for more raises ``rubriscope.SealedError``,
    as a wrong key does.

    Where a method takes ``session`` (a name, UUID, number or :class:`Session`) it may be left out when the
    film holds exactly one.
    """

    def __init__(
        self,
        target: str | os.PathLike[str],
        *,
        key_file: str | os.PathLike[str] | None = None,
        key: Key | None = None,
        key_env: str | None = None,
    ) -> None:
        from .vault import default_key, load_key

        if (key_file, key, key_env) == (None, None, None):
            kek = default_key()
        else:
            kek = load_key(key_file=key_file, key=key, key_env=key_env)
        self.path: Path | None = None  #: the file; None for a database on a server
        self._reader: Reader
        if isinstance(target, str) and is_postgres(target):
            from .postgres_reader import PostgresReader

            self._reader = PostgresReader(target, kek)
            self.target = remember(target)
            return
        self.target = os.fspath(target)
        self.path, kind = resolve_target(target)
        self._reader = _open(self.path, kind, kek)

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"rubriscope.Film({self.target!r})"

    @property
    def name(self) -> str:
        """What the recording is called: the file's or the database's name."""
        if self.path is not None:
            return self.path.stem
        return urlsplit(self.target).path.lstrip("/") or self.target

    @property
    def place(self) -> str:
        """Where the recording is: the file's path, or the URL without a password."""
        return str(self.path) if self.path is not None else self.target

    def close(self) -> None:
        """Lets go of the file or the connection."""
        self._reader.close()

    # ---- sessions ----------------------------------------------------------------------------------------

    def sessions(self) -> list[Session]:
        """All sessions, the newest last."""
        found = [_session(info) for info in self._reader.sessions()]
        return sorted(found, key=lambda session: (session.created_ns, session.id))

    def session(self, key: str | int | Session | None = None) -> Session:
        """One session by name, UUID (or a prefix of at least 6 characters) or number.

        A name used more than once means its newest session. None means the only session. Raises ``KeyError``
        naming what exists, ``ValueError`` when None or a prefix is ambiguous.
        """
        sessions = self.sessions()
        if isinstance(key, Session):
            key = key.uuid
        if key is None:
            return self._only(sessions)
        if isinstance(key, int):
            matches = [session for session in sessions if session.id == key]
        else:
            matches = [session for session in sessions if session.uuid == key]
            matches = matches or [session for session in sessions if session.name == key][-1:]
            if not matches and len(key) >= 6:
                matches = [session for session in sessions if session.uuid.startswith(key.lower())]
            if not matches and key.isdigit():
                matches = [session for session in sessions if session.id == int(key)]
        if not matches:
            raise KeyError(f"{self.target} holds no session {key!r}; it holds {_names(sessions)}")
        if len(matches) > 1:
            raise ValueError(f"{key!r} begins {len(matches)} sessions: {_names(matches)}")
        return matches[0]

    def _only(self, sessions: list[Session]) -> Session:
        if not sessions:
            raise ValueError(f"{self.target} holds no session yet")
        if len(sessions) > 1:
            raise ValueError(f"{self.target} holds {len(sessions)} sessions; say which: {_names(sessions)}")
        return sessions[0]

    # ---- reading -----------------------------------------------------------------------------------------

    def paths(self, session: str | int | Session | None = None) -> list[str]:
        """The dotted paths of the session's rubrics, ``"root"`` first."""
        return list(self._reader.paths(self.session(session).id))

    def scalars(self, session: str | int | Session | None = None) -> list[str]:
        """The names that were logged with ``recorder.log``."""
        return list(self._reader.scalar_names(self.session(session).id))

    def episodes(self, session: str | int | Session | None = None) -> list[str]:
        """The names of the session's episodes, in order of their start."""
        return list(self._reader.episodes(self.session(session).id))

    def writers(self, session: str | int | Session | None = None) -> list[str]:
        """The UUIDs of the processes that wrote, indexed by :attr:`ScoreSeries.writer`."""
        return list(self._reader.writers(self.session(session).id))

    def snapshots(
        self,
        session: str | int | Session | None = None,
        *,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[NeuralSnapshot]:
        """Streams snapshots; ``start`` ≤ step < ``stop``.

        Each writer's are in the order of recording; several writers (ranks, workers) are merged by step, then
        rank. Arguments are checked at the call, not at the first snapshot.
        """
        chosen = self.session(session)
        self._check_episode(chosen, episode)
        return iter(self._reader.snapshots(chosen.id, episode, start, stop))

    def events(
        self,
        session: str | int | Session | None = None,
        *,
        kind: EventKind | None = None,
        name: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Event]:
        """Streams events in the order of recording; ``start`` ≤ step < ``stop``.

        Args:
            kind: ``"observation"``, ``"span"`` or ``"checkpoint"``; left out, all.
            name: Of the sight point, the trace point or the checkpoint; left out, all.

        Raises:
            ValueError: ``kind`` is none of the three.
        """
        if kind is not None and kind not in EVENT_KINDS:
            raise ValueError(f"kind is one of {', '.join(EVENT_KINDS)}, got {kind!r}")
        chosen = self.session(session)
        return iter(self._reader.events(chosen.id, kind, name, start, stop))

    def checkpoints(self, session: str | int | Session | None = None) -> list[ModelCheckpoint]:
        """What ``recorder.checkpoint`` recorded, in the order it was."""
        from .checkpoints import ModelCheckpoint

        chosen = self.session(session)
        if chosen.events == 0:
            return []
        return [ModelCheckpoint.from_event(event) for event in self.events(chosen, kind="checkpoint")]

    def scores(
        self,
        path: str,
        session: str | int | Session | None = None,
        *,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> ScoreSeries:
        """One rubric's scores, or one logged scalar's values, as NumPy arrays; ``start`` ≤ step < ``stop``.

        A rubric path wins over a scalar of the same name. Scalars belong to no episode, so ``episode`` does
        not narrow them. Raises ``KeyError`` naming what exists.
        """
        chosen = self.session(session)
        paths = self._reader.paths(chosen.id)
        if path in paths:
            self._check_episode(chosen, episode)
            return self.series("rubric", path, chosen, episode=episode, start=start, stop=stop)
        names = self._reader.scalar_names(chosen.id)
        if path in names:
            return self.series("scalar", path, chosen, start=start, stop=stop)
        raise KeyError(
            f"session {chosen.name!r} has no rubric or scalar {path!r}; "
            f"rubrics: {', '.join(paths) or 'none'}; scalars: {', '.join(names) or 'none'}"
        )

    def series(
        self,
        kind: Kind,
        path: str,
        session: Session,
        *,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> ScoreSeries:
        """:meth:`scores` for a caller that knows which of the two it wants and that it exists."""
        if kind == "rubric":
            columns = self._reader.scores(session.id, path, episode, start, stop)
        else:
            columns = self._reader.scalars(session.id, path, start, stop)
        return ScoreSeries.from_columns(path, kind, columns)

    def summaries(
        self, session: str | int | Session | None = None, *, episode: str | None = None, bins: int = 24
    ) -> list[Summary]:
        """Figures of every rubric, then of every scalar: a database is read once, not once a path.

        ``bins`` is the number of points of each ``curve``. An episode narrows the rubrics, not the scalars.
        """
        chosen = self.session(session)
        self._check_episode(chosen, episode)
        rubrics = self._reader.summaries(chosen.id, episode, bins)
        names = self._reader.scalar_names(chosen.id)
        return [*rubrics, *(self.series("scalar", name, chosen).summary(bins) for name in names)]

    def _check_episode(self, session: Session, episode: str | None) -> None:
        if episode is None:
            return
        episodes = self._reader.episodes(session.id)
        if episode not in episodes:
            shown = ", ".join(map(repr, episodes[:10])) + (", …" if len(episodes) > 10 else "")
            raise KeyError(f"session {session.name!r} has no episode {episode!r}; it has {shown or 'none'}")

    # ---- tables, exports, comparisons ----------------------------------------------------------------------

    def to_arrow(self, session: str | int | Session | None = None) -> pyarrow.Table:
        """The session as a table with one row a record; the columns are described in docs/film.md.

        Needs ``pip install rubriscope[arrow]``.
        """
        from .export import to_arrow

        return to_arrow(self, self.session(session))

    def to_pandas(self, session: str | int | Session | None = None) -> pandas.DataFrame:
        """:meth:`to_arrow` as a pandas frame. Needs ``pip install rubriscope[arrow]``."""
        from .export import to_pandas

        return to_pandas(self, self.session(session))

    def export(
        self,
        path: str | os.PathLike[str],
        session: str | int | Session | None = None,
        *,
        progress: Progress | None = None,
    ) -> int:
        """Writes the session to ``path``, whose suffix says how: .json, .jsonl, .csv or .parquet.

        Returns the number of records written. Rows are streamed; the file appears under its name when it is
        complete. Raises ``ValueError`` for another suffix.
        """
        from .export import export

        return export(self, self.session(session), path, progress)

    def compare(
        self,
        a: str | int | Session,
        b: str | int | Session,
        *,
        other: Film | None = None,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Comparison:
        """Session ``b`` against session ``a`` of this film (``b`` of ``other``, where given)."""
        from .compare import compare

        return compare(self, a, other or self, b, episode=episode, start=start, stop=stop)

    def rescore(
        self,
        session: str | int | Session | None,
        rubric: Rubric,
        into: str,
        *,
        target: str | os.PathLike[str] | None = None,
        restore: Callable[[str, str], Any] | None = None,
        capture: str | Callable[[Any], Any] = "text",
        strict: bool = False,
        batch_size: int = 256,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> Rescored:
        """Replays what was captured through another rubric, and records a new session linked to the old one.

        Each new snapshot has episode, step, group and sample of the old one, so :meth:`compare` sets the two
        against each other pair by pair. The new session's metadata say under ``"rescored"`` what it came
        from: session, target, and the rubric's class and SHA-256 (over sources and configuration).

        Strings, integers and floats come back as they were, and so do values whose ``repr`` Python reads
        (``None``, ``True``, bytes, lists, tuples and dicts of such). A capture that was cut, one that is the
        repr of another object, or none at all cannot be replayed: such snapshots are left out and counted.

        Trees with a ``forward_batch`` are scored in batches. A rubric that raises fails for its pair (a
        ``forward_batch`` for its batch), which is recorded and counted. Trajectory rubrics are reset at the
        beginning of each episode.

        Args:
            session: The session to replay.
            rubric: The tree to score with.
            into: The new session's name.
            target: Where it goes; left out, this recording.
            restore: Called as ``restore("action" or "observation", text)`` for every capture that is text
                and whole; gives what the rubric is to get, for example ``json.loads(text)``.
            capture: What the new snapshots keep, as in :meth:`Recorder.observe`.
            strict: Raise before anything is recorded where a snapshot cannot be replayed.
            batch_size: Snapshots scored at once.
            episode, start, stop: This episode, these steps only.
            metadata: More for the new session's metadata.
            progress: Called with (snapshots done, snapshots in all).

        Raises:
            KeyError: no such session or episode.
            ValueError: ``strict``, and a snapshot cannot be replayed; the message names the first.
        """
        from .rescoring import rescore

        return rescore(
            self,
            self.session(session),
            rubric,
            into,
            target=target,
            restore=restore,
            capture=capture,
            strict=strict,
            batch_size=batch_size,
            episode=episode,
            start=start,
            stop=stop,
            metadata=metadata,
            progress=progress,
        )

    def plot(
        self,
        path: str | os.PathLike[str],
        paths: list[str] | None = None,
        session: str | int | Session | None = None,
    ) -> None:
        """Draws curves over the steps into an image; all rubrics where ``paths`` is left out.

        Needs ``pip install rubriscope[plot]``.
        """
        from .plot import plot

        chosen = self.session(session)
        wanted = paths if paths is not None else self.paths(chosen)
        plot([self.scores(name, chosen) for name in wanted], path, title=chosen.name)


def resolve_target(target: str | os.PathLike[str]) -> tuple[Path, str]:
    """The file of a target and its kind, ``"sqlite"`` or ``"jsonl"``.

    Raises ``FileNotFoundError``, ``ValueError`` (a target that keeps nothing, or a scheme unknown here) or
    ``ImportError`` naming the extra that reads it.
    """
    text = os.fspath(target)
    match = _URL.match(text) if isinstance(target, str) else None
    scheme = match.group(1).lower() if match else ""
    declared = ""
    _refuse_later(text, scheme)
    if scheme in ("sqlite", "jsonl"):
        declared = scheme
        text = text[len(scheme) + 1 :]
        if text.startswith("//"):
            text = "/" + text.lstrip("/")
    elif scheme in ("console", "python"):
        raise ValueError(f"{target!r} keeps nothing that could be read back; give a database or a JSONL file")
    elif match is not None and text[match.end() :].startswith("//"):
        raise ValueError(
            f"cannot read {without_password(text)!r}: known are a path, sqlite:///path, postgresql://… and "
            "jsonl:path"
        )
    path = Path(text).expanduser()
    if not path.exists():
        raise FileNotFoundError(2, "no recording there", str(path))
    if path.is_dir():
        raise IsADirectoryError(21, "a recording is a file, not a folder", str(path))
    return path, declared or _sniff(path)


def _sniff(path: Path) -> str:
    with open(path, "rb") as file:
        head = file.read(len(_SQLITE_MAGIC))
    if head == _SQLITE_MAGIC:
        return "sqlite"
    if path.suffix in (".jsonl", ".ndjson") or head.lstrip().startswith(b"{"):
        return "jsonl"
    return "sqlite"  # let the native reader say what is wrong with it


def _open(path: Path, kind: str, kek: Kek | None) -> Reader:
    if kind == "jsonl":
        from .jsonl_reader import JsonlReader

        return JsonlReader(path)
    from .sqlite_reader import SqliteReader

    return SqliteReader(str(path), kek)


def _session(info: Mapping[str, Any]) -> Session:
    metadata = info["metadata"]
    if isinstance(metadata, str):
        metadata = json.loads(metadata) if metadata else {}
    return Session(
        id=info["session_id"],
        uuid=info["uuid"],
        name=info["name"],
        created_ns=info["created_ns"],
        closed_ns=info["closed_ns"],
        last_ns=info["last_ns"],
        metadata=metadata or {},
        steps=info["steps"],
        episodes=info["episodes"],
        scalars=info["scalars"],
        events=info["events"],
        writers=info["writers"],
        ranks=tuple(info["ranks"]),
    )


def _names(sessions: list[Session]) -> str:
    if not sessions:
        return "none"
    counts: dict[str, int] = {}
    for session in sessions:
        counts[session.name] = counts.get(session.name, 0) + 1
    shown = [
        repr(session.name) if counts[session.name] == 1 else f"{session.name!r} ({session.uuid[:8]})"
        for session in sessions[-20:]
    ]
    return ("…, " if len(sessions) > 20 else "") + ", ".join(shown)


def _utc(time_ns: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_ns / 1e9, tz=datetime.UTC)
