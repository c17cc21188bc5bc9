# Made by `make stubs`; edit csrc/binding instead.
import collections.abc
import os
import pathlib
import typing

import torch
import typing_extensions

from rubriscope._details import RemovableHandle

# What the stub of rubriscope._C says of the types written against CPython itself, which carry no signatures.
# It changes with rubric_type.cpp, async_call.cpp and publish.cpp; `make stubs` puts it into _C.pyi.

class Rubric:
    """A reward function in a tree (OpenEnv RFC 004).

    Subclasses define forward(action, observation) -> score; rubrics assigned as attributes become children.
    Calling a rubric runs its hooks and forward().
    """
    def __init__(self, *, strict: bool = False) -> None: ...
    def __call__(self, action: typing.Any, observation: typing.Any) -> typing.Any:
        """The score, or a coroutine of it exactly when something in the call is asynchronous."""
    def forward(self, action: typing.Any, observation: typing.Any) -> typing.Any:
        """The score: a number, an rs.Score or a 0-dim tensor. Subclasses define it, sync or async."""
    def batch(
        self,
        actions: collections.abc.Sequence[typing.Any],
        observations: collections.abc.Sequence[typing.Any],
    ) -> torch.Tensor:
        """Scores N pairs in one call and makes N snapshots.

        Returns a float64 tensor of shape (N,) on the scores' device (CPU for numbers). Raises ValueError when
        the lengths differ. A rubric may override forward_batch(actions, observations) -> N scores.
        """
    def children(self) -> collections.abc.Iterator[Rubric]:
        """Iterates over the immediate children."""
    def named_children(self) -> collections.abc.Iterator[tuple[str, Rubric]]:
        """Iterates over (name, child) of the immediate children."""
    def rubrics(self) -> collections.abc.Iterator[Rubric]:
        """Iterates over all descendants, depth first."""
    def named_rubrics(self, prefix: str = "") -> collections.abc.Iterator[tuple[str, Rubric]]:
        """Iterates over (dotted path, rubric) of all descendants, depth first."""
    def get_rubric(self, path: str, /) -> Rubric:
        """The descendant at a dotted path. Raises KeyError that names the missing part."""
    def register_forward_pre_hook(
        self, hook: collections.abc.Callable[[typing.Any, typing.Any, typing.Any], typing.Any], /
    ) -> RemovableHandle:
        """Calls hook(rubric, action, observation), sync or async, before forward()."""
    def register_forward_hook(
        self, hook: collections.abc.Callable[[typing.Any, typing.Any, typing.Any, typing.Any], typing.Any], /
    ) -> RemovableHandle:
        """Calls hook(rubric, action, observation, score), sync or async, after forward()."""
    def reset(self) -> None:
        """Forgets internal state; override where there is some."""
    def state_dict(self) -> dict[str, typing.Any]:
        """Configuration for a checkpoint."""
    def load_state_dict(self, state: dict[str, typing.Any], /) -> None:
        """Loads what state_dict() gave."""
    @property
    def last_score(self) -> typing.Any:
        """What the last call of this rubric returned; None before the first."""
    @last_score.setter
    def last_score(self, value: typing.Any) -> None: ...
    strict: bool
    """Whether a score that is not a finite number raises ValueError."""

    _threshold: float
    @property
    def _forward_hooks(self) -> list[typing.Any]: ...
    @property
    def _forward_pre_hooks(self) -> list[typing.Any]: ...
    def _forward_sequential(self, action: typing.Any, observation: typing.Any) -> typing.Any: ...
    def _forward_gate(self, action: typing.Any, observation: typing.Any) -> typing.Any: ...
    def _forward_weighted_sum(self, action: typing.Any, observation: typing.Any) -> typing.Any: ...
    def _forward_native(self, action: typing.Any, observation: typing.Any) -> float: ...
    def _set_item(self, name: str, child: Rubric, weight: float = 1.0, /) -> None: ...
    def _set_child(self, name: str, child: Rubric, /) -> None: ...
    def _items(self) -> list[tuple[str, Rubric, float]]: ...
    def _remove_hook(self, id: int, /) -> bool: ...
    def __getstate__(self) -> typing.Any: ...
    def __setstate__(self, state: typing.Any, /) -> None: ...

class _Call:
    """The state of one rubric's call that a coroutine finishes."""

    @property
    def rubric(self) -> Rubric: ...
    @property
    def action(self) -> typing.Any: ...
    @property
    def observation(self) -> typing.Any: ...
    def start(self) -> None: ...
    def forward(self) -> typing.Any: ...
    def finish(self, score: typing.Any, /) -> typing.Any: ...
    def fail(self, error: BaseException, /) -> None: ...
    def enter(self) -> typing.Any: ...
    def leave(self, token: typing.Any, /) -> None: ...
    def pre_hooks(self) -> tuple[typing.Any, ...]: ...
    def forward_hooks(self) -> tuple[typing.Any, ...]: ...

class SightFunction:
    """A function whose calls are observed; functools.update_wrapper() makes it look like the function."""

    def __new__(
        cls, function: typing.Any, point: typing.Any, tokens: typing.Any = None, /
    ) -> SightFunction: ...
    def __call__(self, *args: typing.Any, **kwargs: typing.Any) -> typing.Any: ...
    def __get__(self, instance: typing.Any, owner: typing.Any = None, /) -> typing.Any: ...
    def __reduce__(self) -> str: ...

def _publish_deferred(snapshot: typing.Any, numbers: list[typing.Any], /) -> typing.Any: ...

class Span:
    """A span of a trace, made by rs.tracer.span(): a context manager, entered once."""
    def set_output(self, output: typing.Any = ..., /, **metadata: typing.Any) -> None:
        """What came out (its first 100 characters are kept), and metadata; a name given again is replaced."""
    def block(self, reason: typing.Any = ..., /, **metadata: typing.Any) -> None:
        """Sets the status to "blocked"."""
    def __bool__(self) -> bool: ...
    def fail(self, error: typing.Any = ..., /) -> None:
        """Sets the status to "error"; an exception that leaves the span does so too."""
    def __enter__(self) -> typing.Self: ...
    def __exit__(self, *error: typing.Any) -> bool: ...
    @property
    def trace_id(self) -> str:
        """Its id, "" before it is entered."""
    @property
    def parent_id(self) -> str | None:
        """The id of the span it stands in."""
    @property
    def status(self) -> str:
        """ "success", "error" or "blocked"."""
    @property
    def w3c_trace_id(self) -> str:
        """32 hex digits: the tree it stands in."""
    @property
    def traceparent(self) -> str | None:
        """Itself as a W3C traceparent."""
    @property
    def _trace_state(self) -> str: ...

class NoSpan:
    """What rs.tracer.span() gives while the tracer is off: false, and takes everything."""
    def set_output(self, output: typing.Any = ..., /, **metadata: typing.Any) -> None: ...
    def block(self, reason: typing.Any = ..., /, **metadata: typing.Any) -> None: ...
    def fail(self, error: typing.Any = ..., /) -> None: ...
    def __bool__(self) -> bool: ...
    def __enter__(self) -> typing.Self: ...
    def __exit__(self, *error: typing.Any) -> bool: ...
    @property
    def trace_id(self) -> None: ...
    @property
    def parent_id(self) -> None: ...
    @property
    def status(self) -> None: ...
    @property
    def w3c_trace_id(self) -> None: ...
    @property
    def traceparent(self) -> None: ...

def span(hrm: str, operation: str, component: str = "", input_data: typing.Any = "") -> Span | NoSpan: ...
def event(
    hrm: str,
    operation: str,
    component: str = "",
    input_data: typing.Any = "",
    output_data: typing.Any = "",
    status: str = "success",
    metadata: dict[str, typing.Any] | None = None,
    level: str | None = None,
) -> str | None: ...
def current_span() -> Span | None: ...
def _trace_on() -> bool: ...
def _trace_point(
    hrm: str,
    operation: str,
    component: str,
    input_data: typing.Any,
    output_data: typing.Any,
    metadata: dict[str, typing.Any],
    /,
) -> Span | NoSpan: ...
def _trace_new(name: str, metadata: dict[str, typing.Any], /) -> Span: ...
def _trace_ids() -> tuple[str, str] | None: ...
def _trace_remote(id: str, trace_id: str, span_id: str, sampled: bool, trace_state: str, /) -> Span: ...

class Kek:
    """
    A key-encryption key.
    """
    def __init__(self, key: bytes) -> None:
        """
        32 raw bytes or 64 hex digits. Raises ValueError for anything else.
        """
    def rewrap(self, wrapped: bytes, purpose: str, now: Kek) -> typing.Any:
        """
        The same key wrapped by `now`, or None where it is already. Raises rubriscope.SealedError.
        """
    @property
    def id(self) -> str:
        """
        16 hex digits that tell keys apart and give none away.
        """

class Vault:
    """
    The keys with which a database is written and read.
    """
    def __init__(self, kek: Kek, wrapped_search_key: bytes | None = None) -> None: ...
    def token(self, path: str) -> str:
        """
        What stands for a path in the database: 32 hex digits.
        """
    @property
    def wrapped_search_key(self) -> bytes: ...

class Unsealer:
    """
    Opens what is encrypted in rows that were read elsewhere.
    """
    def __init__(self, where: str, key_of: typing.Any) -> None:
        """
        key_of(writer_id) gives (session UUID, wrapped data key or None).
        """
    def metadata(self, stored: str) -> str: ...
    def record(self, record: bytes) -> bytes:
        """
        The canonical bytes as they would have been unsealed; others as they are. Raises rubriscope.SealedError.
        """
    def schema(self, definition: str) -> str:
        """
        The definition behind the tokens; another's as it is. Raises rubriscope.SealedError.
        """
    def token(self, name: str) -> str: ...
    def unlock(self, kek: Kek, wrapped_search_key: bytes) -> None: ...

class Sink:
    @property
    def stores_identity(self) -> bool: ...
    @property
    def target(self) -> str: ...

class SqliteSink(Sink):
    def __init__(self, path: os.PathLike[str] | str) -> None: ...
    def open_vault(self, kek: Kek) -> Vault:
        """
        The database's keys, made (and the file with them) where there are none. Raises rubriscope.SealedError when another key wrapped them.
        """
    @property
    def is_encrypted(self) -> bool:
        """
        Whether there is a database and it has keys.
        """

class JsonlSink(Sink):
    def __init__(self, path: os.PathLike[str] | str) -> None: ...

class TraceJsonlSink(Sink):
    def __init__(self, path: os.PathLike[str] | str) -> None: ...

class RecordWriter:
    """
    Brings another process's canonical records into a sink.
    """
    def __init__(
        self,
        sink: typing.Any,
        *,
        session_id: str,
        session_name: str,
        created_ns: int,
        metadata_json: str,
        ledger: bool,
        writer_id: str,
        rank: int,
        world_size: int,
        host: str,
        pid: int,
        started_ns: int,
    ) -> None: ...
    def close(self) -> None: ...
    def define(self, id: int, definition_json: str) -> None: ...
    def knows(self, id: int) -> bool: ...
    def write(self, records: collections.abc.Sequence[bytes]) -> tuple[int, int, list[tuple[int, str]]]:
        """
        Stores records that are not there yet; returns (stored, repeated, [(index, why refused)]).
        """

class Recorder:
    episode_id: str
    def __init__(
        self,
        *,
        session_id: str,
        session_name: str,
        created_ns: int,
        metadata_json: str,
        ledger: bool,
        rank: int,
        world_size: int,
        sinks: list[typing.Any],
        journal_dir: os.PathLike[str] | str,
        journal_limit_bytes: int,
        on_full: str,
        block_timeout_s: float,
        flush_interval_ms: int,
        vault: Vault | None = None,
    ) -> None: ...
    def add_recovered(self, arg0: int, arg1: int) -> None: ...
    def annotate(self, arg0: dict[str, typing.Any]) -> None: ...
    def close(self) -> None: ...
    def define_event(
        self,
        name: str,
        attributes_json: str,
        values: collections.abc.Sequence[str],
        fields: collections.abc.Sequence[str],
    ) -> int:
        """
        The number of a schema of events, for emit_event().
        """
    def emit_event(
        self,
        kind: str,
        schema: int,
        *,
        values: collections.abc.Sequence[float],
        fields: collections.abc.Mapping[int, typing.Any],
        outcome: str = "success",
        duration_ns: int = 0,
        step: int | None = None,
        metadata_json: str = "",
    ) -> bool:
        """
        Writes an event that ends now; NaN where there is no value. False when it was refused.
        """
    def enter_position(
        self, episode: str, step: int | None, group_id: int | None, sample_index: int | None
    ) -> typing.Any: ...
    def enter_positions(
        self, labels: collections.abc.Sequence[tuple[str, int | None, int | None, int | None]]
    ) -> typing.Any:
        """
        Places the next snapshots of this context, each at (episode, step, group, sample).
        """
    def flush(self, timeout_s: float) -> int: ...
    def leave_position(self, arg0: typing.Any) -> None: ...
    def log(
        self, names: collections.abc.Sequence[str], values: collections.abc.Sequence[float], step: int | None
    ) -> bool: ...
    def positions_taken(self) -> int:
        """
        How many calls have taken their place since this context's position was entered.
        """
    def stats(self) -> dict[str, typing.Any]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def group_id(self) -> int | None: ...
    @group_id.setter
    def group_id(self, arg1: int | None) -> None: ...
    @property
    def journal_path(self) -> pathlib.Path: ...
    @property
    def next_step(self) -> int: ...
    @property
    def sample_index(self) -> int | None: ...
    @sample_index.setter
    def sample_index(self, arg1: int | None) -> None: ...
    @property
    def session_id(self) -> str: ...
    @property
    def session_name(self) -> str: ...
    @property
    def step(self) -> int | None: ...
    @step.setter
    def step(self, arg1: int | None) -> None: ...
    @property
    def writer_id(self) -> str: ...

class Observer:
    def __init__(self, recorder: Recorder, capture: typing.Any, raise_errors: bool) -> None: ...
    def attach(self, arg0: typing.Any) -> None: ...
    def detach(self, arg0: typing.Any) -> None: ...
    @property
    def failures(self) -> int: ...
    @property
    def snapshots(self) -> int: ...

class _BatchContexts:
    def __init__(
        self,
        root: typing.Any,
        pairs: int,
        outer: _BatchContexts | None = None,
        rows: collections.abc.Sequence[int] = [],
    ) -> None: ...
    def call(self, arg0: typing.Any, arg1: int, arg2: typing.Any, arg3: typing.Any) -> typing.Any: ...
    def fail(self, arg0: typing.Any, arg1: int, arg2: typing.Any, arg3: int) -> None: ...
    def now(self) -> int: ...
    def publish(self, arg0: list[typing.Any], arg1: list[typing.Any]) -> None: ...
    def record(self, arg0: typing.Any, arg1: int, arg2: float, arg3: int, arg4: int) -> None: ...

class _NativeLeaf:
    pass

class RecordIterator:
    """
    Records of a film, read as they are asked for.
    """
    def __iter__(self) -> typing.Self: ...
    def __next__(self) -> typing.Any: ...

class FilmReader:
    """
    Reads the sessions of an SQLite recording.

    Read-only, on a connection of its own, and while a recorder writes; each call sees one consistent state. Records
    come writer by writer, writers in the order they were registered, each writer's in the order recorded.

    Raises FileNotFoundError when there is no such file, rubriscope.FormatError when it is not a recording, of a newer
    format or damaged; rubriscope.SealedError when `kek` is not the key of what is encrypted.
    """
    def __init__(self, path: str, kek: Kek | None = None) -> None: ...
    def close(self) -> None:
        """
        Lets go of the file.
        """
    def episodes(self, session_id: int) -> list[typing.Any]:
        """
        Dictionaries of name and started_ns, in the order they began.
        """
    def events(
        self,
        session_id: int,
        kind: str | None = None,
        name: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        writer: int | None = None,
    ) -> RecordIterator:
        """
        Streams Event objects where start <= step < stop.
        """
    def find_session(self, uuid_or_name: str) -> int:
        """
        The number of the session with this UUID, else of the newest with this name. Raises KeyError.
        """
    def paths(self, session_id: int) -> list[str]:
        """
        Rubric paths in pre-order, "root" first.
        """
    def scalar_names(self, session_id: int) -> list[str]:
        """
        Names logged with recorder.log.
        """
    def scalars(
        self,
        session_id: int,
        name: str,
        start: int | None = None,
        stop: int | None = None,
        writer: int | None = None,
    ) -> dict[str, typing.Any]:
        """
        One scalar's values where start <= step < stop, as arrays of shape (records,). Raises KeyError.
        """
    def score_matrix(
        self,
        session_id: int,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        writer: int | None = None,
    ) -> dict[str, typing.Any]:
        """
        All rubrics' scores: `scores` and `statuses` of shape (records, paths), and the columns of scores().
        """
    def scores(
        self,
        session_id: int,
        path: str,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        writer: int | None = None,
    ) -> dict[str, typing.Any]:
        """
        One rubric's scores where start <= step < stop, as arrays of shape (records,).

        `score` is float64 and NaN where `status` (0 skipped, 1 scored, 2 failed) is not 1; `writer` and `episode` are
        indices into writers() and episodes(). Raises KeyError for an unknown session or path.
        """
    def sessions(self) -> list[typing.Any]:
        """
        One dictionary a session, in the order they were made.
        """
    def snapshots(
        self,
        session_id: int,
        episode: str | None = None,
        start: int | None = None,
        stop: int | None = None,
        writer: int | None = None,
    ) -> RecordIterator:
        """
        Streams NeuralSnapshot objects where start <= step < stop.
        """
    def summaries(self, session_id: int, bins: int, episode: str | None = None) -> list[typing.Any]:
        """
        Figures of every rubric path from one scan: dictionaries with the fields of rubriscope.series.Summary but `kind`.
        """
    def writers(self, session_id: int) -> list[typing.Any]:
        """
        Dictionaries of writer_id, rank, world_size, host, pid and started_ns; the column `writer` is an index into them.
        """

class MerkleTree:
    """
    The Merkle tree of RFC 6962 over a growing list of entries, in memory.

    Hashes are SHA-256, 32 bytes; a leaf is SHA-256(0x00 ‖ entry), a node SHA-256(0x01 ‖ left ‖ right). The tree keeps
    64 bytes an entry. Not for several threads at once.
    """
    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def append(self, entry: bytes) -> int:
        """
        Adds an entry; returns its index.
        """
    def consistency_proof(self, m: int, n: int | None = None) -> list[typing.Any]:
        """
        The hashes that show the tree of `m` entries to be a prefix of that of `n` (RFC 9162 §2.1.4). Raises ValueError for sizes that the tree does not have.
        """
    def inclusion_proof(self, index: int, size: int | None = None) -> list[typing.Any]:
        """
        The hashes that lead from entry `index` to the root of the first `size` (RFC 9162 §2.1.3). Raises ValueError for an index or a size that the tree does not have.
        """
    def root(self, size: int | None = None) -> bytes:
        """
        The root of the first `size` entries, of all when left out. Raises ValueError when there are fewer.
        """
    @property
    def size(self) -> int:
        """
        The number of entries.
        """

class LedgerKey:
    @staticmethod
    def default() -> LedgerKey: ...
    @staticmethod
    def make(arg0: os.PathLike[str] | str, arg1: str) -> LedgerKey: ...
    @staticmethod
    def parse(arg0: str) -> LedgerKey: ...
    @staticmethod
    def read(arg0: os.PathLike[str] | str) -> LedgerKey: ...
    @property
    def name(self) -> str: ...
    @property
    def public(self) -> str: ...

class LedgerLog:
    @property
    def checkpoint(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def writer_id(self) -> str: ...

class LedgerReader:
    @staticmethod
    def over(ledgers: typing.Any) -> LedgerReader:
        """
        Over rubriscope.postgres_ledger.PostgresLedgers.
        """
    def __init__(self, arg0: os.PathLike[str] | str) -> None: ...
    def consistency_proof(self, arg0: LedgerLog, arg1: int, arg2: int) -> list[typing.Any]: ...
    def entries(self, arg0: LedgerLog, arg1: int, arg2: int) -> list[typing.Any]: ...
    def inclusion_proof(self, arg0: LedgerLog, arg1: int, arg2: int) -> list[typing.Any]: ...
    def logs(self, arg0: int) -> list[LedgerLog]: ...
    def root(self, arg0: LedgerLog, arg1: int) -> bytes: ...
    def tile(self, arg0: LedgerLog, arg1: int, arg2: int) -> list[typing.Any]: ...
    def verify(
        self,
        arg0: LedgerLog,
        arg1: collections.abc.Sequence[str],
        arg2: collections.abc.Sequence[str],
        arg3: typing.Any,
    ) -> dict[str, typing.Any]: ...
    def without_log(self, arg0: int) -> list[LedgerLog]: ...

class ScoreScan:
    """
    Columns of one rubric path or scalar, from records that were chosen already.
    """
    def __init__(
        self, schemas: collections.abc.Sequence[tuple[int, str]], path: str, *, scalars: bool, where: str
    ) -> None: ...
    def add(self, writer: int, rank: int, rows: list[typing.Any]) -> None:
        """
        Takes rows of (schema_key, record) of one writer.
        """
    def columns(self) -> dict[str, typing.Any]:
        """
        Arrays as FilmReader.scores() has them, `episode` unused; a scalar's without `duration_ns`. Ends the scan.
        """

class SummaryScan:
    """
    Figures of every rubric path, from records that were chosen already.
    """
    def __init__(
        self,
        schemas: collections.abc.Sequence[tuple[int, str]],
        bins: int,
        low: int,
        high: int,
        *,
        where: str,
    ) -> None: ...
    def add(self, rows: list[typing.Any]) -> None:
        """
        Takes rows of (schema_key, record).
        """
    def summaries(self) -> list[typing.Any]:
        """
        Dictionaries as FilmReader.summaries() has them. Ends the scan.
        """

class RecordDecoder:
    """
    Records of one writer back as NeuralSnapshot, Scalars or Event objects.
    """
    def __init__(
        self,
        session_id: str,
        session_name: str,
        writer_id: str,
        rank: int,
        schemas: collections.abc.Sequence[tuple[int, str]],
    ) -> None: ...
    def object(self, schema_key: int, record: bytes) -> typing.Any: ...

class PostgresSink(Sink):
    def __init__(self, target: str, connect: typing.Any) -> None: ...

class TraceStats:
    """
    Figures over spans in flat memory.
    """
    def __init__(self, slowest: int) -> None: ...
    def add(self, layer: str, status: str, duration_ms: float, line: str) -> None: ...
    def layers(self) -> dict[str, typing.Any]: ...
    def slowest(self) -> list[bytes]: ...

class TraceFile:
    """
    A file of trace events, read in flat memory.
    """
    def __init__(self, path: os.PathLike[str] | str) -> None: ...
    def batch(
        self, offset: int, most: int, layer: str, status: str, since_ns: int | None, progress: typing.Any
    ) -> tuple[list[bytes], int]:
        """
        Up to `most` events from an offset on, and where to go on.
        """
    def last(
        self, count: int, layer: str, status: str, since_ns: int | None, progress: typing.Any
    ) -> list[bytes]:
        """
        The last events that a filter takes, in the file's order.
        """
    def stats(
        self,
        stats: TraceStats,
        last: int,
        layer: str,
        status: str,
        since_ns: int | None,
        progress: typing.Any,
    ) -> int:
        """
        Adds the events (the last so many, 0: all) to `stats`; returns how many.
        """
    def tree(self, id: str, progress: typing.Any) -> list[bytes]:
        """
        The events of the whole tree that holds an id.
        """
    @property
    def corrupt(self) -> int: ...
    @property
    def size(self) -> int: ...

class SightSpan:
    def __init__(self, name: str, parent: typing.Any) -> None: ...
    def begin(self) -> None: ...
    def end(
        self,
        error: typing.Any,
        args: typing.Any = (),
        kwargs: dict[str, typing.Any] = {},
        result: typing.Any = None,
        tokens: typing.Any = None,
    ) -> None: ...
    def metric(self, arg0: str, arg1: float) -> bool: ...

def _data_key_purpose(session_id: str, writer_id: str) -> str: ...
def _exact_match(arg0: bool, arg1: bool) -> _NativeLeaf: ...
def _fuzzy_match() -> _NativeLeaf: ...
def _hausdorff_rubric(
    arg0: str,
    arg1: float,
    arg2: str,
    arg3: float,
    arg4: bool,
    arg5: collections.abc.Sequence[float] | None,
    arg6: int,
) -> _NativeLeaf: ...
def _is_observed(arg0: typing.Any) -> bool: ...
def _kind(arg0: typing.Any) -> str: ...
def _ledger_edge_keys(writer_key: int, size: int) -> list[int]:
    """
    The keys of the tiles at the edge of a log of this size.
    """

def _length_between(arg0: int, arg1: int) -> _NativeLeaf: ...
def _recorder_closed(recorder: Recorder) -> None: ...
def _recorder_opened(recorder: Recorder) -> None: ...
def _regex_match(arg0: str, arg1: bool) -> _NativeLeaf: ...
def _report(arg0: str, arg1: str) -> None: ...
def _residual_rubric(
    arg0: str,
    arg1: float,
    arg2: collections.abc.Sequence[int],
    arg3: collections.abc.Sequence[float],
    arg4: collections.abc.Sequence[int],
    arg5: bool,
) -> _NativeLeaf: ...
def _set_native(arg0: typing.Any, arg1: _NativeLeaf) -> None: ...
def _ticks() -> int: ...
def _trace_configure(enabled: bool, level: int, file: Recorder | None) -> None: ...
def _trace_lost() -> int: ...
def _wall_ns(ticks: int) -> int: ...
def cosign(arg0: str, arg1: LedgerKey) -> str: ...
def file_sha256(
    path: os.PathLike[str] | str, progress: collections.abc.Callable[[int], None] | None = None
) -> tuple[str, int]:
    """
    The SHA-256 of a file in hexadecimal, and its size; `progress` gets the bytes read, now and then.
    """

def has_ledger_key() -> bool: ...
def isa_name() -> str:
    """
    The instruction set the CPU kernels use: avx512, avx2 or baseline (RUBRISCOPE_ISA lowers it).
    """

def journal_dir_for(target: str) -> pathlib.Path: ...
def ledger_key_folder() -> pathlib.Path: ...
def list_journals(arg0: os.PathLike[str] | str) -> list[typing.Any]: ...
def make_uuid() -> str: ...
def open_checkpoint(arg0: str, arg1: collections.abc.Sequence[str]) -> dict[str, typing.Any]: ...
def read_timestamp(text: str) -> int | None:
    """
    Nanoseconds since the Unix epoch of an ISO 8601 time, None where it is none.
    """

def recode_record(record: bytes) -> tuple[bytes, int, int]:
    """
    Decodes a record's canonical bytes and encodes them anew: (bytes, sequence, schema's number).
    """

def record_episode(record: bytes) -> typing.Any:
    """
    A record's episode and time, or None.
    """

def recover(
    base_dir: os.PathLike[str] | str, sinks: typing.Any, progress: typing.Any = None
) -> dict[str, typing.Any]:
    """
    Delivers what the ownerless journals under base_dir hold. `sinks` is a list of sinks, or a function from a target to a sink (or None where it cannot be opened here).
    """

def register_layer(code: str, name: str) -> None: ...
def replace_checkpoint(path: str, writer_id: str, old: str, new: str) -> bool: ...
def rotate_keys(path: str, before: Kek, now: Kek) -> tuple[int, int]:
    """
    (keys wrapped anew, keys that were already).
    """

def schema_paths(schemas: collections.abc.Sequence[tuple[int, str]]) -> list[str]:
    """
    The paths of schemas, given as pairs of key and definition, each once.
    """

def set_ledger_key(key: LedgerKey) -> None: ...
def shred_session(path: str, session_uuid: str) -> int:
    """
    Destroys a session's data keys; how many there were.
    """

def sight_attach(recorder: Recorder | None) -> None: ...
def sight_contain(arg0: typing.Any) -> None: ...
def sight_costs() -> dict[str, typing.Any]: ...
def sight_enable(arg0: str, arg1: bool) -> None: ...
def sight_enable_injection(point: str, id: str, enabled: bool) -> None: ...
def sight_enabled(arg0: str) -> bool: ...
def sight_failures() -> int: ...
def sight_figures() -> dict[str, typing.Any]: ...
def sight_inject_log(
    point: str,
    id: str,
    condition: str | None,
    message: str,
    signature: tuple[collections.abc.Sequence[str], collections.abc.Sequence[str], str, bool],
    action: str,
    level: str,
) -> None: ...
def sight_inject_metric(
    point: str,
    id: str,
    metric: str,
    signature: tuple[collections.abc.Sequence[str], collections.abc.Sequence[str], str, bool],
    limit: float | None,
    action: str,
) -> None: ...
def sight_injection_counts(point: str, id: str) -> tuple[bool, int, int]:
    """
    Whether it is enabled, and how often it acted and could not be decided.
    """

def sight_make_point(
    name: str,
    modality: str,
    metrics: collections.abc.Sequence[str],
    limits: collections.abc.Sequence[tuple[str, float]],
    action: str,
    price: tuple[float, float, float] | None = None,
) -> None:
    """
    `price`: (input, output, per) of its tokens.
    """

def sight_metric(span: typing.Any, name: str, value: float) -> bool: ...
def sight_observations(last: int) -> list[typing.Any]: ...
def sight_observations_of_trace(trace_id: str) -> list[typing.Any]: ...
def sight_point_handle(arg0: str) -> typing_extensions.CapsuleType: ...
def sight_recorder() -> Recorder | None: ...
def sight_remove_injection(point: str, id: str) -> None: ...
def trace_layers() -> list[tuple[str, str]]: ...
def trace_number_of_root(id: str) -> str:
    """
    The W3C trace id of the tree whose root has this id.
    """

def verify_consistency(
    m: int, n: int, first_root: bytes, second_root: bytes, proof: collections.abc.Sequence[bytes]
) -> bool:
    """
    Whether the proof shows that the tree of `m` entries with `first_root` is a prefix of the tree of `n` with `second_root` (RFC 9162 §2.1.4.2). Raises ValueError for a hash that has not 32 bytes.
    """

def verify_inclusion(
    entry: bytes, index: int, size: int, proof: collections.abc.Sequence[bytes], root: bytes
) -> bool:
    """
    Whether the proof shows that `entry` (bytes) is number `index` of the tree of `size` entries with this root (RFC 9162 §2.1.3.2). Raises ValueError for a hash that has not 32 bytes.
    """

_LACKS_A_LOG: str = "\nNOT EXISTS(SELECT 1 FROM ledgers l WHERE l.writer_key = w.writer_key) AND (\n  EXISTS(SELECT 1 FROM ledger_tiles\n         WHERE tile_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)\n  OR EXISTS(SELECT 1 FROM ledger_entries\n            WHERE entry_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)\n  OR (EXISTS(SELECT 1 FROM ledgers JOIN writers o USING(writer_key) WHERE o.session_id = w.session_id)\n      AND (EXISTS(SELECT 1 FROM steps\n                  WHERE step_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)\n           OR EXISTS(SELECT 1 FROM scalars\n                     WHERE scalar_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1)\n           OR EXISTS(SELECT 1 FROM events\n                     WHERE event_key BETWEEN w.writer_key << 40 AND ((w.writer_key + 1) << 40) - 1))))\n"
_POSTGRES_EVENT_COLUMNS: str = 'event_key, session_id, kind, name, episode_id, step_index, time_ns, duration_ns, outcome, trace_id, parent_id, schema_key, "values", fields, metadata, record'
_POSTGRES_SCALAR_COLUMNS: str = 'scalar_key, session_id, step_index, time_ns, schema_key, "values", record'
_POSTGRES_STEP_COLUMNS: str = "step_key, session_id, episode_id, step_index, time_ns, reward, action, observation, metadata, group_id, sample_index, schema_key, scores, statuses, record"
_SEARCH_KEY_PURPOSE: str = "rubriscope search key"
__version__: str = "0.1.0"
_sqlite_origin: str = "system 3.40.1"
