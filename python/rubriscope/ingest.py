"""From Redis streams into one database: many ranks, one film. The command is ``rubriscope ingest``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _C
from .errors import FormatError
from .ledger import use_default_key
from .sinks.redis_stream import Keys, connect, split_url
from .targets import sink_for_target, without_password

#: The consumer group of every stream, and its only consumer: a stream is read by one ingester at a time, and
#: what a killed one had read and not acknowledged is its successor's.
GROUP = CONSUMER = "rubriscope"

_COUNT = 32  # entries a read and stream, of up to 64 records
_LONGEST_BACK_OFF_S = 5.0

# A lease is taken where there is none, or where its holder is one that we know to be dead (ARGV[2]).
_TAKE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[2] and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
# Forgets a writer that has ended, unless it came back meanwhile: nothing in the stream but what was ingested.
_FORGET = """
if redis.call('HEXISTS', KEYS[2], 'closed_ns') == 0 or redis.call('XLEN', KEYS[1]) > 0 then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SREM', KEYS[3], ARGV[1])
return 1
"""


@dataclass
class Counts:
    """What an ingester has done."""

    stored: int = 0  #: records new in the target
    repeated: int = 0  #: records the target had already: acknowledged, not stored again
    damaged: int = 0  #: what was found and is no record; it are kept in the stream ``NAME:damaged``
    writers: set[str] = field(default_factory=set)


@dataclass
class _Stream:
    """One writer's stream, ours for as long as we hold its lease."""

    writer_id: str
    out: _C.RecordWriter
    pending: bool = True  # first comes what was read before and not acknowledged
    attempts: int = 0  # failed ones in a row
    next_attempt: float = 0.0


class Ingester:
    """Reads the streams of :class:`~rubriscope.RedisStreamSink` and stores them in ``target``, each record
    once. Several may run: each writer's stream is one ingester's at a time, in order.

    An entry is acknowledged and removed when the target has it for good. After a kill in between it is read
    again, and the target, which stores (writer, sequence) with the data, says that it has it.

    Args:
        url: As the sink's: ``redis://host:6379/0?stream=NAME``.
        target: What ``rs.record`` takes and stores who wrote a record: a database.
        lease_s: How long the streams of an ingester that vanished with its machine stay its own. Those of one
            that died on this machine are taken over at once.

    Raises:
        ImportError: redis or the target's library is missing.
        ValueError: the URL is no Redis URL, or the target does not store identity.
    """

    def __init__(self, url: str, target: str, *, lease_s: float = 10.0) -> None:
        server, name = split_url(url)
        self.counts = Counts()
        self._shown = without_password(url)
        self._redis = connect(server)
        self._keys = Keys(name)
        self._target = target
        self._lease_ms = int(lease_s * 1000)
        self._streams: dict[str, _Stream] = {}
        self._stopping = threading.Event()
        pid = os.getpid()
        self._token = f"{socket.gethostname()} {pid} {_process_start(pid)} {uuid.uuid4()}"
        if not _stores_identity(sink_for_target(target)):
            raise ValueError(
                f"{without_password(target)!r} does not store who wrote a record: "
                "what is delivered twice would be there twice"
            )

    def stop(self) -> None:
        """Ends :meth:`run` after the batch at hand. Any thread; signal handlers too."""
        self._stopping.set()

    def run(self, *, once: bool = False) -> Counts:
        """Ingests until :meth:`stop`, or with ``once`` until every stream that is free is empty.

        A server or a target that fails is said once, and tried again for as long as it takes.

        Raises:
            FormatError: the target is not rubriscope's.
        """
        from redis.exceptions import RedisError

        attempts = 0
        while not self._stopping.is_set():
            try:
                moved = self._round(block=not once)
            except RedisError as error:
                self._streams.clear()  # leases and positions may be gone: begin again
                if attempts == 0:
                    _C._report("warning", f"{self._shown}: {error}; trying again")
                attempts += 1
                self._stopping.wait(_back_off(attempts))
                continue
            if attempts:
                _C._report("info", f"{self._shown}: works again")
            attempts = 0
            failing = any(stream.attempts for stream in self._streams.values())
            if once and not moved and not failing:
                break
            if not moved and (failing or not self._streams):
                self._stopping.wait(0.1)
        with contextlib.suppress(RedisError):  # leases end by themselves too
            for stream in list(self._streams.values()):
                self._release(stream.writer_id)
        return self.counts

    # ---- one round

    def _round(self, *, block: bool) -> bool:
        """Takes what is free, reads, stores, acknowledges; returns whether there was anything."""
        self._take_streams()
        now = time.monotonic()
        ready = [stream for stream in self._streams.values() if stream.next_attempt <= now]
        moved = False
        for stream in [stream for stream in ready if stream.pending]:
            moved = self._catch_up(stream) or moved
        fresh = {self._keys.stream(s.writer_id): s for s in ready if not s.pending}
        if fresh:
            wait_ms = 200 if block and not moved else None
            new = dict.fromkeys(fresh, ">")
            for key, entries in (
                self._redis.xreadgroup(GROUP, CONSUMER, new, count=_COUNT, block=wait_ms) or []
            ):
                moved = self._store(fresh.pop(key.decode()), entries) or moved
        for stream in fresh.values():  # with nothing new
            self._end(stream)
        return moved

    def _take_streams(self) -> None:
        writers = {writer.decode() for writer in self._redis.smembers(self._keys.writers)}
        for writer in sorted(writers | set(self._streams)):
            if not self._take(writer):
                self._streams.pop(writer, None)
            elif writer not in self._streams:
                about = self._redis.hget(self._keys.about(writer), "session")
                if (
                    about is None
                ):  # all of it was ingested meanwhile; or the server lost it, and its sink will
                    self._release(writer)  # send it again
                    continue
                self._create_group(writer)
                described = json.loads(about)
                if described["ledger"]:
                    use_default_key()
                stream = _Stream(writer, _C.RecordWriter(sink_for_target(self._target), **described))
                self._define(stream)
                self._streams[writer] = stream

    def _create_group(self, writer: str) -> None:
        from redis.exceptions import ResponseError

        try:
            self._redis.xgroup_create(self._keys.stream(writer), GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _catch_up(self, stream: _Stream) -> bool:
        """Stores what was read and not acknowledged, up to one batch."""
        key = self._keys.stream(stream.writer_id)
        answer = self._redis.xreadgroup(GROUP, CONSUMER, {key: "0"}, count=_COUNT)
        entries = answer[0][1] if answer else []
        if not entries:
            stream.pending = False
            return False
        return self._store(stream, entries)

    def _store(self, stream: _Stream, entries: list[tuple[bytes, dict[bytes, bytes]]]) -> bool:
        # An entry without fields was removed and not acknowledged.
        records = [(entry, record) for entry, fields in entries for record in (fields or {}).values()]
        try:
            stored, repeated, refused = self._write(stream, [record for _, record in records])
        except FormatError:
            raise  # the target is somebody else's: trying again is in vain
        except (KeyError, OSError, RuntimeError) as error:
            self._put_off(stream, error)
            return False
        for index, reason in refused:
            self._set_aside(stream, *records[index], reason)
        self._acknowledge(stream, [entry for entry, _ in entries])
        self._works(stream)
        self.counts.stored += stored
        self.counts.repeated += repeated
        self.counts.damaged += len(refused)
        self.counts.writers.add(stream.writer_id)
        return True

    def _write(self, stream: _Stream, records: list[bytes]) -> tuple[int, int, list[tuple[int, str]]]:
        try:
            return stream.out.write(records)
        except KeyError:  # a schema newer than what we know
            self._define(stream)
            return stream.out.write(records)

    def _define(self, stream: _Stream) -> None:
        for name, value in self._redis.hgetall(self._keys.about(stream.writer_id)).items():
            kind, _, number = name.decode().partition(":")
            if kind == "schema":
                stream.out.define(int(number), value.decode())

    def _acknowledge(self, stream: _Stream, entries: list[bytes]) -> None:
        key = self._keys.stream(stream.writer_id)
        with self._redis.pipeline(transaction=True) as transaction:
            transaction.xack(key, GROUP, *entries)
            transaction.xdel(key, *entries)
            transaction.execute()

    def _set_aside(self, stream: _Stream, entry: bytes, record: bytes, reason: str) -> None:
        found: dict[str, str | bytes] = {"writer": stream.writer_id, "id": entry, "reason": reason}
        self._redis.xadd(self._keys.damaged, found | {"record": record})
        _C._report(
            "error",
            f"entry {entry.decode()} of {self._keys.stream(stream.writer_id)} holds what is no record of its "
            f"writer; it is kept in the stream {self._keys.damaged}: {reason}",
        )

    def _end(self, stream: _Stream) -> None:
        """Tells the target that a writer has ended, where it has, and forgets it."""
        key, about = self._keys.stream(stream.writer_id), self._keys.about(stream.writer_id)
        if not self._redis.hexists(about, "closed_ns") or self._redis.xlen(key):
            return
        try:
            stream.out.close()
        except (OSError, RuntimeError) as error:
            self._put_off(stream, error)
            return
        if self._redis.eval(_FORGET, 3, key, about, self._keys.writers, stream.writer_id):
            self._release(stream.writer_id)

    # ---- leases

    def _take(self, writer: str) -> bool:
        """Takes a writer's stream, or keeps it; returns whether it is ours."""
        lease = self._keys.lease(writer)
        holder = (self._redis.get(lease) or b"").decode()
        dead = holder if _is_dead(holder) else ""
        return bool(self._redis.eval(_TAKE, 1, lease, self._token, dead, self._lease_ms))

    def _release(self, writer: str) -> None:
        self._streams.pop(writer, None)
        self._redis.eval(_RELEASE, 1, self._keys.lease(writer), self._token)

    # ---- failures: each is said once, and its end

    def _put_off(self, stream: _Stream, error: Exception) -> None:
        stream.pending = True
        if stream.attempts == 0:
            what = error.args[0] if isinstance(error, KeyError) and error.args else error
            _C._report("warning", f"{what}; the records stay in Redis until it works again")
        stream.attempts += 1
        stream.next_attempt = time.monotonic() + _back_off(stream.attempts)

    def _works(self, stream: _Stream) -> None:
        if stream.attempts:
            _C._report("info", f"writer {stream.writer_id}: its records are stored again")
        stream.attempts, stream.next_attempt = 0, 0.0


def _back_off(attempts: int) -> float:
    return min(0.05 * float(2 ** min(attempts - 1, 10)), _LONGEST_BACK_OFF_S)


def _process_start(pid: int) -> str:
    """When a process of this machine started, "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _is_dead(holder: str) -> bool:
    """Whether a lease's holder is a process of this machine that is gone."""
    if not holder:
        return False
    host, pid, start, _ = holder.split(" ")
    return host == socket.gethostname() and _process_start(int(pid)) != start


def _stores_identity(sink: Any) -> bool:
    if isinstance(sink, _C.Sink):
        return sink.stores_identity
    return hasattr(sink, "stored_through")
