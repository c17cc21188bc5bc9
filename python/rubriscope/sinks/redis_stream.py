"""The Redis sink: a stream a writer, for `rubriscope ingest` to bring into one database."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..targets import without_password
from ._common import need

#: Records in one entry, and sent in one transaction.
_ENTRY, _CHUNK = 64, 2048

#: The longest a call waits for the server: other sinks wait meanwhile.
_TIMEOUT_S = 5.0


class Keys:
    """The keys in Redis; docs/formats.md says what they hold."""

    def __init__(self, name: str) -> None:
        self.writers = f"{name}:writers"
        self.damaged = f"{name}:damaged"
        self._name = name

    def stream(self, writer_id: str) -> str:
        """The writer's records."""
        return f"{self._name}:{writer_id}"

    def about(self, writer_id: str) -> str:
        """The writer's session and schemas."""
        return f"{self._name}:{writer_id}:about"

    def lease(self, writer_id: str) -> str:
        """Who brings the writer's stream into a database."""
        return f"{self._name}:{writer_id}:lease"


def split_url(url: str) -> tuple[str, str]:
    """``redis://host:6379/0?stream=NAME`` as the server's URL and the name.

    Raises ``ValueError`` for another scheme or a URL without a host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        shown = without_password(url)
        raise ValueError(f"a Redis target looks like redis://host:6379/0?stream=rubriscope, got {shown!r}")
    query = dict(parse_qsl(parts.query))
    name = query.pop("stream", "rubriscope")
    return urlunsplit(parts._replace(query=urlencode(query))), name


def connect(server: str) -> Any:
    """A client that says at once when something is wrong. Raises ImportError naming the extra.

    A URL without a password uses the one in ``REDISCLI_AUTH``, as redis-cli does.
    """
    redis = need("redis", "redis", "RedisStreamSink")
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options: dict[str, Any] = {}
    if urlsplit(server).password is None and "REDISCLI_AUTH" in os.environ:
        options["password"] = os.environ["REDISCLI_AUTH"]
    return redis.Redis.from_url(
        server,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),  # the recorder tries again itself, and asks first what was stored
        **options,
    )


class RedisStreamSink:
    """Appends every record's canonical bytes to a Redis stream of its writer, once; docs/formats.md has the
    keys. ``rubriscope ingest URL --to TARGET`` brings the streams of many writers into one database.

    What Redis has confirmed is as durable as its configuration makes it (``appendonly``, ``appendfsync``).
    The streams are not cut here: what has been ingested is removed by ``rubriscope ingest``.

    Args:
        url: ``redis://host:6379/0``; ``?stream=NAME`` names another set of streams than ``rubriscope``.

    Raises:
        ImportError: redis is missing: ``pip install 'rubriscope[redis]'``.
        ValueError: ``url`` is no Redis URL.
    """

    keeps_failed_batches = True

    def __init__(self, url: str = "redis://127.0.0.1:6379/0") -> None:
        self._url = url
        server, name = split_url(url)
        self._redis = connect(server)
        self._keys = Keys(name)
        self._sessions: dict[str, str] = {}
        self._defined: set[tuple[str, int]] = set()

    @property
    def target(self) -> str:
        """The URL without its password."""
        return without_password(self._url)

    def open(self, session: Mapping[str, Any]) -> None:
        """Makes the writer known to the ingester."""
        writer = str(session["writer_id"])
        described = {key: value for key, value in session.items() if key != "metadata"}
        self._sessions[writer] = json.dumps(described)
        self._defined.clear()
        with self._redis.pipeline(transaction=True) as transaction:
            self._introduce(transaction, writer)
            transaction.hdel(self._keys.about(writer), "closed_ns")
            transaction.execute()

    def stored_through(self, writer_id: str) -> int | None:
        """The highest sequence that the stream has ever held, ingested or not."""
        from redis.exceptions import ResponseError

        try:
            last = self._redis.xinfo_stream(self._keys.stream(writer_id))["last-generated-id"]
        except ResponseError as error:
            if "no such key" in str(error):
                return None
            raise
        sequence, _, written = last.decode().partition("-")
        return int(sequence) if written == "1" else None

    def write_records(
        self, writer_id: str, records: Sequence[tuple[int, bytes]], schemas: Mapping[int, str]
    ) -> None:
        """Appends records, their schemas first. The last sequence is the entry's id: Redis takes it once."""
        stream, about = self._keys.stream(writer_id), self._keys.about(writer_id)
        for start in range(0, len(records), _CHUNK):
            with self._redis.pipeline(transaction=True) as transaction:
                transaction.hexists(about, "session")
                for number, definition in schemas.items():
                    if (writer_id, number) not in self._defined:
                        transaction.hset(about, f"schema:{number}", definition)
                for first in range(start, min(start + _CHUNK, len(records)), _ENTRY):
                    fields = dict(records[first : min(first + _ENTRY, start + _CHUNK)])
                    transaction.xadd(stream, fields, id=f"{max(fields)}-1")
                known = transaction.execute()[0]
            self._defined.update((writer_id, number) for number in schemas)
            if not known:  # the server lost what it had
                self._defined.clear()
                with self._redis.pipeline(transaction=True) as transaction:
                    self._introduce(transaction, writer_id)
                    for number, definition in schemas.items():
                        transaction.hset(about, f"schema:{number}", definition)
                    transaction.execute()

    def close(self) -> None:
        """Says that the writers have ended."""
        try:
            for writer in self._sessions:
                self._redis.hset(self._keys.about(writer), "closed_ns", time.time_ns())
        finally:
            self._sessions.clear()
            self._redis.close()

    def _introduce(self, transaction: Any, writer: str) -> None:
        transaction.hset(self._keys.about(writer), "session", self._sessions[writer])
        transaction.sadd(self._keys.writers, writer)

    def __reduce__(self) -> tuple[Any, ...]:
        return RedisStreamSink, (self._url,)


def from_target(target: str) -> RedisStreamSink:
    """The sink for ``redis://…``."""
    return RedisStreamSink(target)
