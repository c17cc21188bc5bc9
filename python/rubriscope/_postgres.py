"""Connecting to a PostgreSQL database and its tables; which of its errors go away by themselves."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ._postgres_url import complete, public_url, secrets_of
from .errors import FormatError

if TYPE_CHECKING:
    import psycopg

#: The version of the tables below.
FORMAT_VERSION = 2

#: "RSCP": ranks that find an empty database make its tables one after another.
_CREATE_LOCK = 0x52534350

_DEFAULTS = {
    "connect_timeout": "10",
    # A network that swallows everything must not hold a batch, or a close(), for ever.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "rubriscope",
}
_STATEMENT_TIMEOUT_MS = 60_000
_SEND_BUFFER = 1 << 20

#: As in SQLite (docs/formats.md). Text is indexed by two hashes of it: an index row holds 2.7 kB at most.
_CREATE = """
CREATE TABLE rubriscope_format(version integer NOT NULL);
CREATE TABLE sessions(
  session_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  uuid text NOT NULL UNIQUE,
  name text NOT NULL,
  created_at timestamptz NOT NULL,
  created_ns bigint NOT NULL,
  closed_ns bigint,
  metadata json NOT NULL);
CREATE TABLE writers(
  writer_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id bigint NOT NULL REFERENCES sessions,
  writer_id text NOT NULL UNIQUE,
  rank integer NOT NULL,
  world_size integer NOT NULL,
  host text NOT NULL,
  pid bigint NOT NULL,
  started_ns bigint NOT NULL,
  closed_ns bigint);
CREATE INDEX ON writers(session_id);
CREATE TABLE schemas(
  schema_key bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_id bigint NOT NULL REFERENCES sessions,
  kind text NOT NULL,
  definition text NOT NULL);
CREATE UNIQUE INDEX ON schemas(session_id, hashtextextended(definition, 0), hashtextextended(definition, 1));
CREATE TABLE rubrics(
  schema_key bigint NOT NULL REFERENCES schemas,
  rubric_path text NOT NULL,
  slot integer NOT NULL,
  jp text NOT NULL,
  class_name text NOT NULL);
CREATE INDEX ON rubrics(schema_key);
CREATE TABLE episodes(
  session_id bigint NOT NULL REFERENCES sessions,
  episode_id text NOT NULL,
  started_ns bigint NOT NULL);
CREATE UNIQUE INDEX ON episodes(session_id, hashtextextended(episode_id, 0), hashtextextended(episode_id, 1));
CREATE TABLE steps(
  step_key bigint PRIMARY KEY,
  session_id bigint NOT NULL,
  episode_id text,
  step_index bigint NOT NULL,
  time_ns bigint NOT NULL,
  reward double precision,
  action text,
  observation text,
  metadata json,
  group_id bigint,
  sample_index integer,
  schema_key bigint NOT NULL,
  scores double precision[] NOT NULL,
  statuses text,
  record bytea NOT NULL);
CREATE TABLE extents(
  first_key bigint PRIMARY KEY,
  last_key bigint NOT NULL,
  session_id bigint NOT NULL,
  steps bigint NOT NULL,
  scalars bigint NOT NULL,
  events bigint NOT NULL,
  first_ns bigint NOT NULL,
  last_ns bigint NOT NULL,
  episode_id text,
  first_step bigint,
  last_step bigint);
CREATE TABLE scalars(
  scalar_key bigint PRIMARY KEY,
  session_id bigint NOT NULL,
  step_index bigint NOT NULL,
  time_ns bigint NOT NULL,
  schema_key bigint NOT NULL,
  "values" double precision[] NOT NULL,
  record bytea NOT NULL);
CREATE TABLE events(
  event_key bigint PRIMARY KEY,
  session_id bigint NOT NULL,
  kind text NOT NULL,
  name text NOT NULL,
  episode_id text,
  step_index bigint NOT NULL,
  time_ns bigint NOT NULL,
  duration_ns bigint NOT NULL,
  outcome text NOT NULL,
  trace_id text,
  parent_id text,
  schema_key bigint NOT NULL,
  "values" double precision[] NOT NULL,
  fields json NOT NULL,
  metadata json,
  record bytea NOT NULL);
CREATE TABLE ledgers(
  writer_key bigint PRIMARY KEY,
  size bigint NOT NULL,
  checkpoint text);
CREATE TABLE ledger_tiles(
  tile_key bigint PRIMARY KEY,
  hashes bytea NOT NULL);
ALTER TABLE ledger_tiles ALTER COLUMN hashes SET STORAGE EXTERNAL;
CREATE TABLE ledger_entries(
  entry_key bigint PRIMARY KEY,
  entry bytea NOT NULL);
CREATE TABLE vault(
  id integer PRIMARY KEY CHECK(id = 1),
  search_key bytea NOT NULL);
CREATE TABLE vault_keys(
  writer_key bigint PRIMARY KEY,
  wrapped_key bytea NOT NULL);
CREATE VIEW trajectory AS
  SELECT s.session_id AS session_id, s.episode_id AS episode_id, s.step_index AS step_index,
         r.rubric_path AS rubric_path, s.scores[r.slot + 1] AS score,
         CASE coalesce(substr(s.statuses, r.slot + 1, 1), 's')
           WHEN 's' THEN 'scored' WHEN 'k' THEN 'skipped' WHEN 'f' THEN 'failed' END AS status,
         w.rank AS rank, s.step_key & 1099511627775 AS sequence, s.group_id AS group_id,
         s.sample_index AS sample_index
  FROM steps s JOIN rubrics r ON r.schema_key = s.schema_key
  JOIN writers w ON w.writer_key = s.step_key >> 40;
CREATE VIEW scalar_values AS
  SELECT s.session_id AS session_id, s.step_index AS step_index, r.rubric_path AS name,
         s."values"[r.slot + 1] AS value, s.time_ns AS time_ns, w.rank AS rank,
         s.scalar_key & 1099511627775 AS sequence
  FROM scalars s JOIN rubrics r ON r.schema_key = s.schema_key
  JOIN writers w ON w.writer_key = s.scalar_key >> 40;
CREATE VIEW event_values AS
  SELECT e.session_id AS session_id, e.kind AS kind, e.name AS event, r.rubric_path AS name,
         e."values"[r.slot + 1] AS value, e.step_index AS step_index, e.time_ns AS time_ns,
         e.trace_id AS trace_id, w.rank AS rank, e.event_key & 1099511627775 AS sequence
  FROM events e JOIN rubrics r ON r.schema_key = e.schema_key
  JOIN writers w ON w.writer_key = e.event_key >> 40;
"""
_NAMES = re.findall(r"CREATE (?:TABLE|VIEW) (\w+)", _CREATE)


class LinkError(Exception):
    """A failure of the server or of the way to it. ``transient``: trying again may help."""

    def __init__(self, message: str, *, transient: bool, timed_out: bool = False) -> None:
        super().__init__(message)
        self.transient = transient
        self.timed_out = timed_out


def require_psycopg() -> Any:
    """The psycopg module. Raises ``ImportError`` that names the extra."""
    try:
        import psycopg
    except ImportError as error:
        raise ImportError(
            f"a postgresql:// target needs psycopg 3 ({error}): pip install 'rubriscope[postgres]'"
        ) from None
    return psycopg


#: What the server says about itself while it cannot serve, in the connection's first message.
_SOON = re.compile(
    r"starting up|shutting down|recovery|not yet accepting|too many|remaining connection slots|terminating",
    re.I,
)
#: SQLSTATE classes and codes that pass: connection, rollbacks, resources, operator, system; a lock, a standby
#: server, and a key that a transaction of ours stored whose end we did not hear of.
_TRANSIENT = ("08", "40", "53", "57", "58", "55P03", "25006", "23505")
_QUERY_CANCELED = "57014"


def link_error(what: str, url: str, error: psycopg.Error) -> LinkError:
    """The failure as the recorder takes it, without a password in it."""
    return failure(what, url, str(error) or type(error).__name__, error.sqlstate)


def failure(what: str, url: str, message: str, sqlstate: str | None) -> LinkError:
    """Likewise from what the server said; ``sqlstate`` is None where no server took part."""
    message = " ".join(message.split())
    for secret in secrets_of(complete(url)):
        message = message.replace(secret, "***")
    if sqlstate is not None:
        transient = sqlstate.startswith(_TRANSIENT)
        message += f" (SQLSTATE {sqlstate})"
    else:
        # Or it refused the connection: only its text says why.
        transient = "FATAL" not in message or _SOON.search(message) is not None
    timed_out = sqlstate == _QUERY_CANCELED
    return LinkError(f"{what} {public_url(url)} failed: {message}", transient=transient, timed_out=timed_out)


def check(url: str) -> dict[str, Any]:
    """The parameters that a URL, with its password, stands for. Raises ``ValueError``."""
    psycopg = require_psycopg()
    try:
        given: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(complete(url))
    except psycopg.Error:
        # Its message would repeat the URL.
        shown = public_url(url)
        raise ValueError(f"{shown} is no URL that PostgreSQL's client library understands") from None
    return given


def connect(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection in autocommit mode, UTF-8, with time limits.

    Raises:
        LinkError: the server is not there, or refuses.
        ValueError: the URL is none.
    """
    library = require_psycopg()
    given = check(url)
    try:
        connection: psycopg.Connection[tuple[Any, ...]] = library.connect(
            **{**_DEFAULTS, **given, "client_encoding": "UTF8"}, autocommit=True
        )
    except library.Error as error:
        raise link_error("Connecting to", url, error) from None
    _widen(connection.fileno())
    return connection


def _widen(number: int) -> None:
    """Lets a local socket hold more: the server reads while the next piece of a stream is made. TCP widens by
    itself."""
    import socket

    with socket.socket(fileno=os.dup(number)) as one:
        if one.family == socket.AF_UNIX:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)


def prepare(connection: psycopg.Connection[tuple[Any, ...]], url: str) -> None:
    """Makes the tables in the connection's first schema where it has none of these names.

    Raises:
        FormatError: they are another program's or of a newer format; nothing was changed.
        LinkError: the database's text is not UTF-8.
    """
    encoding = connection.info.parameter_status("server_encoding")
    if encoding not in ("UTF8", "SQL_ASCII"):
        raise LinkError(
            f"{public_url(url)} has the encoding {encoding}, expected UTF8: "
            "make the database with ENCODING 'UTF8'",
            transient=False,
        )
    connection.execute("SELECT set_config('synchronous_commit', 'on', false) "
                       "WHERE current_setting('synchronous_commit') = 'off'")  # fmt: skip
    connection.execute(
        "SELECT set_config('statement_timeout', %s, false) WHERE current_setting('statement_timeout') = '0'",
        (str(_STATEMENT_TIMEOUT_MS),),
    )
    if has_tables(connection, url):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_CREATE_LOCK,))
        if not has_tables(connection, url):
            connection.execute(_CREATE)
            connection.execute("INSERT INTO rubriscope_format VALUES (%s)", (FORMAT_VERSION,))


def has_tables(connection: psycopg.Connection[tuple[Any, ...]], url: str) -> bool:
    """Whether the first schema of the search path holds our tables. Changes nothing.

    Raises:
        FormatError: it holds another program's tables of these names, or a newer format.
    """
    rows = connection.execute(
        "SELECT c.relname FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace "
        "AND c.relname = ANY(%s)",
        (_NAMES,),
    ).fetchall()
    found = sorted(name for (name,) in rows)
    public = public_url(url)
    if not found:
        return False
    if "rubriscope_format" not in found:
        raise FormatError(
            f"{public} has {', '.join(found)} of another program. It was left as it is; name another "
            "database, or another schema with ?options=-csearch_path%3DNAME"
        )
    versions = connection.execute("SELECT version FROM rubriscope_format").fetchall()
    version = versions[0][0] if len(versions) == 1 else None
    if version is None or version < 1:
        raise FormatError(f"{public} has no format version in rubriscope_format. It was left as it is")
    if version < FORMAT_VERSION:
        raise FormatError(
            f"{public} has format version {version} of an older rubriscope; this one knows version "
            f"{FORMAT_VERSION}. It was left as it is; name another database, or another schema with "
            "?options=-csearch_path%3DNAME"
        )
    if version > FORMAT_VERSION:
        raise FormatError(
            f"{public} has format version {version}, written by a newer rubriscope; this one knows version "
            f"{FORMAT_VERSION}. It was left as it is"
        )
    missing = sorted(set(_NAMES) - set(found))
    if missing:
        raise FormatError(f"{public} lacks {', '.join(missing)} of format version {version}")
    return True
