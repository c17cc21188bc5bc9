"""Reads the sessions of a PostgreSQL database, with the interface of the SQLite reader.

The server finds the rows; what is in the records is read natively, as for SQLite.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from . import _C
from ._postgres import LinkError, connect, has_tables, link_error, require_psycopg
from ._postgres_url import public_url
from .event import Event
from .merging import by_clock, by_step, columns_by_step
from .series import Summary
from .snapshot import NeuralSnapshot

if TYPE_CHECKING:
    import psycopg

_ROWS = 4096  # in a query of records
_SEQUENCE_BITS = 40
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1

_SESSIONS = """
SELECT s.session_id, s.uuid, s.name, s.created_ns, s.closed_ns, s.metadata::text AS metadata,
  coalesce(c.steps, 0)::bigint AS steps, coalesce(c.scalars, 0)::bigint AS scalars,
  coalesce(c.events, 0)::bigint AS events, c.first_ns, c.last_ns,
  (SELECT count(*) FROM episodes e WHERE e.session_id = s.session_id) AS episodes,
  (SELECT count(*) FROM writers w WHERE w.session_id = s.session_id) AS writers,
  ARRAY(SELECT DISTINCT rank FROM writers w WHERE w.session_id = s.session_id ORDER BY rank) AS ranks
FROM sessions s LEFT JOIN (SELECT session_id, sum(steps) AS steps, sum(scalars) AS scalars,
  sum(events) AS events, min(first_ns) AS first_ns, max(last_ns) AS last_ns
  FROM extents GROUP BY session_id) c
ON c.session_id = s.session_id ORDER BY s.session_id
"""
_EXTENTS = """
SELECT first_key, last_key FROM extents WHERE first_key BETWEEN %(first)s AND %(last)s
AND last_step >= %(low)s AND first_step <= %(high)s
AND (%(episode)s::text IS NULL OR episode_id IS NULL OR episode_id = %(episode)s) ORDER BY first_key
"""
_STEPS = """
SELECT step_key, schema_key, record FROM steps WHERE step_key BETWEEN %(first)s AND %(last)s
AND step_index BETWEEN %(low)s AND %(high)s
AND (%(episode)s::text IS NULL OR episode_id = %(episode)s OR (episode_id IS NULL AND statuses = ''))
ORDER BY step_key LIMIT %(most)s
"""
_SCALARS = """
SELECT scalar_key, schema_key, record FROM scalars WHERE scalar_key BETWEEN %(first)s AND %(last)s
AND step_index BETWEEN %(low)s AND %(high)s ORDER BY scalar_key LIMIT %(most)s
"""
_EVENTS = """
SELECT event_key, schema_key, record FROM events WHERE event_key BETWEEN %(first)s AND %(last)s
AND step_index BETWEEN %(low)s AND %(high)s AND (%(kind)s::text IS NULL OR kind = %(kind)s)
AND (%(name)s::text IS NULL OR name = %(name)s) ORDER BY event_key LIMIT %(most)s
"""

_Rows = list[tuple[int, int, bytes]]  #: key, schema key, record


@dataclass(frozen=True, slots=True)
class _Writer:
    key: int
    uuid: str
    rank: int

    @property
    def keys(self) -> tuple[int, int]:
        """The lowest and the highest key of its records."""
        return self.key << _SEQUENCE_BITS, ((self.key + 1) << _SEQUENCE_BITS) - 1


class PostgresReader:
    """The sessions of one database. Each call sees one consistent state; a lost connection is made anew.

    Raises ``FileNotFoundError`` for a database without recordings, ``rubriscope.FormatError`` where the
    tables are another program's, ``ConnectionError`` where the server is not there or refuses.
    """

    def __init__(self, url: str, kek: _C.Kek | None = None) -> None:
        self._url = url
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._unsealer: _C.Unsealer | None = None  #: of a database in which something is encrypted
        with self._database():
            search_key = self._query("SELECT search_key FROM vault")
        if search_key:
            self._unsealer = _C.Unsealer(public_url(url), self._data_key)
            if kek is not None:
                self._unsealer.unlock(kek, search_key[0][0])

    def _data_key(self, writer_id: str) -> tuple[str, bytes | None]:
        """The session of a writer, and its wrapped data key."""
        found = self._query(
            "SELECT s.uuid, k.wrapped_key FROM writers w JOIN sessions s USING(session_id) "
            "LEFT JOIN vault_keys k USING(writer_key) WHERE w.writer_id = %s",
            (writer_id,),
        )
        return found[0] if found else ("", None)

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextlib.contextmanager
    def _database(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """The connection in a transaction that sees one state of the database and writes nothing; within
        another it is that one."""
        psycopg = require_psycopg()
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._open()
                if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    yield self._connection
                    return
                with self._connection.transaction():
                    yield self._connection
            except psycopg.Error as error:
                self.close()
                raise ConnectionError(str(link_error("Reading", self._url, error))) from None
            except LinkError as error:
                raise ConnectionError(str(error)) from None

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        connection = connect(self._url)
        try:
            # Rows are read by key, some thousands at a time, along the index. A server that knows a table's
            # size wrongly (it was written a moment ago) would sort all that is left for each of them. What it
            # cannot but sort then looks dear enough to be compiled.
            connection.execute("SET enable_sort = off")
            connection.execute("SET jit = off")
            connection.isolation_level = require_psycopg().IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            if not has_tables(connection, self._url):
                raise FileNotFoundError(2, "no recording there", public_url(self._url))
        except BaseException:
            connection.close()
            raise
        return connection

    def _query(self, sql: str, arguments: Any = ()) -> list[tuple[Any, ...]]:
        with self._database() as database, database.cursor(binary=True) as cursor:
            return cursor.execute(sql, arguments).fetchall()

    def _copy(self, select: str) -> bytes:
        """The rows of a SELECT in the binary form of COPY."""
        sql = f"COPY ({select}) TO STDOUT WITH (FORMAT binary)"
        with self._database() as database, database.cursor() as cursor, cursor.copy(sql) as copy:
            return b"".join(copy)

    def ledgers(self) -> _C.LedgerReader:
        """The ledgers of this database; they use this reader's connection."""
        from .postgres_ledger import PostgresLedgers

        return _C.LedgerReader.over(PostgresLedgers(self))

    def sessions(self) -> list[dict[str, Any]]:
        """One dictionary a session."""
        with self._database() as database:
            cursor = database.execute(_SESSIONS)
            names = [column.name for column in cursor.description or ()]
            found = [dict(zip(names, row, strict=True)) for row in cursor]
        if self._unsealer is not None:
            for session in found:
                session["metadata"] = self._unsealer.metadata(session["metadata"])
        return found

    def paths(self, session_id: int) -> list[str]:
        """Rubric paths in pre-order."""
        return _C.schema_paths(self._schemas(session_id, "tree"))

    def scalar_names(self, session_id: int) -> list[str]:
        """Names logged with ``recorder.log``."""
        return _C.schema_paths(self._schemas(session_id, "scalars"))

    def episodes(self, session_id: int) -> list[str]:
        """Episode names in order of their start."""
        if self._is_sealed(session_id):
            began: dict[str, int] = {}  # their names are in the records alone
            for writer in self._writers(session_id):
                for records in self._records(_STEPS, *writer.keys, None, None, None):
                    for _, _, record in records:
                        if (found := _C.record_episode(record)) is not None:
                            began[found[0]] = min(found[1], began.get(found[0], found[1]))
            return sorted(began, key=lambda name: (began[name], name))
        rows = self._query(
            "SELECT episode_id FROM episodes WHERE session_id = %s "
            'ORDER BY started_ns, episode_id COLLATE "C"',
            (session_id,),
        )
        return [name for (name,) in rows]

    def writers(self, session_id: int) -> list[str]:
        """Writer ids; an index into this list is the number in a column ``writer``."""
        return [writer.uuid for writer in self._writers(session_id)]

    def scores(
        self,
        session_id: int,
        path: str,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one rubric path."""
        with self._database():
            scan = self._score_scan(session_id, "tree", path)
            for number, writer in enumerate(self._writers(session_id)):
                for first, last in self._ranges(writer, episode, start, stop):
                    for rows in self._records(_STEPS, first, last, episode, start, stop):
                        scan.add(number, writer.rank, [row[1:] for row in rows])
        return columns_by_step(scan.columns())

    def scalars(
        self, session_id: int, name: str, start: int | None = None, stop: int | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """Columns of one scalar."""
        with self._database():
            scan = self._score_scan(session_id, "scalars", name)
            for number, writer in enumerate(self._writers(session_id)):
                for rows in self._records(_SCALARS, *writer.keys, None, start, stop):
                    scan.add(number, writer.rank, [row[1:] for row in rows])
        return columns_by_step(scan.columns())

    def summaries(self, session_id: int, episode: str | None = None, bins: int = 24) -> list[Summary]:
        """Figures of every rubric path, from one scan."""
        with self._database():
            ((low, high),) = self._query(
                "SELECT min(first_step), max(last_step) FROM extents WHERE session_id = %s "
                "AND (%s::text IS NULL OR episode_id IS NULL OR episode_id = %s)",
                (session_id, episode, episode),
            )
            ends = (0, -1) if low is None else (low, high)
            schemas = self._schemas(session_id, "tree")
            scan = _C.SummaryScan(schemas, bins, *ends, where=public_url(self._url))
            for writer in self._writers(session_id):
                for first, last in self._ranges(writer, episode, None, None):
                    for rows in self._records(_STEPS, first, last, episode, None, None):
                        scan.add([row[1:] for row in rows])
        return [
            Summary(**{**found, "kind": "rubric", "curve": tuple(found["curve"])})
            for found in scan.summaries()
        ]

    def snapshots(
        self,
        session_id: int,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[NeuralSnapshot]:
        """Streams a session's snapshots."""
        with self._database():
            ranges = {
                writer: self._ranges(writer, episode, start, stop) for writer in self._writers(session_id)
            }

        def rows_of(writer: _Writer) -> Iterator[_Rows]:
            for first, last in ranges[writer]:
                yield from self._records(_STEPS, first, last, episode, start, stop)

        return by_step(self._streams(session_id, "tree", list(ranges), rows_of))

    def events(
        self,
        session_id: int,
        kind: str | None = None,
        name: str | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Iterator[Event]:
        """Streams a session's events."""

        def rows_of(writer: _Writer) -> Iterator[_Rows]:
            # PostgreSQL's text knows no NUL: it became U+FFFD.
            named = None if name is None else name.replace("\0", "\ufffd")
            if named is not None and self._is_sealed(session_id):
                assert self._unsealer is not None
                named = self._unsealer.token(named)
            return self._records(_EVENTS, *writer.keys, None, start, stop, kind=kind, name=named)

        return by_clock(self._streams(session_id, "event", self._writers(session_id), rows_of))

    def _streams(
        self,
        session_id: int,
        kind: str,
        writers: list[_Writer],
        rows_of: Callable[[_Writer], Iterator[_Rows]],
    ) -> list[Iterator[Any]]:
        """The records of each writer as objects."""
        ((uuid, name),) = self._query("SELECT uuid, name FROM sessions WHERE session_id = %s", (session_id,))

        def stream(writer: _Writer) -> Iterator[Any]:
            known: set[int] = set()
            decoder: _C.RecordDecoder | None = None
            for rows in rows_of(writer):
                if decoder is None or not known.issuperset(row[1] for row in rows):
                    # Schemas that were first seen after the film began are among them.
                    schemas = self._schemas(session_id, kind)
                    known = {key for key, _ in schemas}
                    decoder = _C.RecordDecoder(uuid, name, writer.uuid, writer.rank, schemas)
                for _, schema_key, record in rows:
                    yield decoder.object(schema_key, record)

        return [stream(writer) for writer in writers]

    def _schemas(self, session_id: int, kind: str) -> list[tuple[int, str]]:
        found = self._query(
            "SELECT schema_key, definition FROM schemas WHERE session_id = %s AND kind = %s "
            "ORDER BY schema_key",
            (session_id, kind),
        )
        if self._unsealer is None:
            return [(key, definition) for key, definition in found]
        return [(key, self._unsealer.schema(definition)) for key, definition in found]

    def _is_sealed(self, session_id: int) -> bool:
        """Whether a session is encrypted."""
        return self._unsealer is not None and bool(
            self._query(
                "SELECT 1 FROM schemas WHERE session_id = %s AND "
                """starts_with(definition, '{"kind":"' || kind || '","sealed":') LIMIT 1""",
                (session_id,),
            )
        )

    def _writers(self, session_id: int) -> list[_Writer]:
        rows = self._query(
            "SELECT writer_key, writer_id, rank FROM writers WHERE session_id = %s ORDER BY writer_key",
            (session_id,),
        )
        return [_Writer(*row) for row in rows]

    def _score_scan(self, session_id: int, kind: str, path: str) -> _C.ScoreScan:
        schemas = self._schemas(session_id, kind)
        return _C.ScoreScan(schemas, path, scalars=kind == "scalars", where=public_url(self._url))

    def _ranges(
        self, writer: _Writer, episode: str | None, start: int | None, stop: int | None
    ) -> list[tuple[int, int]]:
        """Keys from first to last, both included, that hold all the steps wanted."""
        first, last = writer.keys
        if episode is None and start is None and stop is None:
            return [(first, last)]
        limits = _limits(start, stop)
        found: list[tuple[int, int]] = []
        seen = first - 1
        for low, high in self._query(_EXTENTS, {"first": first, "last": last, "episode": episode, **limits}):
            low = max(low, seen + 1)
            if low > high:
                continue
            seen = high
            if found and found[-1][1] + 1 == low:
                found[-1] = (found[-1][0], high)
            else:
                found.append((low, high))
        return found

    def _records(
        self,
        sql: str,
        first: int,
        last: int,
        episode: str | None,
        start: int | None,
        stop: int | None,
        **more: str | None,
    ) -> Iterator[_Rows]:
        """Rows of key, schema key and record, some thousands at a time."""
        arguments = {"episode": episode, "most": _ROWS, **_limits(start, stop), **more}
        while first <= last:
            rows: Any = self._query(sql, {**arguments, "first": first, "last": last})
            if rows:
                yield self._opened(rows, episode)
            if len(rows) < _ROWS:
                return
            first = rows[-1][0] + 1

    def _opened(self, rows: _Rows, episode: str | None) -> _Rows:
        """The rows with their records unsealed; sealed ones have their episode there alone."""
        if self._unsealer is None:
            return rows
        opened = [(key, schema, self._unsealer.record(record)) for key, schema, record in rows]
        if episode is None:
            return opened
        return [row for row in opened if (_C.record_episode(row[2]) or ("",))[0] == episode]


def _limits(start: int | None, stop: int | None) -> dict[str, int]:
    return {"low": _LOWEST if start is None else start, "high": _HIGHEST if stop is None else stop - 1}
