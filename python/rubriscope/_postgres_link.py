"""What a PostgresSink asks of a connection, in psycopg. All of it runs on the recorder's drain thread."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import _C
from ._postgres import LinkError, connect, failure, link_error, prepare, require_psycopg

if TYPE_CHECKING:
    import psycopg

_SEQUENCE_BITS = 40
#: The transaction of a connection that was lost may still be at work.
_END_BEFORE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s
"""
_MYSELF = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"


#: A log's size and the tiles at its edge by key; None where there is none.
StoredLog = tuple[int, dict[int, bytes]] | None


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

    def fileno(self) -> int:
        """The socket's number."""
        return self._connection.fileno()

    def pgconn(self) -> int:
        """The connection as libpq has it, a ``PGconn*``."""
        connection: Any = self._connection.pgconn  # its stated type lacks the attribute
        pointer: int = connection.pgconn_ptr
        return pointer

    @staticmethod
    def libpq() -> int:
        """The handle of a library that libpq's functions can be looked up through: what psycopg uses."""
        pq = require_psycopg().pq
        module = sys.modules[pq.PGconn.__module__]
        library = module.impl.pq if pq.__impl__ == "python" else ctypes.CDLL(module.__file__)
        handle: int = library._handle
        return handle

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

    def refuse(self, message: str, sqlstate: str | None) -> None:
        """Raises what the core met when it stored a transaction on the connection."""
        raise failure("Writing to", self._url, message, sqlstate)

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
