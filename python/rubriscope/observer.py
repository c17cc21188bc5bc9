"""The observer: one snapshot for every call of a rubric tree's root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _C
from .recorder import Recorder, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class RubricObserver:
    """Watches a rubric tree and records every call of its root.

    Args:
        rubric: The root.
        recorder_or_sinks: A :class:`Recorder`, or what :func:`record` takes: a target, a sink or a list
            of them. The observer then owns the recorder it makes.
        session_id: The session's name when the observer makes the recorder.
        capture: What to keep of action and observation. ``"text"``: strings and numbers as they are, tensors
            and arrays as shape, dtype and device, ``repr`` of anything else, cut at 4 KiB. ``"none"``:
            nothing. A callable: of what it returns, the same as ``"text"``; None for nothing.
        on_error: ``"contain"``: a failure of the observer is counted in :attr:`failures` and reported once.
            ``"raise"``: it reaches the caller of the rubric.

    Raises:
        TypeError: ``rubric`` is no rubric, or ``capture`` neither a name nor callable.
        ValueError: an unknown ``capture`` or ``on_error``.
    """

    def __init__(
        self,
        rubric: _C.Rubric,
        recorder_or_sinks: Any,
        *,
        session_id: str | None = None,
        capture: str | Callable[[Any], Any] = "text",
        on_error: str = "contain",
    ) -> None:
        if not isinstance(rubric, _C.Rubric):
            raise TypeError(f"an observer watches a rubric, got {rubric!r}")
        if on_error not in ("contain", "raise"):
            raise ValueError(f"on_error is 'contain' or 'raise', got {on_error!r}")
        self._owns_recorder = not isinstance(recorder_or_sinks, Recorder)
        if isinstance(recorder_or_sinks, Recorder):
            if session_id not in (None, recorder_or_sinks.session_id, recorder_or_sinks.session_name):
                raise ValueError(
                    f"session_id {session_id!r} differs from the recorder's session "
                    f"{recorder_or_sinks.session_name!r}: leave it out"
                )
            self._recorder = recorder_or_sinks
        elif isinstance(recorder_or_sinks, (list, tuple)):
            self._recorder = record(sinks=recorder_or_sinks, session=session_id)
        else:
            self._recorder = record(recorder_or_sinks, session=session_id)
        self._rubric: _C.Rubric | None = rubric
        self._native = _C.Observer(self._recorder._native, capture, on_error == "raise")
        self._native.attach(rubric)

    @property
    def recorder(self) -> Recorder:
        """Where the snapshots go."""
        return self._recorder

    @property
    def rubric(self) -> _C.Rubric | None:
        """The observed root; None once detached."""
        return self._rubric

    @property
    def snapshots(self) -> int:
        """How many snapshots this observer has handed to the recorder."""
        return int(self._native.snapshots)

    @property
    def failures(self) -> int:
        """How many of this observer's own failures were contained."""
        return int(self._native.failures)

    def flush(self, timeout_s: float = 60.0) -> int:
        """Waits until everything recorded so far is durable; see :meth:`Recorder.flush`."""
        return self._recorder.flush(timeout_s)

    def detach(self) -> None:
        """Stops watching; a second call does nothing. The recorder stays open."""
        if self._rubric is not None:
            self._native.detach(self._rubric)
            self._rubric = None

    def __enter__(self) -> RubricObserver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()
        if self._owns_recorder:
            self._recorder.close()
        else:
            self._recorder.flush()
