"""What the adapters share: scoring many pairs, sync or async, each at its own place in the recorder."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import importlib
import inspect
import itertools
import math
import os
import pkgutil
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rubriscope._C import Rubric

#: Scores of the call that runs in this context, by path; None where nobody asked.
_components: contextvars.ContextVar[dict[str, float] | None] = contextvars.ContextVar(
    "rubriscope_components", default=None
)


_PROCESS_STATE = ("_observer", "_lock", "_steps")


@dataclass(frozen=True)
class Pair:
    """One thing to score, and the labels its snapshot gets (None: what the recorder says)."""

    action: Any
    observation: Any
    step: int | None = None
    group: int | None = None
    sample: int | None = None


@dataclass
class Outcome:
    """What became of a pair: a finite score or an error, and the scores of the nodes that were reached."""

    score: float = math.nan
    error: Exception | None = None
    components: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Pending:
    """A call that returned a coroutine, and where it belongs."""

    coroutine: Coroutine[Any, Any, Any]
    context: contextvars.Context
    pair: Pair
    step: int | None


class Scorer:
    """Scores pairs with a rubric, observed by a recorder where there is one.

    It pickles without its observer and makes a new one at the first call of the process that unpickled it;
    the recorder reopens itself. A fork keeps the observer.
    """

    def __init__(self, rubric: Rubric, recorder: Any, session: str | None) -> None:
        if not isinstance(rubric, Rubric):
            raise TypeError(f"rubric must be a rubriscope.Rubric, got {type(rubric).__name__}: {rubric!r}")
        self.rubric = rubric
        self.owns_recorder = isinstance(recorder, (str, os.PathLike))
        if self.owns_recorder:
            recorder = importlib.import_module("rubriscope").record(recorder, session=session)
        elif session is not None:
            raise ValueError(
                f"session={session!r} names the session of a recorder opened here: pass recorder as a "
                "target, for example 'runs.db', or name the session in rubriscope.record()"
            )
        self.recorder = recorder
        self._make_process_state()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _PROCESS_STATE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_process_state()

    def _make_process_state(self) -> None:
        self._observer: Any = None
        self._lock = threading.Lock()
        self._steps = itertools.count()

    def close(self) -> None:
        """Stop observing; close the recorder where it was opened here."""
        with self._lock:
            observer, self._observer = self._observer, None
        if observer is not None:
            observer.detach()
        if self.owns_recorder:
            self.recorder.close()

    def paths(self) -> list[str]:
        """The paths of every node, the root's first."""
        return ["root", *(path for path, _ in self.rubric.named_rubrics())]

    def score(self, pairs: Sequence[Pair], *, components: bool, stop_at_error: bool) -> list[Outcome]:
        """One outcome per pair. Pairs of an asynchronous rubric are scored at once, on a loop in a thread.

        Args:
            pairs: what to score.
            components: collect the scores of the nodes (by hooks that are removed again).
            stop_at_error: begin no call after an error, and raise the first one, with a note that names its
                pair, when those begun have ended.
        """
        self._observe()
        outcomes = [Outcome() for _ in pairs]
        with contextlib.ExitStack() as stack:
            if components:
                stack.enter_context(_watched(self.rubric))
            pending: dict[int, _Pending] = {}
            # Coroutines that an interrupt leaves behind; closing one that has run does nothing.
            stack.callback(lambda: [begun.coroutine.close() for begun in pending.values()])
            for index, (pair, outcome) in enumerate(zip(pairs, outcomes, strict=True)):
                context = contextvars.copy_context()
                try:
                    step = self._step(pair)
                    result = context.run(self._begin, pair, step, outcome.components if components else None)
                    if inspect.iscoroutine(result):
                        pending[index] = _Pending(result, context, pair, step)
                    else:
                        outcome.score = _finite(result, self.rubric)
                except Exception as error:
                    outcome.error = _noted(error, index, len(pairs))
                    if stop_at_error:
                        break  # the calls begun before it are finished, so that their snapshots are whole
            if pending:
                self._finish_all(pending, outcomes)
        if stop_at_error:
            for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
        return outcomes

    def _observe(self) -> None:
        if self.recorder is None or self._observer is not None:
            return
        with self._lock:
            if self._observer is None:
                self._observer = self.recorder.observe(self.rubric)

    def _begin(self, pair: Pair, step: int | None, components: dict[str, float] | None) -> Any:
        _components.set(components)
        with self._placed(pair, step):
            return self.rubric(pair.action, pair.observation)

    async def _finish(self, begun: _Pending) -> Any:
        # The snapshot is made when the coroutine ends: it has to be at its place then as well.
        with self._placed(begun.pair, begun.step):
            return await begun.coroutine

    def _placed(self, pair: Pair, step: int | None) -> contextlib.AbstractContextManager[Any]:
        if self.recorder is None or (step is None and pair.group is None and pair.sample is None):
            return contextlib.nullcontext()
        place: contextlib.AbstractContextManager[Any] = self.recorder.episode(
            self.recorder.episode_id, step=step, group_id=pair.group, sample_index=pair.sample
        )
        return place

    def _step(self, pair: Pair) -> int | None:
        """The pair's step, or the next of ours: an episode entered for each pair would count from 0."""
        if self.recorder is None:
            return None
        if pair.step is None and self.recorder.step is None:
            return next(self._steps)
        return pair.step

    def _finish_all(self, pending: dict[int, _Pending], outcomes: list[Outcome]) -> None:
        async def gather() -> list[Any]:
            loop = asyncio.get_running_loop()
            tasks = [
                loop.create_task(self._finish(begun), context=begun.context) for begun in pending.values()
            ]
            return await asyncio.gather(*tasks, return_exceptions=True)

        for index, result in zip(pending, run_async(gather()), strict=True):
            try:
                if isinstance(result, BaseException):
                    raise result
                outcomes[index].score = _finite(result, self.rubric)
            except Exception as error:
                outcomes[index].error = _noted(error, index, len(outcomes))


def _finite(result: Any, rubric: Rubric) -> float:
    score = float(result)
    if not math.isfinite(score):
        raise ValueError(f"{type(rubric).__name__} returned {score}: a reward must be a finite number")
    return score


def _noted(error: Exception, index: int, count: int) -> Exception:
    error.add_note(f"while scoring sample {index} of {count}")
    return error


class _Collect:
    """A forward hook that keeps a node's score where the call's context asks for it."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, rubric: Rubric, action: Any, observation: Any, score: Any) -> None:
        collected = _components.get()
        if collected is not None:
            collected.update(dict.fromkeys(self.paths, float(score)))


@contextlib.contextmanager
def _watched(rubric: Rubric) -> Iterator[None]:
    hooks: dict[int, tuple[Rubric, _Collect]] = {}
    for path, node in (("root", rubric), *rubric.named_rubrics()):
        hooks.setdefault(id(node), (node, _Collect()))[1].paths.append(path)
    with contextlib.ExitStack() as stack:
        for node, hook in hooks.values():
            stack.callback(node.register_forward_hook(hook).remove)
        yield


class _LoopThread:
    """An event loop that runs in a daemon thread: connections of a judge's client live as long as it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="rubriscope-scoring", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        if self.pid == os.getpid():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(timeout=1.0)


_loop_threads: list[_LoopThread] = []  # a forked child keeps its parent's: closing it would close shared fds
_loop_lock = threading.Lock()


def _renew_lock_in_child() -> None:
    global _loop_lock
    _loop_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_in_child)


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to completion on this process's scoring loop, also from a thread that runs a loop of its own."""
    with _loop_lock:
        if not _loop_threads or _loop_threads[-1].pid != os.getpid():
            _loop_threads.append(_LoopThread())
            atexit.register(_loop_threads[-1].stop)
        current = _loop_threads[-1]
    if threading.current_thread() is current.thread:
        coroutine.close()
        raise RuntimeError(
            "a reward function was called inside the scoring of an asynchronous rubric: "
            "it would wait for itself"
        )
    future = asyncio.run_coroutine_threadsafe(coroutine, current.loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # a KeyboardInterrupt here must not leave the judges' calls running
        raise


def resolve(rubric: Rubric | str) -> Rubric:
    """A rubric, from itself or from ``"module:attribute"``; a class or function found there is called.

    Raises:
        ImportError, AttributeError: there is no such module or attribute.
        TypeError: what is given, found or made is no rubric.
        ValueError: a text that is not ``"module:attribute"``.
    """
    if isinstance(rubric, Rubric):
        return rubric
    if not isinstance(rubric, str):
        raise TypeError(f"rubric must be a Rubric or 'module:attribute', got {rubric!r}")
    if ":" not in rubric:
        raise ValueError(f"rubric must be a Rubric or 'module:attribute', got {rubric!r}")
    found = pkgutil.resolve_name(rubric)
    made = found() if callable(found) and not isinstance(found, Rubric) else found
    if not isinstance(made, Rubric):
        raise TypeError(f"{rubric!r} must be a Rubric, its class or a function that makes one, got {made!r}")
    return made


Build = Callable[[dict[str, Any]], Any]
