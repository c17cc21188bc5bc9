# Made by `make stubs`; edit csrc/binding instead.
import collections.abc
import os
import pathlib
import typing

import torch

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

def _publish_deferred(snapshot: typing.Any, numbers: list[typing.Any], /) -> typing.Any: ...

class Sink:
    @property
    def target(self) -> str: ...

class SqliteSink(Sink):
    def __init__(self, path: os.PathLike[str] | str) -> None: ...

class JsonlSink(Sink):
    def __init__(self, path: os.PathLike[str] | str) -> None: ...

class Recorder:
    episode_id: str
    def __init__(
        self,
        *,
        session_id: str,
        session_name: str,
        created_ns: int,
        metadata_json: str,
        rank: int,
        world_size: int,
        sinks: list[typing.Any],
        journal_dir: os.PathLike[str] | str,
        journal_limit_bytes: int,
        on_full: str,
        block_timeout_s: float,
        flush_interval_ms: int,
    ) -> None: ...
    def add_recovered(self, arg0: int, arg1: int) -> None: ...
    def annotate(self, arg0: dict[str, typing.Any]) -> None: ...
    def close(self) -> None: ...
    def enter_position(
        self, episode: str, step: int | None, group_id: int | None, sample_index: int | None
    ) -> typing.Any: ...
    def flush(self, timeout_s: float) -> int: ...
    def leave_position(self, arg0: typing.Any) -> None: ...
    def log(
        self, names: collections.abc.Sequence[str], values: collections.abc.Sequence[float], step: int | None
    ) -> bool: ...
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

class SnapshotIterator:
    """
    Snapshots of a film, read as they are asked for.
    """
    def __iter__(self) -> typing.Self: ...
    def __next__(self) -> typing.Any: ...

class FilmReader:
    """
    Reads the sessions of an SQLite recording.

    Read-only, on a connection of its own, and while a recorder writes; each call sees one consistent state. Records
    come writer by writer, writers in the order they were registered, each writer's in the order recorded.

    Raises FileNotFoundError when there is no such file, rubriscope.FormatError when it is not a recording, of a newer
    format or damaged.
    """
    def __init__(self, path: str) -> None: ...
    def close(self) -> None:
        """
        Lets go of the file.
        """
    def episodes(self, session_id: int) -> list[typing.Any]:
        """
        Dictionaries of name and started_ns, in the order they began.
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
    ) -> SnapshotIterator:
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

def _exact_match(arg0: bool, arg1: bool) -> _NativeLeaf: ...
def _fuzzy_match() -> _NativeLeaf: ...
def _is_observed(arg0: typing.Any) -> bool: ...
def _kind(arg0: typing.Any) -> str: ...
def _length_between(arg0: int, arg1: int) -> _NativeLeaf: ...
def _regex_match(arg0: str, arg1: bool) -> _NativeLeaf: ...
def _report(arg0: str, arg1: str) -> None: ...
def _set_native(arg0: typing.Any, arg1: _NativeLeaf) -> None: ...
def journal_dir_for(target: str) -> pathlib.Path: ...
def list_journals(arg0: os.PathLike[str] | str) -> list[typing.Any]: ...
def make_uuid() -> str: ...
def recover(
    base_dir: os.PathLike[str] | str, sinks: typing.Any, progress: typing.Any = None
) -> dict[str, typing.Any]:
    """
    Delivers what the ownerless journals under base_dir hold. `sinks` is a list of sinks, or a function from a target to a sink (or None where it cannot be opened here).
    """

__version__: str = "0.1.0"
_sqlite_origin: str = "system 3.40.1"
