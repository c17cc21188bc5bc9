"""What a PostgresSink asks of a connection, in psycopg. All of it runs on the recorder's drain thread."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import _C
from ._postgres import LinkError, connect, is_local, link_error, prepare, require_psycopg

if TYPE_CHECKING:
    import psycopg

_SEQUENCE_BITS = 40
_COPY_STEPS = f"COPY steps({_C._POSTGRES_STEP_COLUMNS}) FROM STDIN WITH (FORMAT binary)"
_COPY_SCALARS = f"COPY scalars({_C._POSTGRES_SCALAR_COLUMNS}) FROM STDIN WITH (FORMAT binary)"
_COPY_EVENTS = f"COPY events({_C._POSTGRES_EVENT_COLUMNS}) FROM STDIN WITH (FORMAT binary)"
_PUT_EXTENTS = """
INSERT INTO extents(session_id, first_key, last_key, steps, scalars, events, first_ns, last_ns, episode_id,
  first_step, last_step)
SELECT %s, * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
  %s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
ON CONFLICT(first_key) DO UPDATE SET last_key = excluded.last_key, steps = excluded.steps,
  scalars = excluded.scalars, events = excluded.events, first_ns = excluded.first_ns,
  last_ns = excluded.last_ns, episode_id = excluded.episode_id, first_step = excluded.first_step,
  last_step = excluded.last_step
"""
_PUT_EPISODES = """
INSERT INTO episodes SELECT %s, * FROM unnest(%s::text[], %s::bigint[]) ON CONFLICT DO NOTHING
"""
_PUT_ENTRIES = "INSERT INTO ledger_entries SELECT * FROM unnest(%s::bigint[], %b::bytea[])"
_PUT_TILES = """
INSERT INTO ledger_tiles SELECT * FROM unnest(%s::bigint[], %b::bytea[])
ON CONFLICT(tile_key) DO UPDATE SET hashes = excluded.hashes
"""
_PUT_LOG = """
INSERT INTO ledgers VALUES (%s, %s, %s) ON CONFLICT(writer_key) DO UPDATE SET size = excluded.size,
  checkpoint = coalesce(excluded.checkpoint, ledgers.checkpoint)
"""
#: The transaction of a connection that was lost may still be at work.
_END_BEFORE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s
"""
_MYSELF = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


#: A log's size and the tiles at its edge by key; None where there is none.
StoredLog = tuple[int, dict[int, bytes]] | None


def _put(cursor: psycopg.Cursor[Any], sql: str, rows: list[tuple[Any, ...]], *first: int) -> None:
    """Stores rows, given to the statement column by column. Not prepared: a pooler may come between."""
    if rows:
        columns = (list(column) for column in zip(*rows, strict=True))
        cursor.execute(sql, (*first, *columns), prepare=False)


class Connector:
    """Opens a sink's connections to one database, one after another."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before: tuple[int, tuple[Any, ...]] | None = None  # process, and its latest server process

    def __call__(self) -> Link:
        """Connects, and makes the tables where there are none. Raises ``FormatError`` or ``LinkError``."""
        psycopg = require_psycopg()
        connection = connect(self._url)
        try:
            prepare(connection, self._url)
            if self._before is not None and self._before[0] == os.getpid():
                connection.execute(_END_BEFORE, self._before[1])
            myself = connection.execute(_MYSELF).fetchone()
            self._before = None if myself is None else (os.getpid(), myself)
        except psycopg.Error as error:
            connection.close()
            raise link_error("Opening", self._url, error) from None
        except BaseException:
            connection.close()
            raise
        return Link(connection, self._url)


class Link:
    """One connection. Every method raises ``LinkError``; after that it is closed and another made."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], url: str) -> None:
        self._connection = connection
        self._url = url
        self._local = is_local(connection.fileno())

    def fileno(self) -> int:
        """The socket's number."""
        return self._connection.fileno()

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except require_psycopg().Error as error:
            raise link_error(what, self._url, error) from None

    def _one(self, sql: str, arguments: tuple[Any, ...] | dict[str, Any]) -> Any:
        row = self._connection.execute(sql, arguments).fetchone()
        return None if row is None else row[0]

    def register_writer(self, writer: dict[str, Any]) -> tuple[int, int, int | None, StoredLog]:
        """Makes session and writer known; returns their keys, the writer's highest sequence and its log."""
        with self._errors("Opening"), self._connection.transaction():
            execute = self._connection.execute
            execute(
                "INSERT INTO sessions(uuid, name, created_at, created_ns, metadata) "
                "VALUES (%(uuid)s, %(name)s, to_timestamp(%(created_ns)s / 1e9), %(created_ns)s, "
                "%(metadata)s) ON CONFLICT(uuid) DO NOTHING",
                writer,
            )
            session_id = self._one("SELECT session_id FROM sessions WHERE uuid = %s", (writer["uuid"],))
            values = {**writer, "session_id": session_id}
            execute(
                "INSERT INTO writers(session_id, writer_id, rank, world_size, host, pid, started_ns) VALUES "
                "(%(session_id)s, %(writer_id)s, %(rank)s, %(world_size)s, %(host)s, %(pid)s, "
                "%(started_ns)s) ON CONFLICT(writer_id) DO NOTHING",
                values,
            )
            key = self._one("SELECT writer_key FROM writers WHERE writer_id = %s", (writer["writer_id"],))
            if writer["wrapped_key"] is not None:
                # A key that was shredded stays away: its writer had closed.
                execute(
                    "INSERT INTO vault_keys SELECT %(key)s, %(wrapped_key)s WHERE NOT EXISTS(SELECT 1 FROM "
                    "writers WHERE writer_key = %(key)s AND closed_ns IS NOT NULL) ON CONFLICT DO NOTHING",
                    {**values, "key": key},
                )
            execute(
                "UPDATE sessions SET closed_ns = NULL WHERE session_id = %s AND closed_ns IS NOT NULL",
                (session_id,),
            )
            execute(
                "UPDATE writers SET closed_ns = NULL WHERE writer_key = %s AND closed_ns IS NOT NULL", (key,)
            )
        with self._errors("Opening"), self._connection.transaction():
            # What is stored and the log of it, in one state of the database: a transaction that the server
            # ends only now (its connection was lost) is in both or in neither.
            self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return session_id, key, self._last_sequence(key), self._log(key)

    def _log(self, writer_key: int) -> StoredLog:
        size = self._one("SELECT size FROM ledgers WHERE writer_key = %s", (writer_key,))
        if size is None:
            return None
        keys = _C._ledger_edge_keys(writer_key, size)
        rows = self._connection.execute(
            "SELECT tile_key, hashes FROM ledger_tiles WHERE tile_key = ANY(%s)", (keys,)
        ).fetchall()
        return size, dict(rows)

    def stored_between(self, writer_key: int, first: int, last: int) -> list[int]:
        """The sequences from ``first`` to ``last`` that are stored."""
        base = writer_key << _SEQUENCE_BITS
        with self._errors("Reading"):
            rows = self._connection.execute(
                "SELECT step_key FROM steps WHERE step_key BETWEEN %(first)s AND %(last)s UNION ALL "
                "SELECT scalar_key FROM scalars WHERE scalar_key BETWEEN %(first)s AND %(last)s UNION ALL "
                "SELECT event_key FROM events WHERE event_key BETWEEN %(first)s AND %(last)s",
                {"first": base | first, "last": base | last},
            ).fetchall()
        return [key - base for (key,) in rows]

    def _last_sequence(self, writer_key: int) -> int | None:
        first, last = writer_key << _SEQUENCE_BITS, ((writer_key + 1) << _SEQUENCE_BITS) - 1
        key = self._one(
            "SELECT greatest("
            "(SELECT max(step_key) FROM steps WHERE step_key BETWEEN %(first)s AND %(last)s), "
            "(SELECT max(scalar_key) FROM scalars WHERE scalar_key BETWEEN %(first)s AND %(last)s), "
            "(SELECT max(event_key) FROM events WHERE event_key BETWEEN %(first)s AND %(last)s))",
            {"first": first, "last": last},
        )
        return None if key is None else key - first

    def stored_through(self, writer_id: str) -> int | None:
        """A writer's highest stored sequence."""
        with self._errors("Reading"):
            key = self._one("SELECT writer_key FROM writers WHERE writer_id = %s", (writer_id,))
            return None if key is None else self._last_sequence(key)

    def schema_key(
        self, session_id: int, kind: str, definition: str, rubrics: list[tuple[str, int, str, str]]
    ) -> int:
        """The key of a schema, which is stored where it is new."""
        find = (
            "SELECT schema_key FROM schemas WHERE session_id = %s AND definition = %s AND "
            "hashtextextended(definition, 0) = hashtextextended(%s, 0)",
            (session_id, definition, definition),
        )
        with self._errors("Writing to"), self._connection.transaction():
            key = self._one(*find)
            if key is not None:
                return int(key)
            key = self._one(
                "INSERT INTO schemas(session_id, kind, definition) VALUES (%s, %s, %s) "
                "ON CONFLICT DO NOTHING RETURNING schema_key",
                (session_id, kind, definition),
            )
            if key is None:  # another writer was faster
                return int(self._one(*find))
            with self._connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO rubrics VALUES (%s, %s, %s, %s, %s)", [(key, *row) for row in rubrics]
                )
            return int(key)

    def store(self, session_id: int, writer_key: int, portion: _C.PostgresPortion) -> None:
        """One transaction: the streams, then what goes with them. A failure leaves it open: the connection
        is closed next."""
        with self._errors("Writing to"):
            with self._connection.cursor() as cursor:
                cursor.execute("BEGIN")
                self._copy(cursor, _COPY_STEPS, portion.steps, portion._send_steps)
                self._copy(cursor, _COPY_SCALARS, portion.scalars)
                self._copy(cursor, _COPY_EVENTS, portion.events)
            # Sent together: each answer waited for is a wait for the GIL, too.
            with self._connection.pipeline(), self._connection.cursor() as cursor:
                _put(cursor, _PUT_EXTENTS, portion.extents, session_id)
                if (log := portion.log(writer_key)) is not None:
                    size, checkpoint, entries, tiles = log
                    _put(cursor, _PUT_ENTRIES, entries)
                    _put(cursor, _PUT_TILES, tiles)
                    cursor.execute(_PUT_LOG, (writer_key, size, checkpoint), prepare=False)
                # Names last, for the lock on a new one holds up the other writers until the end.
                _put(cursor, _PUT_EPISODES, portion.episodes, session_id)
                cursor.execute("COMMIT", prepare=False)

    def _copy(
        self,
        cursor: psycopg.Cursor[Any],
        sql: str,
        pieces: Callable[[], bytes],
        send: Callable[[int], int] | None = None,
    ) -> None:
        """One stream: its first piece by psycopg; the others too, or by ``send`` where the socket is local.
        Each piece by psycopg is two waits or more for the GIL, up to 5 ms each while Python code runs."""
        piece = pieces()
        if not piece:
            return
        lost: psycopg.Error | None = None
        with cursor.copy(sql) as copy:
            try:
                copy.write(piece)
                if send is not None and self._local:
                    self._flush()
                    # A failure shows again, with what the server says of it, when the stream is ended.
                    if number := send(self._connection.fileno()):
                        lost = require_psycopg().OperationalError(os.strerror(number))
                else:
                    while piece := pieces():
                        copy.write(piece)
            except require_psycopg().OperationalError as error:
                # Not through the with: it would try to tell the server, and log that it could not.
                lost = error
        if lost is not None:
            raise lost

    def _flush(self) -> None:
        """Waits until the library has nothing left to send."""
        room = select.poll()
        room.register(self._connection, select.POLLOUT)
        while self._connection.pgconn.flush():
            room.poll()

    def close_writers(self, writer_keys: list[int]) -> None:
        """Notes the writers' end, and the end of sessions whose writers have all ended."""
        with self._errors("Closing"), self._connection.transaction():
            now = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000"
            execute = self._connection.execute
            sessions = execute(
                f"UPDATE writers SET closed_ns = {now} WHERE writer_key = ANY(%s) RETURNING session_id",
                (writer_keys,),
            ).fetchall()
            for session_id in sorted({session_id for (session_id,) in sessions}):
                # Of two writers that end at once the later one sees the other's end.
                execute("SELECT 1 FROM sessions WHERE session_id = %s FOR UPDATE", (session_id,))
                execute(
                    f"UPDATE sessions SET closed_ns = {now} WHERE session_id = %s AND NOT EXISTS ("
                    "SELECT 1 FROM writers WHERE writers.session_id = %s AND closed_ns IS NULL)",
                    (session_id, session_id),
                )


__all__ = ["Connector", "Link", "LinkError"]
