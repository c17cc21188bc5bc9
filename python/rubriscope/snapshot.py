"""The snapshot: what one call of an observed rubric tree looked like."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: The path of a tree's root in every dictionary of a snapshot.
ROOT = "root"


@dataclass(slots=True)
class Scalars:
    """One ``recorder.log(…)``, as sinks with ``write_all`` get it beside the snapshots.

    Built positionally by ``csrc/binding/snapshot_object.cpp``.
    """

    id: str  #: ``"<writer UUID>:<sequence>"``, as a snapshot's
    session_id: str
    session_name: str
    step: int
    time_ns: int  #: wall clock of the call
    values: dict[str, float]  #: NaN where it was not finite
    rank: int = 0
    recovered: bool = False


@dataclass(slots=True)
class NeuralSnapshot:
    """One call of an observed rubric tree: a score, a status and a duration for each of its nodes.

    Dictionaries are keyed by dotted path, ``"root"`` for the root; a child that hangs at several places of
    the tree is listed under each of its paths. Times are nanoseconds, ``time_ns`` since the Unix epoch.

    The C++ side builds snapshots positionally: the order of the fields is part of the contract with
    ``csrc/binding/snapshot_object.cpp``.
    """

    id: str  #: ``"<writer UUID>:<sequence>"``: the same wherever, and however often, the record is delivered
    session_id: str  #: the session's UUID
    session_name: str
    episode_id: str
    step: int
    time_ns: int  #: wall clock at the end of the call
    scores: dict[str, float]  #: skipped and failed nodes are absent
    statuses: dict[str, str]  #: ``"scored"``, ``"skipped"`` or ``"failed"`` for every node
    durations_ns: dict[str, int] = field(default_factory=dict)  #: skipped nodes are absent
    reward: float | None = None  #: the root's score; None when the root has none
    metadata: dict[str, Any] = field(default_factory=dict)  #: ``recorder.annotate(...)`` of this call
    action: str | int | float | None = None
    observation: str | int | float | None = None
    explanations: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  #: why a node failed
    score_metadata: dict[str, dict[str, Any]] = field(default_factory=dict)  #: of ``rs.Score(…, **metadata)``
    calls: dict[str, int] = field(default_factory=dict)  #: nodes called more than once in this call
    rank: int = 0
    group_id: int | None = None
    sample_index: int | None = None
    recovered: bool = False  #: replayed from the journal of a process that died
    #: what ``action`` and ``observation`` lack of what the rubric was given: ``"repr"``, ``"cut"`` or
    #: ``"cut repr"``; absent where it is the value itself
    captures: dict[str, str] = field(default_factory=dict)

    @property
    def timestamp(self) -> float:
        """Wall clock at the end of the call, in seconds since the Unix epoch."""
        return self.time_ns / 1e9

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, and ``timestamp`` in seconds after ``time_ns``. Dictionaries are copies."""
        result: dict[str, Any] = {}
        for name in FIELD_NAMES:
            value = getattr(self, name)
            result[name] = dict(value) if isinstance(value, dict) else value
            if name == "time_ns":
                result["timestamp"] = self.timestamp
        return result

    def to_json(self, indent: int | None = None) -> str:
        """Valid JSON for any snapshot.

        A number that is not finite becomes ``null``; a key that is not a string, and a value that JSON has
        no form for, become their ``str``.
        """
        return dump_json(self.to_dict(), indent=indent)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NeuralSnapshot:
        """The inverse of :meth:`to_dict`; also reads what :meth:`to_json` wrote.

        Raises ``ValueError`` for an unknown or a missing field. A ``null`` score (JSON's stand-in for a
        number that is not finite) is left out.
        """
        unknown = sorted(set(data) - _KNOWN)
        if unknown:
            raise ValueError(f"a snapshot has no field {', '.join(map(repr, unknown))}; it has {_listing()}")
        missing = [name for name in _REQUIRED if name not in data]
        if missing:
            raise ValueError(f"not a snapshot: {', '.join(map(repr, missing))} missing")
        values = {name: data[name] for name in FIELD_NAMES if name in data}
        values["scores"] = {path: score for path, score in values["scores"].items() if score is not None}
        return cls(**values)


FIELD_NAMES: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(NeuralSnapshot))
_KNOWN = frozenset(FIELD_NAMES) | {"timestamp"}
_REQUIRED: tuple[str, ...] = tuple(
    f.name
    for f in dataclasses.fields(NeuralSnapshot)
    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
)


def _listing() -> str:
    return ", ".join(FIELD_NAMES)


def dump_json(value: Any, indent: int | None = None) -> str:
    """``json.dumps`` that always yields valid JSON in encodable text.

    Numbers that are not finite become ``null``, other objects their ``str``; lone surrogates (an
    undecodable byte in a captured string) stay escaped so that the text can be written as UTF-8.
    """
    try:  # most of what comes here is plain already, and json's encoder is in C
        text = _encode(value, indent, ascii_only=False)
    except (TypeError, ValueError):
        value = _plain(value)
        text = _encode(value, indent, ascii_only=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = _encode(value, indent, ascii_only=True)
    return text


def _encode(value: Any, indent: int | None, *, ascii_only: bool) -> str:
    separators = (",", ":") if indent is None else None
    return json.dumps(value, ensure_ascii=ascii_only, allow_nan=False, indent=indent, separators=separators)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {_plain_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return _plain(value.tolist())
    return str(value)


def _plain_key(key: Any) -> Any:
    """What json takes as a key, and turns into text itself; other keys as their ``str``."""
    if isinstance(key, float):
        return key if math.isfinite(key) else str(key)
    return key if key is None or isinstance(key, (str, int)) else str(key)
