"""A session scored again: what was captured, through another rubric, into a session of its own."""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import _C, _placed
from ._details import node_details
from ._placed import Place
from .trajectory import TrajectoryRubric

if TYPE_CHECKING:
    from .film import Film, Progress, Session
    from .snapshot import NeuralSnapshot

#: Gets "action" or "observation" and its captured text, gives what the rubric is to be given.
Restore = Callable[[str, str], Any]

#: Why a snapshot cannot be replayed.
CUT, REPR, ABSENT, REFUSED = "cut", "repr of an object", "not captured", "not restored"


@dataclass(frozen=True, slots=True)
class Rescored:
    """What :meth:`Film.rescore` did."""

    session: str  #: the new session's UUID
    name: str
    target: str  #: where it is
    source: str  #: the old session's UUID
    snapshots: int  #: snapshots recorded
    failed: int  #: those among them whose root raised
    first_failure: str  #: of the first of these, "" without one
    left_out: Mapping[str, int]  #: snapshots that could not be replayed, by reason

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return {name: getattr(self, name) for name in self.__slots__} | {"left_out": dict(self.left_out)}


class _Lost(Exception):
    """A capture from which the value cannot be had."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def rescore(
    film: Film,
    session: Session,
    rubric: _C.Rubric,
    into: str,
    *,
    target: Any,
    restore: Restore | None,
    capture: str | Callable[[Any], Any],
    strict: bool,
    batch_size: int,
    episode: str | None,
    start: int | None,
    stop: int | None,
    metadata: Mapping[str, Any] | None,
    progress: Progress | None,
) -> Rescored:
    """See :meth:`Film.rescore`."""
    from .recorder import record

    if not isinstance(rubric, _C.Rubric):
        raise TypeError(f"rubric is a rubriscope.Rubric, got {rubric!r}")
    if batch_size < 1:
        raise ValueError(f"batch_size is 1 or more, got {batch_size}")
    limits = {"episode": episode, "start": start, "stop": stop}
    if strict:
        _check_all(film.snapshots(session, **limits), restore)  # type: ignore[arg-type]
    source = {
        "session": session.uuid,
        "name": session.name,
        "target": film.place,
        "rubric": {
            "class": f"{type(rubric).__module__}.{type(rubric).__qualname__}",
            "sha256": digest(rubric),
        },
        **{name: value for name, value in limits.items() if value is not None},
    }
    left_out: Counter[str] = Counter()
    failed = read = 0
    first_failure = ""
    recorder = record(
        film.target if target is None else target,
        session=into,
        session_id=_C.make_uuid(),  # also under torchrun: this process's alone
        metadata={**(metadata or {}), "rescored": source},
    )
    with recorder:
        observer = recorder.observe(rubric, capture=capture)
        for run in _runs(film, session, rubric, limits):
            for batch in _batches(run, batch_size):
                read += len(batch)
                pairs, places = _replayable(batch, restore, left_out)
                if pairs:
                    actions, observations = zip(*pairs, strict=True)
                    attempt = _placed.score(
                        rubric, recorder, actions, observations, places, stop_at_error=False
                    )
                    failed += len(attempt.errors)
                    if attempt.errors and not first_failure:
                        number, error = min(attempt.errors.items(), key=lambda item: item[0])
                        first_failure = (
                            f"episode {places[number].episode} step {places[number].step}: "
                            f"{type(error).__name__}: {error}"
                        )
                if progress is not None:
                    progress(read, session.steps)
        recorder.flush()
        return Rescored(
            session=recorder.session_id,
            name=into,
            target=str(recorder._targets[0]),
            source=session.uuid,
            snapshots=observer.snapshots,
            failed=failed,
            first_failure=first_failure,
            left_out=dict(left_out),
        )


def digest(rubric: _C.Rubric) -> str:
    """SHA-256 over the tree: each node's path, class, source and configuration."""
    found = hashlib.sha256()
    for path, node in (("root", rubric), *rubric.named_rubrics()):
        found.update(f"{path}\0{type(node).__qualname__}\0{node_details(node)}\0".encode())
    return found.hexdigest()


def _runs(
    film: Film, session: Session, rubric: _C.Rubric, limits: dict[str, Any]
) -> Iterator[Iterable[NeuralSnapshot]]:
    """The snapshots in the order to replay them: the film's; for rubrics with a memory, by trajectory."""
    nodes = [node for _, node in (("root", rubric), *rubric.named_rubrics())]
    trajectories = [node for node in nodes if isinstance(node, TrajectoryRubric)]
    if not trajectories:
        yield film.snapshots(session, **limits)
        return
    episodes = film.episodes(session) if limits["episode"] is None else [limits["episode"]]
    for episode in episodes:
        by_writer: dict[str, list[NeuralSnapshot]] = {}
        for snapshot in film.snapshots(session, **{**limits, "episode": episode}):
            by_writer.setdefault(snapshot.id.rpartition(":")[0], []).append(snapshot)
        for run in by_writer.values():
            for node in trajectories:
                node.reset()
            yield run


def _batches(run: Iterable[NeuralSnapshot], size: int) -> Iterator[list[NeuralSnapshot]]:
    source = iter(run)
    while batch := list(itertools.islice(source, size)):
        yield batch


def _replayable(
    batch: list[NeuralSnapshot], restore: Restore | None, left_out: Counter[str]
) -> tuple[list[tuple[Any, Any]], list[Place]]:
    pairs: list[tuple[Any, Any]] = []
    places: list[Place] = []
    for snapshot in batch:
        try:
            pairs.append((_value(snapshot, "action", restore), _value(snapshot, "observation", restore)))
        except _Lost as lost:
            left_out[lost.reason] += 1
            continue
        places.append(Place(snapshot.episode_id, snapshot.step, snapshot.group_id, snapshot.sample_index))
    return pairs, places


def _check_all(snapshots: Iterator[NeuralSnapshot], restore: Restore | None) -> None:
    lost: list[str] = []
    count = 0
    for snapshot in snapshots:
        try:
            for name in ("action", "observation"):
                _value(snapshot, name, restore)
        except _Lost as error:
            count += 1
            lost = lost or [f"episode {snapshot.episode_id} step {snapshot.step}: {error}"]
    if lost:
        what = "1 snapshot" if count == 1 else f"{count:,} snapshots"
        raise ValueError(f"{what} cannot be replayed, the first at {lost[0]}")


def _value(snapshot: NeuralSnapshot, name: str, restore: Restore | None) -> Any:
    """What the rubric was given, as far as the capture has it."""
    captured = getattr(snapshot, name)
    note = snapshot.captures.get(name, "")
    if captured is None:
        raise _Lost(ABSENT, f"its {name} was not captured")
    if "cut" in note:
        raise _Lost(CUT, f"its {name} was cut after {len(captured) - 1} characters")
    if isinstance(captured, str) and restore is not None:
        try:
            return restore(name, captured)
        except Exception as error:
            raise _Lost(REFUSED, f"restore() of its {name} raised {type(error).__name__}: {error}") from error
    return _literal(captured, name) if note else captured


def _literal(text: str, name: str) -> Any:
    """The value of a repr that Python reads back as the same: None, a bool, bytes, lists, dicts of such."""
    shown = text if len(text) <= 60 else text[:59] + "…"
    lost = _Lost(REPR, f"of its {name} there is only the repr {shown!r}: give restore=")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise lost from None
    if repr(value) != text:
        raise lost
    return value
