"""Events: what a recording holds beside snapshots and scalars."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from .snapshot import dump_json

EventKind = Literal["observation", "span", "checkpoint"]
EVENT_KINDS: tuple[EventKind, ...] = ("observation", "span", "checkpoint")


@dataclass(slots=True)
class Event:
    """An observation of a sight point, a span or an event of a trace, or a checkpoint of a model.

    Built positionally by ``csrc/binding/snapshot_object.cpp``.
    """

    id: str  #: ``"<writer UUID>:<sequence>"``, as a snapshot's
    kind: EventKind
    name: str
    session_id: str
    session_name: str
    episode_id: str | None
    step: int
    time_ns: int  #: wall clock at its end
    duration_ns: int
    outcome: Literal["success", "error", "blocked"]
    values: dict[str, float] = field(default_factory=dict)  #: numbers; those without a value are absent
    fields: dict[str, Any] = field(default_factory=dict)  #: str, int, float, bytes or what was JSON
    attributes: dict[str, Any] = field(default_factory=dict)  #: what is the same in every event of its kind
    metadata: dict[str, Any] = field(default_factory=dict)
    rank: int = 0
    thread: int = 0
    group_id: int | None = None
    sample_index: int | None = None
    recovered: bool = False

    @property
    def writer(self) -> str:
        """The UUID of the process that wrote it."""
        return self.id.rpartition(":")[0]

    @property
    def sequence(self) -> int:
        """Its number in its writer's stream."""
        return int(self.id.rpartition(":")[2])

    def to_dict(self) -> dict[str, Any]:
        """Every field by name. Dictionaries are copies."""
        found = {name: getattr(self, name) for name in _FIELD_NAMES}
        return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}

    def to_json(self, indent: int | None = None) -> str:
        """Valid JSON for any event; bytes as ``{"bytes": size}``."""
        return dump_json({**self.to_dict(), "fields": self._plain_fields()}, indent=indent)

    def to_json_fields(self) -> str:
        """:attr:`fields` alone, as :meth:`to_json` has them."""
        return dump_json(self._plain_fields())

    def _plain_fields(self) -> dict[str, Any]:
        return {
            name: {"bytes": len(value)} if isinstance(value, bytes) else value
            for name, value in self.fields.items()
        }


_FIELD_NAMES = tuple(f.name for f in dataclasses.fields(Event))
