"""The recorder: one run's records on their way into sinks. The work is native; this is its Python face."""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import multiprocessing.util
import os
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import _C, _device, _postgres_url, _provenance, _ranks
from ._details import to_json
from .targets import sink_for_target, target_of
from .vault import has_vault, vault_of

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from .checkpoints import ModelCheckpoint
    from .ledger import Ledger
    from .observer import RubricObserver

OnFull = Literal["block", "drop_newest"]

_open_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


@dataclass(frozen=True)
class SinkStats:
    """What one sink has taken."""

    target: str
    durable: int  #: records the sink has made durable
    pending: int  #: records it has not taken yet
    failed: int  #: records given up after repeated failures (Python sinks)
    failing: bool
    last_error: str  #: of the present failure, "" when the sink works


@dataclass(frozen=True)
class RecorderStats:
    """Where everything a recorder was given stands now."""

    accepted: int  #: records in the journal or beyond: they survive the process
    durable: int  #: records that every sink has made durable: they survive power loss
    pending: int
    dropped: int  #: records refused because the journal was full or could not be written
    failed: int
    recovered: int  #: records brought in from journals of processes that died
    damaged: int  #: records of such journals whose bytes were bad
    unattributed: int  #: calls of observed nodes from outside their root's call
    capture_ns: int  #: time spent in repr() and capture callables
    journal_bytes: int
    sinks: list[SinkStats]


class _Episode:
    """``with recorder.episode(…):``: the position of everything recorded in this context."""

    def __init__(
        self, recorder: Recorder, name: str, step: int | None, group_id: int | None, sample_index: int | None
    ) -> None:
        self._recorder = recorder
        self._labels = (name, step, group_id, sample_index)
        self._tokens: list[contextvars.Token[Any]] = []

    @property
    def name(self) -> str:
        """The episode's id."""
        return self._labels[0]

    def __enter__(self) -> _Episode:
        self._tokens.append(self._recorder._native.enter_position(*self._labels))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder._native.leave_position(self._tokens.pop())


def _number(name: str, value: Any) -> float:
    """A scalar as a float; a text that looks like a number is none."""
    if isinstance(value, (str, bytes, bytearray)) or not hasattr(value, "__float__"):
        raise TypeError(f"log() takes numbers, got {value!r} for {name!r}")
    shape = getattr(value, "shape", ())
    if tuple(shape) != () and getattr(value, "size", None) != 1:
        count = value.numel() if hasattr(value, "numel") else value.size
        if count != 1:
            raise ValueError(f"log() takes single numbers, got shape {tuple(shape)} for {name!r}")
    return float(value.item()) if hasattr(value, "item") else float(value)


def _label(name: str) -> property:
    def get(recorder: Recorder) -> int | None:
        value: int | None = getattr(recorder._native, name)
        return value

    def set_(recorder: Recorder, value: int | None) -> None:
        setattr(recorder._native, name, None if value is None else int(value))

    return property(get, set_)


class Recorder:
    """Takes snapshots and scalars of one session and brings them into sinks. Made by :func:`record`.

    What was accepted survives the process, also ``SIGKILL``; :meth:`flush` waits until it is durable. A
    context manager; an open recorder is closed when the interpreter exits. Pickled, spawned and forked
    copies reopen themselves as writers of the same session.
    """

    def __init__(
        self,
        sinks: list[Any],
        *,
        session_id: str,
        session_name: str,
        created_ns: int,
        metadata_json: str,
        ledger: bool,
        options: dict[str, Any],
        targets: list[Any],
    ) -> None:
        rank, world_size = _provenance.rank_and_world_size()
        self._session: dict[str, Any] = {
            "session_id": session_id,
            "session_name": session_name,
            "created_ns": created_ns,
            "metadata_json": metadata_json,
            "ledger": ledger,
        }
        if ledger and any(isinstance(sink, (_C.SqliteSink, _C.PostgresSink)) for sink in sinks):
            from .ledger import use_default_key

            use_default_key()
        self._options = options
        self._targets = targets
        self._observers: list[RubricObserver] = []
        self._episodes = 0
        vault = vault_of(sinks)
        self._checkpoint_schema_id: int | None = None
        journal_dir = options["journal_dir"] or _C.journal_dir_for(target_of(sinks[0]))
        report = _C.recover(journal_dir, sinks)
        self._native = _C.Recorder(
            **self._session,
            rank=rank,
            world_size=world_size,
            sinks=sinks,
            vault=vault,
            **{**options, "journal_dir": journal_dir},
        )
        self._native.add_recovered(report["delivered"], report["damaged"])
        _open_recorders.add(self)
        # A file of trace events alone has no room for other events.
        if any(not str(target).startswith("trace:") for target in targets):
            _C._recorder_opened(self._native)
            # Also where nobody closes it: the native recorder then ends with this object.
            weakref.finalize(self, _C._recorder_closed, self._native)

    # ---- identity

    @property
    def session_id(self) -> str:
        """The session's UUID."""
        return str(self._session["session_id"])

    @property
    def session_name(self) -> str:
        """What the session was called."""
        return str(self._session["session_name"])

    @property
    def writer_id(self) -> str:
        """The UUID of this process's stream of records."""
        return str(self._native.writer_id)

    @property
    def journal_path(self) -> Path:
        """This writer's journal folder."""
        return Path(self._native.journal_path)

    @property
    def ledger(self) -> Ledger:
        """The ledger of what this process recorded, as far as it is durable.

        Raises:
            ValueError: the session has none (``ledger=False``), or no target that is a database.
        """
        from .ledger import Ledger

        for one in self._targets:
            target = one if isinstance(one, str) else target_of(one)
            if target.startswith(("sqlite:", "postgresql:")):
                return Ledger(target, self.session_id, self.writer_id)
        raise ValueError("a ledger is kept in a database, and none of the targets is one")

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return bool(self._native.closed)

    # ---- position

    step = _label("step")
    """The step of what is recorded next; None (the start) counts snapshots from 0. Episodes entered with a
    step of their own keep it."""
    group_id = _label("group_id")
    """The group of what is recorded next (GRPO: the prompt), or None."""
    sample_index = _label("sample_index")
    """The place in the group of what is recorded next, from 0, or None."""

    @property
    def episode_id(self) -> str:
        """The episode of this context; setting it changes the recorder's default, which starts as "0"."""
        return str(self._native.episode_id)

    @episode_id.setter
    def episode_id(self, name: str) -> None:
        self._native.episode_id = str(name)

    def episode(
        self,
        name: str | int | None = None,
        *,
        step: int | None = None,
        group_id: int | None = None,
        sample_index: int | None = None,
    ) -> _Episode:
        """Names the episode of everything recorded inside ``with recorder.episode("ep-7"):``.

        Local to the thread or asyncio task. Steps count from 0 unless ``step`` or :attr:`step` says
        otherwise.

        Args:
            name: The episode's id; left out, episodes are numbered from 0.
            step, group_id, sample_index: Labels for this context.
        """
        if name is None:
            name, self._episodes = self._episodes, self._episodes + 1
        return _Episode(self, str(name), step, group_id, sample_index)

    # ---- what is recorded

    def observe(
        self, rubric: _C.Rubric, *, capture: str | Callable[[Any], Any] = "text", on_error: str = "contain"
    ) -> RubricObserver:
        """Makes a snapshot of every call of ``rubric``; see :class:`RubricObserver`."""
        from .observer import RubricObserver

        observer = RubricObserver(rubric, self, capture=capture, on_error=on_error)
        self._observers.append(observer)
        return observer

    def annotate(self, **metadata: Any) -> None:
        """Adds metadata to the snapshot of the call that is running, else to the next one of this context.

        Values that JSON does not know are kept as their ``repr``.
        """
        self._native.annotate(metadata)

    def log(self, scalars: Mapping[str, Any], step: int | None = None) -> None:
        """Records named numbers beside the rubric scores.

        Args:
            scalars: Name → number or 0-dim tensor. A CUDA tensor is copied without blocking.
            step: The training step; left out, the recorder's.

        Raises:
            TypeError: a value is no number.
            ValueError: ``scalars`` is empty, or a tensor has several elements.
        """
        names: list[str] = []
        values: list[Any] = []
        on_device = False
        for name, value in scalars.items():
            if hasattr(value, "device") and getattr(value.device, "type", "cpu") != "cpu":
                on_device = True
            else:
                value = _number(name, value)
            names.append(str(name))
            values.append(value)
        if on_device:
            _device.log_later(self._native, names, values, self.step if step is None else step)
        else:
            self._native.log(names, values, step)

    def checkpoint(
        self, path_or_name: str | os.PathLike[str], *, step: int | None = None, **info: Any
    ) -> ModelCheckpoint:
        """Records that a checkpoint of the model was saved: its SHA-256 and size, tied to the step.

        The files are read before this returns (natively, without the GIL), so that what is recorded is what
        was saved. ``rubriscope show`` lists checkpoints, ``rubriscope verify`` finds files that changed.

        Args:
            path_or_name: A file, or a folder of shards, each of which is recorded. A text without a slash
                that is neither is kept as a name (of a model in a registry): there is nothing to verify.
            step: The training step; left out, the recorder's.
            info: What else to say of it; JSON, as in :meth:`annotate`.

        Raises:
            OSError: the file cannot be read.
        """
        from .checkpoints import take

        return take(self, path_or_name, step, info)

    def _checkpoint_schema(self) -> int:
        if self._checkpoint_schema_id is None:
            from .checkpoints import FIELDS, NAME

            self._checkpoint_schema_id = self._native.define_event(NAME, "{}", [], list(FIELDS))
        return self._checkpoint_schema_id

    # ---- life

    def flush(self, timeout_s: float = 60.0) -> int:
        """Waits until everything accepted so far is durable in every sink.

        Returns:
            How many records are durable.

        Raises:
            TimeoutError: it took longer than ``timeout_s``; the message has the count outstanding per sink.
        """
        begin = time.monotonic()
        if not _device.drain(timeout_s):
            raise TimeoutError(f"scores are still on their device after {timeout_s} s")
        return int(self._native.flush(max(timeout_s - (time.monotonic() - begin), 0.0)))

    def close(self) -> None:
        """Detaches the observers, brings everything into the sinks and removes the journal. Idempotent."""
        _device.drain(60.0)
        for observer in self._observers:
            observer.detach()
        self._observers.clear()
        _C._recorder_closed(self._native)
        self._native.close()
        _open_recorders.discard(self)

    def stats(self) -> RecorderStats:
        """Counts of accepted, durable, pending, dropped and failed records, in all and per sink."""
        stats = self._native.stats()
        return RecorderStats(**{**stats, "sinks": [SinkStats(**sink) for sink in stats["sinks"]]})

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        targets = ", ".join(str(target) for target in self._targets)
        return (
            f"<Recorder session={self.session_name!r} targets=[{targets}]{' closed' if self.closed else ''}>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        secrets = _postgres_url.given_for(self._targets)
        return _reopen, (self.writer_id, self._session, self._options, self._targets, secrets)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recorder:
        return self  # one stream, however often the object that holds it is copied


def _reopen(
    writer_id: str,
    session: dict[str, Any],
    options: dict[str, Any],
    targets: list[Any],
    secrets: dict[str, str],
) -> Recorder:
    """The recorder a pickle stands for: the open one in its process, elsewhere a writer of its session."""
    _postgres_url.take(secrets)
    for recorder in _open_recorders:
        if recorder.writer_id == writer_id:
            return recorder
    for recorder in _open_recorders:
        if recorder._session == session and _same_targets(recorder._targets, targets):
            return recorder
    return Recorder([sink_for_target(t) for t in targets], **session, options=options, targets=targets)


def _same_targets(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of targets mean the same; of a sink object every unpickling makes another."""
    return len(one) == len(other) and all(
        a == b if isinstance(a, str) or isinstance(b, str) else type(a) is type(b)
        for a, b in zip(one, other, strict=True)
    )


@atexit.register
def _close_all() -> None:
    for recorder in list(_open_recorders):
        with contextlib.suppress(KeyboardInterrupt):
            recorder.close()


def _close_all_in_child(_: Any = None) -> None:
    # multiprocessing ends its children without atexit, but runs its own finalizers.
    multiprocessing.util.Finalize(None, _close_all, exitpriority=-100)


multiprocessing.util.register_after_fork(_close_all, _close_all_in_child)
if multiprocessing.parent_process() is not None:  # a child that imports this only now
    _close_all_in_child()


def record(
    target: Any = None,
    session: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    sinks: Iterable[Any] | None = None,
    journal_dir: str | os.PathLike[str] | None = None,
    journal_limit_bytes: int = 1 << 30,
    on_full: OnFull = "block",
    flush_interval_ms: int = 100,
    *,
    block_timeout_s: float = 5.0,
    resume: bool = False,
    session_id: str | None = None,
    ledger: bool = True,
) -> Recorder:
    """Opens a recorder for one session.

    Args:
        target: A path (``runs.db``, ``run.jsonl``), a URL (``sqlite:///…``, ``postgresql://…``, ``jsonl:…``,
            ``console:``) or a sink; left out, the sinks alone, or the console when there are none.
        session: The session's name; left out, made from the date. A name used again makes a new session.
            The ranks of one run (torchrun, an initialised process group) that give the same name record one
            session together, each its own stream.
        metadata: What the session's record says about the run, beside what rubriscope finds out itself
            (command line, git commit, versions, machine).
        sinks: More targets or sinks: any object with ``emit(snapshot)`` or ``write(batch)``.
        journal_dir: Where the journal lives; left out, beside the target.
        journal_limit_bytes: How far the journal may grow when sinks are slow.
        on_full: Then ``"block"`` waits ``block_timeout_s`` once before it refuses new records,
            ``"drop_newest"`` refuses at once. Refused records are counted in ``stats().dropped``.
        flush_interval_ms: The longest a record waits before it is offered to the sinks.
        resume: Goes on with the latest session of this name (a database).
        session_id: The session's UUID, or any text (a job's id): every process that gives it records that
            session. Left out, the ranks of one run agree on one, and a process alone makes a new one.
        ledger: Keeps a signed Merkle tree over the records in the database (docs/ledger.md).

    Raises:
        FormatError: the target is not rubriscope's, or of a newer format; it was left as it was.
        OSError: the journal or the target cannot be made; a ``ConnectionError``, where the ranks of a run
            cannot agree on a session.
        ValueError: an option is out of range, ``resume`` finds no such session, or comes with a
            ``session_id``.
    """
    targets: list[Any] = [] if target is None else [target]
    targets.extend(sinks or ())
    if not targets:
        targets.append("console:")
    made = [sink_for_target(t) for t in targets]
    # What a worker opens again: paths made absolute, other objects as they are.
    kept = [target_of(sink) if isinstance(sink, _C.Sink) and not has_vault(sink) else sink for sink in made]
    options = {
        "journal_dir": None if journal_dir is None else str(Path(journal_dir).absolute()),
        "journal_limit_bytes": int(journal_limit_bytes),
        "on_full": on_full,
        "block_timeout_s": float(block_timeout_s),
        "flush_interval_ms": int(flush_interval_ms),
    }
    if resume:
        if session is None or session_id is not None:
            raise ValueError("resume=True needs the session's name, and no session_id")
        identity = _resumed(kept[0], session)
    else:
        identity = {
            "session_id": _C.make_uuid(),
            "session_name": session if session is not None else time.strftime("run-%Y%m%d-%H%M%S"),
            "created_ns": time.time_ns(),
            "metadata_json": to_json({**(metadata or {}), "rubriscope": _provenance.collect()}),
        }
        if session_id is None:
            identity = _ranks.agreed(session, identity)
        else:
            identity["session_id"] = _ranks.session_id_from(session_id)
    return Recorder(made, **identity, ledger=ledger, options=options, targets=kept)


def _resumed(target: Any, name: str) -> dict[str, Any]:
    from .film import Film

    key: dict[str, Any] = {}
    if has_vault(target):
        target, key = target.target, target.key_source
    if not isinstance(target, str) or not target.startswith(("sqlite:", "postgresql:")):
        raise ValueError(f"resume=True needs a database as target, got {target!r}")
    try:
        with Film(target, **key) as film:
            found = [s for s in film.sessions() if s.name == name]
    except FileNotFoundError:
        found = []
    if not found:
        raise ValueError(f"resume=True: there is no session {name!r} in {target}")
    latest = found[-1]
    return {
        "session_id": latest.uuid,
        "session_name": latest.name,
        "created_ns": latest.created_ns,
        "metadata_json": json.dumps(latest.metadata),
    }
