"""The idempotency check: an event's bytes are the same however often it is encoded, and it counts once."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ... import _C
from ...recorder import Recorder
from ...sql import connect
from ...targets import sink_for_target

_LATEST = """
SELECT record, definition, sessions.name, created_ns, sessions.metadata,
       writer_id, rank, world_size, host, pid, started_ns
FROM events JOIN schemas USING(schema_key) JOIN writers ON writer_key = event_key >> 40
JOIN sessions ON sessions.session_id = events.session_id
WHERE uuid = ? AND events.name = ? ORDER BY event_key DESC LIMIT 1
"""
_COUNT = "SELECT count(*) FROM events JOIN sessions USING(session_id) WHERE uuid = ?"


@dataclass(frozen=True)
class Replayed:
    """What became of an event that was delivered again."""

    size: int  #: bytes
    identical: bool  #: the stored bytes, and those of two decodings and encodings, are the same
    counted_twice: int  #: events there are more of for it


class Replay:
    """Delivers an event again that a recorder has stored, as after a crash between storing and acknowledging.

    Args:
        recorder: Records into ``path``.
        path: The database.
        carry: What happens to an event's bytes on their way: tick and bytes to bytes.
    """

    def __init__(
        self, recorder: Recorder, path: str | os.PathLike[str], carry: Callable[[int, bytes], bytes]
    ) -> None:
        self._recorder = recorder
        self._path = os.fspath(path)
        self._carry = carry
        self._connection = connect(self._path)

    def latest(self, name: str, tick: int) -> Replayed:
        """Takes the latest event of a sight point, waits until it is stored and delivers it a second time."""
        self._recorder.flush()
        uuid = self._recorder.session_id
        stored, definition, *described = self._connection.execute(_LATEST, (uuid, name)).fetchone()
        arrived = self._carry(tick, stored)
        again, _, schema = _C.recode_record(arrived)
        twice, _, _ = _C.recode_record(again)
        # One that begins anew, as the process after a crash does, and asks the database what it has.
        writer = self._writer(described)
        writer.define(schema, definition)
        before = self._count(uuid)
        writer.write([arrived, again])
        return Replayed(len(stored), stored == arrived == again == twice, self._count(uuid) - before)

    def close(self) -> None:
        """Lets go of the database."""
        self._connection.close()

    def _count(self, uuid: str) -> int:
        return int(self._connection.execute(_COUNT, (uuid,)).fetchone()[0])

    def _writer(self, described: list[Any]) -> _C.RecordWriter:
        name, created_ns, metadata, writer_id, rank, world_size, host, pid, started_ns = described
        return _C.RecordWriter(
            sink_for_target(self._path),
            session_id=self._recorder.session_id,
            session_name=name,
            created_ns=created_ns,
            metadata_json=metadata,
            ledger=True,
            writer_id=writer_id,
            rank=rank,
            world_size=world_size,
            host=host,
            pid=pid,
            started_ns=started_ns,
        )
