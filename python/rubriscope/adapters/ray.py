"""``rubric.batch`` across a Ray cluster: a pool of actors, each a writer of one session.

    with rs.adapters.ray.RayScorer(rubric, target="postgresql://…/runs", num_actors=16) as scorer:
        rewards = scorer.batch(completions, references)

Ray is imported when the first scorer is made (``pip install 'rubriscope[ray]'``).
"""

from __future__ import annotations

import os
import pickle
import socket
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from rubriscope import _placed, _provenance
from rubriscope._C import Rubric
from rubriscope._placed import Place
from rubriscope.adapters._scoring import resolve
from rubriscope.recorder import Recorder, record
from rubriscope.sinks._common import need

if TYPE_CHECKING:
    import torch

__all__ = ["RayScorer"]

_CHUNKS_AN_ACTOR = 4  # of a batch: the fast ones take from the slow ones


class _Failure(NamedTuple):
    """An error in an actor, as it can be sent."""

    pickled: bytes | None  #: the exception; None where it cannot be pickled
    text: str
    trace: str
    pair: int  #: within the chunk


class _Actor:
    """Scores chunks in a process of the cluster. Made into a Ray actor by :class:`RayScorer`."""

    def __init__(self, rubric: bytes, recorder: bytes | None, rank: int, world_size: int) -> None:
        _provenance.act_as(rank, world_size)
        made = pickle.loads(rubric)
        self._rubric = resolve(made if isinstance(made, (Rubric, str)) else made())
        # Unpickled here, a recorder opens itself again as a writer of the same session.
        self._recorder: Recorder | None = None if recorder is None else pickle.loads(recorder)
        self._observer = None if self._recorder is None else self._recorder.observe(self._rubric)

    def about(self) -> dict[str, Any]:
        """Who and where this actor is."""
        writer = None if self._recorder is None else self._recorder.writer_id
        return {"host": socket.gethostname(), "pid": os.getpid(), "writer": writer}

    def score(
        self, actions: list[Any], observations: list[Any], places: list[Place]
    ) -> list[float] | _Failure:
        """The scores of a chunk, or its first error."""
        attempt = _placed.score(
            self._rubric, self._recorder, actions, observations, places, stop_at_error=True
        )
        if not attempt.errors:
            return attempt.scores
        pair, error = min(attempt.errors.items(), key=lambda item: item[0])
        try:
            pickled = pickle.dumps(error)
            pickle.loads(pickled)
        except Exception:
            pickled = None  # an exception that holds a connection, a lock, …: its text goes
        text = f"{type(error).__name__}: {error}"
        return _Failure(pickled, text, "".join(traceback.format_exception(error)), pair)

    def flush(self, timeout_s: float) -> int:
        """Waits until what this actor recorded is durable."""
        return 0 if self._recorder is None else self._recorder.flush(timeout_s)

    def close(self) -> None:
        """Ends this actor's stream of the session."""
        if self._recorder is not None:
            self._recorder.close()


class RayScorer:
    """Scores batches with a rubric on a pool of Ray actors; a context manager.

    Each actor has a copy of the rubric and, where something is recorded, a stream of its own in one session;
    its number in the pool is its rank. The film merges the streams by step, so with the steps that
    :meth:`batch` gives it has the pairs in their order. A path as target is a file on each actor's own
    machine: for several machines record into ``postgresql://…`` or ``redis://…``.

    Where Ray was not started it is, on this machine, and stopped by :meth:`close`.

    Args:
        rubric: The tree, a function that makes it, or ``"module:attribute"`` of either. It is pickled for the
            actors (by Ray's cloudpickle).
        recorder: A recorder whose session the actors write, or
        target: where to record a session opened here, with
        session: its name. With neither recorder nor target nothing is recorded.
        num_actors: Size of the pool.
        chunk_size: Pairs sent to an actor at once; left out, a quarter of its share of the batch.
        actor_options: What Ray's ``.options()`` takes (``num_cpus``, ``num_gpus``, ``resources``,
            ``runtime_env``, …); one CPU and ``scheduling_strategy="SPREAD"`` unless it says otherwise.
        start_timeout_s: How long the cluster may take to start the actors.

    Raises:
        ImportError: Ray is not installed.
        TimeoutError: the cluster did not start all actors in time (too few free CPUs or GPUs).
        TypeError, ValueError: an argument is not what is said above.
    """

    def __init__(
        self,
        rubric: Rubric | str | Callable[[], Rubric],
        *,
        recorder: Recorder | None = None,
        target: Any = None,
        session: str | None = None,
        num_actors: int = 2,
        chunk_size: int | None = None,
        actor_options: Mapping[str, Any] | None = None,
        start_timeout_s: float = 120.0,
    ) -> None:
        if not (isinstance(rubric, (Rubric, str)) or callable(rubric)):
            raise TypeError(
                f"rubric is a Rubric, a function that makes one or 'module:attribute', got {rubric!r}"
            )
        if recorder is not None and not isinstance(recorder, Recorder):
            raise TypeError(
                f"recorder is what rubriscope.record() returns, got {recorder!r}; a path is a target"
            )
        if recorder is not None and (target is not None or session is not None):
            raise ValueError("give a recorder, or a target and its session's name, not both")
        if num_actors < 1 or (chunk_size is not None and chunk_size < 1):
            raise ValueError(f"num_actors and chunk_size are 1 or more, got {num_actors} and {chunk_size}")
        self._ray = need("ray", "ray", "RayScorer")
        self._owns_recorder = target is not None
        self._recorder = record(target, session=session) if target is not None else recorder
        self._chunk_size = chunk_size
        self._options = {"num_cpus": 1, "scheduling_strategy": "SPREAD", **(actor_options or {})}
        self._started_ray = not self._ray.is_initialized()
        self._actors: list[Any] = []
        self._step = 0
        try:
            if self._started_ray:
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for a report to anybody
                self._ray.init(include_dashboard=False, log_to_driver=False)
            self._pickled = self._ray.cloudpickle.dumps(rubric)
            self._actors = [self._start(rank, num_actors) for rank in range(num_actors)]
            self._wait_for_start(start_timeout_s)
        except BaseException:
            self.close()
            raise

    @property
    def recorder(self) -> Recorder | None:
        """The recorder whose session the actors write."""
        return self._recorder

    @property
    def num_actors(self) -> int:
        """Size of the pool."""
        return len(self._actors)

    def actors(self) -> list[dict[str, Any]]:
        """``host``, ``pid`` and ``writer`` (its stream's UUID, or None) of each actor, by rank."""
        about: list[dict[str, Any]] = self._ray.get([actor.about.remote() for actor in self._actors])
        return about

    def batch(
        self,
        actions: Sequence[Any],
        observations: Sequence[Any],
        *,
        step: int | Sequence[int] | None = None,
        episode: str | None = None,
        group_ids: Sequence[int] | None = None,
        sample_indices: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """``rubric.batch``: the scores of N pairs, in their order.

        Args:
            actions, observations: N each.
            step: The step of all, or one for each; left out, the recorder's, and where that has none the
                pairs are counted on from batch to batch.
            episode: Left out, the recorder's.
            group_ids, sample_indices: A label for each pair; left out, the recorder's.

        Returns:
            float64 tensor of shape (N,), on the CPU.

        Raises:
            ValueError: the sequences differ in length.
            RuntimeError: an actor died. Another takes its place for the next batch; what it had accepted is
                recovered when a recorder of its target is opened on its machine.
            Exception: what the rubric raised for the first pair that failed, with a note that names pair and
                actor. No chunk is begun after it; those begun are finished and recorded.
        """
        if not self._actors:
            raise ValueError("the scorer is closed")
        count = len(actions)
        if len(observations) != count:
            raise ValueError(
                f"batch() takes as many actions as observations, got {count} and {len(observations)}"
            )
        places = self._places(count, step, episode, group_ids, sample_indices)
        size = self._chunk_size or max(1, -(-count // (len(self._actors) * _CHUNKS_AN_ACTOR)))
        chunks = deque(range(0, count, size))
        idle = deque(range(len(self._actors)))
        running: dict[Any, tuple[int, int]] = {}  # what Ray will give -> first pair, actor
        scores: list[float] = [0.0] * count
        failed: tuple[int, Exception] | None = None
        while running or (chunks and failed is None):
            while idle and chunks and failed is None:
                start, rank = chunks.popleft(), idle.popleft()
                part = slice(start, min(start + size, count))
                pending = self._actors[rank].score.remote(
                    list(actions[part]), list(observations[part]), places[part]
                )
                running[pending] = (start, rank)
            (ready, *_), _ = self._ray.wait(list(running), num_returns=1)
            start, rank = running.pop(ready)
            error = self._take(ready, start, rank, scores)
            if error is not None and (failed is None or start < failed[0]):
                failed = (start, error)
            idle.append(rank)
        if failed is not None:
            raise failed[1]
        import torch

        return torch.tensor(scores, dtype=torch.float64)

    def flush(self, timeout_s: float = 60.0) -> int:
        """Waits until everything recorded is durable; how many records of the actors are."""
        if self._owns_recorder and self._recorder is not None:
            self._recorder.flush(timeout_s)
        return sum(self._ray.get([actor.flush.remote(timeout_s) for actor in self._actors]))

    def close(self) -> None:
        """Brings everything into the sinks, ends the actors and what was started here. Idempotent."""
        actors, self._actors = self._actors, []
        lost: list[str] = []
        for rank, actor in enumerate(actors):
            try:
                self._ray.get(actor.close.remote(), timeout=60.0)
            except (self._ray.exceptions.RayError, TimeoutError) as error:
                lost.append(f"actor {rank}: {error}")
            self._ray.kill(actor)
        if self._owns_recorder and self._recorder is not None:
            self._recorder.close()
        if self._started_ray and self._ray.is_initialized():
            self._ray.shutdown()
        if lost:
            from rubriscope import _C

            _C._report(
                "warning",
                "an actor did not close its stream; what it had accepted waits in the journal on its machine "
                f"({lost[0]})",
            )

    def __enter__(self) -> RayScorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, rank: int, world_size: int) -> Any:
        recorder = None if self._recorder is None else self._ray.cloudpickle.dumps(self._recorder)
        actor = self._ray.remote(_Actor).options(**self._options)
        return actor.remote(self._pickled, recorder, rank, world_size)

    def _wait_for_start(self, timeout_s: float) -> None:
        begun = [actor.about.remote() for actor in self._actors]
        ready, _ = self._ray.wait(begun, num_returns=len(begun), timeout=timeout_s)
        if len(ready) < len(begun):
            free = self._ray.available_resources()
            shown = ", ".join(f"{name} {free[name]:g}" for name in ("CPU", "GPU") if name in free)
            raise TimeoutError(
                f"{len(ready)} of {len(begun)} actors started within {timeout_s:g} s; free in the cluster: "
                f"{shown or 'no CPU'}"
            )
        self._ray.get(ready)  # raises what went wrong in one

    def _places(
        self,
        count: int,
        step: int | Sequence[int] | None,
        episode: str | None,
        group_ids: Sequence[int] | None,
        sample_indices: Sequence[int] | None,
    ) -> list[Place]:
        recorder = self._recorder
        if step is None and recorder is not None:
            step = recorder.step
        if step is None:
            step = range(self._step, self._step + count)
            self._step += count
        steps = [step] * count if isinstance(step, int) else step
        default = (None, None) if recorder is None else (recorder.group_id, recorder.sample_index)
        groups = [default[0]] * count if group_ids is None else group_ids
        samples = [default[1]] * count if sample_indices is None else sample_indices
        for name, labels in (("step", steps), ("group_ids", groups), ("sample_indices", samples)):
            if len(labels) != count:
                raise ValueError(f"{name} has {len(labels)} values for {count} pairs")
        if episode is None:
            episode = "0" if recorder is None else recorder.episode_id
        return [Place(episode, *labels) for labels in zip(steps, groups, samples, strict=True)]

    def _take(self, ready: Any, start: int, rank: int, scores: list[float]) -> Exception | None:
        """Puts a chunk's scores where they belong, or gives its error."""
        try:
            result = self._ray.get(ready)
        except self._ray.exceptions.RayActorError as error:
            self._actors[rank] = self._start(rank, len(self._actors))
            lost = RuntimeError(f"actor {rank} died while it scored the pairs from {start} on")
            lost.__cause__ = error
            return lost
        if not isinstance(result, _Failure):
            scores[start : start + len(result)] = result
            return None
        if result.pickled is None:
            failed: Exception = RuntimeError(result.text)
        else:
            failed = pickle.loads(result.pickled)
        failed.add_note(f"while scoring pair {start + result.pair} in actor {rank}:\n{result.trace.rstrip()}")
        return failed
