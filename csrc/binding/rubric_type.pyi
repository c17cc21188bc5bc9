# What the stub of rubriscope._C says of the types written against CPython itself, which carry no signatures.
# It changes with rubric_type.cpp, async_call.cpp and publish.cpp; `make stubs` puts it into _C.pyi.
import collections.abc
import typing

import torch
from rubriscope._details import RemovableHandle

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
