"""Asynchronous rubrics: what a call returns, who runs at once with whom, and whose scores are whose."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import threading
import time
import warnings

import pytest
import rubriscope as rs
from engine_support import AsyncEcho, AsyncRaises, AsyncValue, Echo, Mean, Raises, Value


class AsyncMean(rs.Rubric):
    """A user's async forward() that awaits its children together."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            setattr(self, name, child)

    async def forward(self, action, observation):
        scores = await asyncio.gather(*(child(action, observation) for child in self.children()))
        return sum(scores) / len(scores)


def test_an_async_call_is_a_real_coroutine():
    for rubric in (AsyncValue(0.5), rs.Gate(AsyncValue(0.5), 0.1), AsyncMean(x=AsyncValue(0.5))):
        coroutine = rubric(1, 2)
        assert inspect.iscoroutine(coroutine) and asyncio.iscoroutine(coroutine)
        assert asyncio.run(coroutine) == 0.5


def test_nothing_of_an_async_leaf_runs_before_it_is_awaited():
    log = []
    rubric = AsyncValue(0.5)
    rubric.register_forward_pre_hook(lambda *_: log.append("pre"))
    coroutine = rubric(1, 2)
    assert log == []
    asyncio.run(coroutine)
    assert log == ["pre"]


async def test_a_call_can_be_a_task_or_be_waited_for():
    tree = rs.Sequential(AsyncValue(1.0), AsyncValue(0.5))
    task = asyncio.create_task(tree(1, 2))
    assert await asyncio.wait_for(tree(1, 2), 10) == 0.5
    assert await task == 0.5
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tree(1, 2)) for _ in range(5)]
    assert [task.result() for task in tasks] == [0.5] * 5


async def test_last_score_of_async_nodes():
    tree = rs.WeightedSum([AsyncValue(0.5), rs.Gate(AsyncValue(0.25), 0.5)], [0.5, 0.5])
    assert await tree(1, 2) == 0.25
    assert tree.last_score == 0.25
    assert tree.rubric_0.last_score == 0.5
    assert tree.rubric_1.last_score == 0.0
    assert tree.rubric_1.rubric.last_score == 0.25


# ---- Containers


@pytest.mark.parametrize(
    ("scores", "expected", "calls"),
    [
        ([1.0, 0.5], 0.5, 2),
        ([0.0, 0.5], 0.0, 1),
        ([1.0, 0.0, 0.5], 0.0, 2),
        ([1.0, -0.0, 0.5], 0.0, 2),
        ([1.0, float("nan"), 0.5], 0.5, 3),
    ],
    ids=repr,
)
@pytest.mark.parametrize("kinds", ["aaa", "saa", "asa", "ssa", "ass", "sas"])
async def test_sequential(scores, expected, calls, kinds):
    made = [(AsyncValue if kind == "a" else Value)(score) for kind, score in zip(kinds, scores, strict=False)]
    called = []
    for i, child in enumerate(made):
        child.register_forward_pre_hook(lambda *_, i=i: called.append(i))
    score = rs.Sequential(*made)(1, 2)
    if inspect.iscoroutine(score):
        score = await score
    assert score == expected
    assert called == list(range(calls))


async def test_sequential_waits_for_one_before_it_calls_the_next():
    log = []

    class Logs(rs.Rubric):
        def __init__(self, name):
            super().__init__()
            self.name = name

        async def forward(self, action, observation):
            log.append(f"begin {self.name}")
            await asyncio.sleep(0)
            log.append(f"end {self.name}")
            return 1.0

    await rs.Sequential(Logs("a"), Logs("b"))(1, 2)
    assert log == ["begin a", "end a", "begin b", "end b"]


async def test_async_children_of_a_weighted_sum_run_concurrently():
    inside = 0
    most = 0
    all_in = asyncio.Event()

    class Meets(rs.Rubric):
        async def forward(self, action, observation):
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            if inside == 4:
                all_in.set()
            await asyncio.wait_for(all_in.wait(), 10)
            return 1.0

    tree = rs.WeightedSum([Meets(), Value(1.0), rs.Gate(Meets()), rs.Sequential(Meets()), Meets()], [0.2] * 5)
    assert await tree(1, 2) == pytest.approx(1.0)
    assert most == 4


async def test_weight_zero_and_nan_of_async_children():
    assert await rs.WeightedSum([AsyncValue(0.5), AsyncValue(float("nan"))], [1.0, 0.0])(1, 2) == 0.5
    assert await rs.WeightedSum([AsyncValue(0.5), AsyncValue(None)], [1.0, 0.0])(1, 2) == 0.5
    with pytest.raises(TypeError, match="NoneType"):
        await rs.WeightedSum([AsyncValue(0.5), AsyncValue(None)], [0.5, 0.5])(1, 2)


async def test_a_failing_child_of_a_weighted_sum_stops_the_others():
    cancelled = []

    class Waits(rs.Rubric):
        async def forward(self, action, observation):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.append(self)
                raise
            return 1.0

    error = LookupError("mine")
    tree = rs.WeightedSum([Waits(), AsyncRaises(error), Waits()], [0.25, 0.5, 0.25])
    with pytest.raises(LookupError) as caught:
        await tree(1, 2)
    assert caught.value is error
    assert len(cancelled) == 2
    assert len(asyncio.all_tasks()) == 1


async def test_a_sync_failure_after_an_async_child_leaves_no_warning():
    tree = rs.WeightedSum([AsyncValue(1.0), Raises()], [0.5, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match="broken"):
            score = tree(1, 2)
            await score
        gc.collect()


async def test_cancellation_reaches_the_rubric_and_the_caller(watch):
    class Waits(rs.Rubric):
        async def forward(self, action, observation):
            await asyncio.sleep(60)

    tree = rs.Sequential(AsyncValue(1.0), Waits(), Value(1.0))
    watched = watch(tree)
    task = asyncio.create_task(tree(1, 2))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    snapshot = watched.only()
    assert snapshot.statuses == {
        "root": "failed",
        "rubric_0": "scored",
        "rubric_1": "failed",
        "rubric_2": "skipped",
    }
    assert "CancelledError" in snapshot.reasons["rubric_1"]


async def test_strict_async():
    with pytest.raises(ValueError, match="nan"):
        await AsyncValue(float("nan"), strict=True)(1, 2)
    assert await AsyncValue(0.5, strict=True)(1, 2) == 0.5


async def test_a_sync_forward_that_returns_a_coroutine():
    class Delegates(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.inner = AsyncValue(0.25)

        def forward(self, action, observation):
            return self.inner(action, observation)

    tree = rs.Sequential(Delegates())
    assert await tree(1, 2) == 0.25
    assert tree.last_score == 0.25 and tree.rubric_0.last_score == 0.25


async def test_a_forward_that_returns_a_future():
    class Future(rs.Rubric):
        def forward(self, action, observation):
            future = asyncio.get_running_loop().create_future()
            future.get_loop().call_soon(future.set_result, 0.75)
            return future

    assert await Future()(1, 2) == 0.75
    assert await rs.WeightedSum([Future(), Value(0.25)], [0.5, 0.5])(1, 2) == 0.5
    coroutine = Future()(1, 2)
    assert inspect.iscoroutine(coroutine)
    await coroutine


async def test_async_subclass_of_a_container_that_calls_super():
    class Later(rs.WeightedSum):
        async def forward(self, action, observation):
            score = super().forward(action, observation)
            if inspect.isawaitable(score):
                score = await score
            return 1 - score

    assert await Later([AsyncValue(0.25)], [1.0])(1, 2) == 0.75
    assert await Later([Value(0.25)], [1.0])(1, 2) == 0.75


async def test_overridden_async_call():
    class Doubles(Value):
        async def __call__(self, action, observation):
            await asyncio.sleep(0)
            return 2 * super().__call__(action, observation)

    assert await rs.WeightedSum([Doubles(0.5), Value(0.0)], [0.5, 0.5])(1, 2) == 0.5


async def test_a_tree_changed_while_it_waits(watch):
    started, go = asyncio.Event(), asyncio.Event()

    class Waits(rs.Rubric):
        async def forward(self, action, observation):
            started.set()
            await go.wait()
            return 0.5

    tree = rs.WeightedSum([Waits(), Value(1.0)], [0.5, 0.5])
    watched = watch(tree)
    task = asyncio.create_task(tree("first", 2))
    await started.wait()
    tree.rubric_0 = Value(0.25)
    tree.extra = Value(1)
    gc.collect()
    go.set()
    assert await task == 0.75
    assert tree("second", 2) == 0.625
    first, second = watched.snapshots()
    assert first.scores == {"root": 0.75, "rubric_0": 0.5, "rubric_1": 1.0}
    assert second.scores == {"root": 0.625, "rubric_0": 0.25, "rubric_1": 1.0}
    assert second.statuses["extra"] == "skipped"


# ---- Many at once


async def test_tasks_made_inside_a_forward(watch):
    class Spawns(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.left = AsyncEcho()
            self.right = rs.Gate(AsyncEcho(), 0.0)

        async def forward(self, action, observation):
            async with asyncio.TaskGroup() as group:
                left = group.create_task(self.left(action, observation))
                right = group.create_task(self.right(action / 2, observation))
            return left.result() + right.result()

    tree = rs.Sequential(Spawns())
    watched = watch(tree)
    actions = [(i + 1) / 64 for i in range(100)]
    scores = await asyncio.gather(*(tree(action, i % 5) for i, action in enumerate(actions)))
    assert scores == [1.5 * action for action in actions]
    snapshots = watched.snapshots()
    assert sorted(s.action for s in snapshots) == actions
    for s in snapshots:
        assert s.scores == {
            "root": 1.5 * s.action,
            "rubric_0": 1.5 * s.action,
            "rubric_0.left": s.action,
            "rubric_0.right": s.action / 2,
            "rubric_0.right.rubric": s.action / 2,
        }
        assert s.calls == {}


async def test_to_thread_inside_an_async_forward(watch):
    class Threads(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.work = rs.Sequential(Echo(), Echo())

        async def forward(self, action, observation):
            return await asyncio.to_thread(self.work, action, observation)

    tree = Threads()
    watched = watch(tree)
    actions = [(i + 1) / 64 for i in range(40)]
    assert await asyncio.gather(*(tree(action, None) for action in actions)) == actions
    snapshots = watched.snapshots()
    assert sorted(s.action for s in snapshots) == actions
    for s in snapshots:
        assert set(s.scores) == {"root", "work", "work.rubric_0", "work.rubric_1"}
        assert set(s.scores.values()) == {s.action}


async def test_calls_of_one_tree_from_inside_another_call_of_it(watch):
    class Twice(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.child = AsyncEcho()

        async def forward(self, action, observation):
            a, b = await asyncio.gather(self.child(action, 1), self.child(action, 3))
            return a + b

    tree = Twice()
    watched = watch(tree)
    await asyncio.gather(*(tree(float(i + 1), None) for i in range(20)))
    snapshots = watched.snapshots()
    assert len(snapshots) == 20
    for s in snapshots:
        assert s.calls == {"child": 2}
        assert s.scores == {"root": 2 * s.action, "child": s.action}


async def test_sync_calls_between_the_awaits_of_others(watch):
    """A sync tree called while an async call of another observed tree is suspended belongs to nobody else."""
    waiting, plain = rs.Sequential(AsyncValue(0.5, pauses=5)), rs.Sequential(Value(0.25))
    outer, inner = watch(waiting), watch(plain)
    task = asyncio.create_task(waiting(1, 2))
    for _ in range(3):
        await asyncio.sleep(0)
        assert plain(3, 4) == 0.25
    await task
    assert outer.only().scores == {"root": 0.5, "rubric_0": 0.5}
    assert [s.scores for s in inner.snapshots()] == [{"root": 0.25, "rubric_0": 0.25}] * 3


async def test_context_variables_reach_the_rubric():
    place = contextvars.ContextVar("place", default="nowhere")
    seen = []

    class Looks(rs.Rubric):
        async def forward(self, action, observation):
            seen.append(place.get())
            return 1.0

    place.set("here")
    await rs.WeightedSum([Looks(), rs.Gate(Looks())], [0.5, 0.5])(1, 2)
    assert seen == ["here", "here"]


def test_the_same_tree_in_several_loops():
    tree = rs.WeightedSum([AsyncEcho(), AsyncEcho()], [0.5, 0.5])
    for i in range(5):
        assert asyncio.run(tree(float(i), None)) == i


# ---- Calls that do not end


def test_a_coroutine_that_is_never_awaited_leaves_the_tree_usable(watch):
    tree = rs.Sequential(AsyncValue(1.0), AsyncValue(0.5))
    watched = watch(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coroutine = tree(1, 2)
        del coroutine
        gc.collect()
    assert watched.snapshots() == []
    assert asyncio.run(tree(1, 2)) == 0.5
    assert watched.only().reward == 0.5


def test_a_coroutine_closed_half_way(watch):
    tree = rs.Sequential(AsyncValue(1.0), AsyncValue(0.5))
    watched = watch(tree)
    coroutine = tree(1, 2)
    coroutine.send(None)
    coroutine.close()
    assert asyncio.run(tree(3, 4)) == 0.5
    half, whole = watched.snapshots()
    assert half.reward is None and half.statuses["root"] == "failed"
    assert whole.scores == {"root": 0.5, "rubric_0": 1.0, "rubric_1": 0.5}


def test_a_half_way_coroutine_collected_at_another_place(watch):
    """Its context must not become the context of whoever the collector interrupts."""
    tree = rs.Sequential(AsyncValue(1.0, pauses=3))
    watched = watch(tree)
    coroutine = tree("lost", 2)
    coroutine.send(None)

    class Collects(rs.Rubric):
        def forward(self, action, observation):
            nonlocal coroutine
            coroutine = None
            gc.collect()
            return 0.75

    other = rs.Sequential(Collects(), Value(0.5))
    seen = watch(other)
    assert other(1, 2) == 0.5
    assert seen.only().scores == {"root": 0.5, "rubric_0": 0.75, "rubric_1": 0.5}
    assert [s.action for s in watched.snapshots()] == ["lost"]


async def test_a_task_that_outlives_the_call_that_made_it(watch):
    go = asyncio.Event()
    left_over = []

    class Slow(rs.Rubric):
        async def forward(self, action, observation):
            await go.wait()
            return 0.125

    background = rs.Sequential(Slow(), rs.Gate(Echo(), 0.0))

    class Starts(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.child = AsyncEcho()

        async def forward(self, action, observation):
            left_over.append(asyncio.create_task(background(action, "background")))
            return await self.child(action, observation)

    tree = rs.Sequential(Starts())
    front, behind = watch(tree), watch(background)
    for i in range(20):
        assert await tree(i + 1.0, None) == i + 1.0
    others = [asyncio.create_task(tree(100.0, 5)) for _ in range(20)]
    go.set()
    assert await asyncio.gather(*left_over) == [i + 1.0 for i in range(20)]
    await asyncio.gather(*others, *left_over)
    assert len(front.snapshots()) == 40
    for s in front.snapshots():
        assert s.scores == {"root": s.action, "rubric_0": s.action, "rubric_0.child": s.action}
        assert s.calls == {}
    for s in behind.snapshots():
        assert s.scores == {
            "root": s.action,
            "rubric_0": 0.125,
            "rubric_1": s.action,
            "rubric_1.rubric": s.action,
        }


async def test_a_thread_that_outlives_the_call_that_made_it(watch):
    """A time-out ends the call; its thread goes on, and must not write into anybody else's snapshot."""
    go, begun = threading.Event(), threading.Semaphore(0)

    class Slow(rs.Rubric):
        def forward(self, action, observation):
            begun.release()
            go.wait(30)
            return -1.0

    class Impatient(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.work = rs.Gate(Slow(), -2.0)

        async def forward(self, action, observation):
            if observation == "quick":
                return action
            thread = asyncio.to_thread(self.work, action, observation)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await thread
            return action

    tree = Impatient()
    watched = watch(tree)
    await asyncio.gather(*(tree(float(i), "slow") for i in range(3)))
    for _ in range(3):
        begun.acquire(timeout=30)

    class Between(rs.Rubric):
        """Holds contexts that may have been used before, while the threads end."""

        def forward(self, action, observation):
            go.set()
            time.sleep(0.2)
            return 0.5

    other = rs.Sequential(rs.Sequential(Value(1.0), Value(1.0)), Between())
    seen = watch(other)
    assert other(1, 2) == 0.5
    assert seen.only().scores == {
        "root": 0.5,
        "rubric_0": 1.0,
        "rubric_0.rubric_0": 1.0,
        "rubric_0.rubric_1": 1.0,
        "rubric_1": 0.5,
    }
    assert seen.only().calls == {}
    assert await tree(7.0, "quick") == 7.0
    for s in watched.snapshots():
        assert s.scores == {"root": s.action}
        assert s.statuses == {"root": "scored", "work": "skipped", "work.rubric": "skipped"}


# ---- Batches


async def test_batch_of_an_async_rubric_is_a_coroutine_and_runs_at_once():
    tree = rs.Gate(AsyncEcho(), 0.5)
    begin = time.monotonic()
    coroutine = tree.batch([0.25, 0.5, 1.0], [1, 2, 3])
    assert inspect.iscoroutine(coroutine)
    assert (await coroutine).tolist() == [0.0, 0.5, 1.0]
    assert time.monotonic() - begin < 30


async def test_batch_of_an_async_rubric_makes_a_snapshot_per_pair(watch):
    tree = rs.Gate(AsyncEcho(), 0.5)
    watched = watch(tree)
    await tree.batch([i / 8 for i in range(8)], list(range(8)))
    for s in watched.snapshots():
        assert s.scores == {"root": s.action if s.action >= 0.5 else 0.0, "rubric": s.action}


async def test_sync_call_inside_async_tree_through_mean():
    tree = rs.Gate(AsyncMean(a=AsyncValue(0.5), b=rs.Gate(AsyncValue(1.0))), 0.5)
    assert await tree(1, 2) == 0.75
    assert Mean(a=Value(0.5))(1, 2) == 0.5


def test_observed_async_calls_leave_no_native_memory(tmp_path):
    import psutil

    part = rs.Sequential(Echo(), rs.Gate(Echo(), 0.0))

    class Calls(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.part = part
            self.large = rs.WeightedSum([Value(0.0) for _ in range(200)], [1 / 200] * 200)

        async def forward(self, action, observation):
            await asyncio.sleep(0)
            return self.part(action, observation) + self.large(action, observation)

    tree = rs.Sequential(Calls())
    process = psutil.Process()
    with rs.record(tmp_path / "run.jsonl", journal_limit_bytes=1 << 20) as recorder:
        recorder.observe(tree, capture="none")
        recorder.observe(part, capture="none")

        async def many(times):
            for _ in range(times):
                await asyncio.gather(*(tree(0.5, None) for _ in range(10)))
            recorder.flush()

        asyncio.run(many(200))
        before = process.memory_info().rss
        asyncio.run(many(400))
        assert process.memory_info().rss - before < 6 << 20  # 4000 contexts of 4 KiB
