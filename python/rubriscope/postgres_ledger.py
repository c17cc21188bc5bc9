"""What the ledger asks of a PostgreSQL database: its rows, in the binary form of COPY, read natively."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from . import _C
from ._postgres import connect, link_error, require_psycopg

if TYPE_CHECKING:
    from .postgres_reader import PostgresReader

_COLUMNS = {
    "steps": _C._POSTGRES_STEP_COLUMNS,
    "scalars": _C._POSTGRES_SCALAR_COLUMNS,
    "events": _C._POSTGRES_EVENT_COLUMNS,
    "ledger_entries": "entry_key, entry",
    "ledger_tiles": "tile_key, hashes",
}
_LOGS = """
SELECT w.writer_key, w.writer_id, w.rank, s.uuid, coalesce(l.size, 0), coalesce(l.checkpoint, '')
FROM writers w JOIN sessions s USING (session_id) LEFT JOIN ledgers l USING (writer_key)
"""
_WRITER = """
SELECT s.session_id, s.uuid, s.name, s.created_ns, s.metadata::text AS metadata,
  s.created_at = to_timestamp(s.created_ns / 1e9) AS created_at_holds,
  w.writer_key = (SELECT min(writer_key) FROM writers WHERE session_id = s.session_id) AS is_first,
  w.rank, w.world_size, w.host, w.pid, w.started_ns
FROM writers w JOIN sessions s USING (session_id) WHERE w.writer_key = %s
"""


class PostgresLedgers:
    """The ledgers of a film's database, for ``_C.LedgerReader``. Everything but begin() is called between
    begin() and end() or abandon(), and sees one state of the database."""

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._scope = contextlib.ExitStack()

    def begin(self) -> None:
        """Begins to read."""
        self._scope.enter_context(self._reader._database())

    def end(self) -> None:
        """Ends what begin() began."""
        self._scope.close()

    def abandon(self) -> None:
        """Ends it after a failure, which is the one to tell of."""
        with contextlib.suppress(ConnectionError):
            self._scope.close()

    def logs(self, session_id: int) -> list[tuple[Any, ...]]:
        """Key, id, rank, session's UUID, size and checkpoint of each log."""
        return self._logs("w.session_id = %s AND l.size IS NOT NULL ORDER BY w.writer_key", session_id)

    def without_log(self, session_id: int) -> list[tuple[Any, ...]]:
        """The same of writers that have no log and should."""
        return self._logs(f"w.session_id = %s AND {_C._LACKS_A_LOG} ORDER BY w.writer_key", session_id)

    def _logs(self, condition: str, key: int) -> list[tuple[Any, ...]]:
        return self._reader._query(f"{_LOGS} WHERE {condition}", (key,))

    def log(self, writer_key: int) -> tuple[Any, ...] | None:
        """The same of a writer's log."""
        found = self._logs("w.writer_key = %s AND l.size IS NOT NULL", writer_key)
        return found[0] if found else None

    def rows(self, table: str, first: int, last: int, most: int) -> bytes:
        """The first rows with keys from ``first`` to ``last``: the bytes of a COPY."""
        columns = _COLUMNS[table]
        key = columns.partition(",")[0]
        return self._reader._copy(
            f"SELECT {columns} FROM {table} WHERE {key} BETWEEN {first} AND {last} "
            f"ORDER BY {key} LIMIT {most}"
        )

    def writer(self, writer_key: int) -> dict[str, Any] | None:
        """A writer's row with its session's."""
        with self._reader._database() as database:
            cursor = database.execute(_WRITER, (writer_key,))
            names = [column.name for column in cursor.description or ()]
            row = cursor.fetchone()
        return None if row is None else dict(zip(names, row, strict=True))

    def schema(self, schema_key: int) -> tuple[int, str, str, list[tuple[Any, ...]]] | None:
        """Session, kind, definition and rubrics (path, slot, jp, class) of a schema."""
        query = self._reader._query
        found = query("SELECT session_id, kind, definition FROM schemas WHERE schema_key = %s", (schema_key,))
        rubrics = query(
            "SELECT rubric_path, slot, jp, class_name FROM rubrics WHERE schema_key = %s", (schema_key,)
        )
        return (*found[0], rubrics) if found else None


def replace_checkpoint(url: str, writer_id: str, old: str, new: str) -> bool:
    """Puts a note with more signatures in the place of a log's checkpoint.

    Returns:
        False where that was replaced meanwhile.

    Raises:
        ConnectionError: the server is not there, or refuses.
    """
    psycopg = require_psycopg()
    try:
        with connect(url) as database:
            done = database.execute(
                "UPDATE ledgers SET checkpoint = %s WHERE checkpoint = %s AND "
                "writer_key = (SELECT writer_key FROM writers WHERE writer_id = %s)",
                (new, old, writer_id),
            )
            return done.rowcount == 1
    except psycopg.Error as error:
        raise ConnectionError(str(link_error("Writing to", url, error))) from None
