"""Reading a recorded database with SQL, inside the process that may be recording into it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from . import _paths
from .doctor import sqlite_of


def connect(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """A connection that reads a recorded database and cannot write it.

    Closing a database in one copy of SQLite drops the POSIX locks that another copy in the same process holds
    on it. So this connects only where Python's sqlite3 and rubriscope call one and the same library.

    Args:
        path: The database's path.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: Python's sqlite3 is another copy of SQLite than rubriscope's.
    """
    file = Path(path).expanduser().absolute()
    if not file.exists():
        raise FileNotFoundError(2, "no database there", str(file))
    import _sqlite3

    pythons, _ = sqlite_of(getattr(_sqlite3, "__file__", None))
    ours, _ = sqlite_of(_paths.library_path)
    if pythons != ours:
        raise RuntimeError(
            f"Python's sqlite3 ({pythons}) and rubriscope ({ours}) are two copies of SQLite in one process, "
            f"which drop each other's locks: read {file} with rubriscope.Film, or in another process"
        )
    # Not mode=ro: the last reader of a write-ahead log that cannot write leaves the log's files behind.
    connection = sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)
    connection.execute("PRAGMA query_only = ON")
    return connection
