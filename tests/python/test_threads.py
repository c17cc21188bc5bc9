"""Several threads and tasks at once: nobody's scores in anybody else's snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading

import pytest
import rubriscope as rs
from engine_support import AsyncEcho, Echo, Mean, Raises, Value, rows


@pytest.fixture(autouse=True)
def switch_often():
    """Threads take turns every few dozen bytecodes."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run_threads(work, count=8):
    """Runs ``work(i)`` on threads that begin together; raises what one of them raised."""
    barrier = threading.Barrier(count)
    errors = []

    def body(i):
        try:
            barrier.wait(30)
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def echo_tree():
    return rs.WeightedSum([rs.Gate(Echo(), 0.0), Mean(a=Echo(), b=rs.Sequential(Echo(), Echo()))], [0.5, 0.5])


def test_eight_threads_share_a_tree(watch):
    tree = echo_tree()
    watched = watch(tree)

    def work(i):
        for k in range(200):
            action = (i * 200 + k + 1) / 2048
            assert tree(action, None) == action

    run_threads(work)
    snapshots = watched.snapshots()
    assert len(snapshots) == 1600 == watched.observer.snapshots
    assert sorted(s.action for s in snapshots) == [(k + 1) / 2048 for k in range(1600)]
    for s in snapshots:
        assert len(s.scores) == 8 and set(s.scores.values()) == {s.action}
        assert s.calls == {} and set(s.statuses.values()) == {"scored"}
    assert sorted(s.step for s in snapshots) == list(range(1600))


def test_threads_with_episodes_of_their_own(watch):
    tree = rs.Sequential(Echo())
    watched = watch(tree)

    def work(i):
        for episode in range(5):
            with watched.recorder.episode(f"{i}-{episode}", group_id=i, sample_index=episode):
                for _ in range(10):
                    watched.recorder.annotate(thread=i)
                    tree(float(i + 1), None)

    run_threads(work)
    seen: dict[str, list[int]] = {}
    for s in watched.snapshots():
        thread = int(s.action) - 1
        assert s.episode_id == f"{thread}-{s.sample_index}" and s.group_id == thread
        assert s.metadata == {"thread": thread}
        seen.setdefault(s.episode_id, []).append(s.step)
    assert len(seen) == 40 and all(steps == list(range(10)) for steps in seen.values())


def test_a_new_thread_begins_at_the_recorders_default(watch):
    tree = Echo()
    watched = watch(tree)
    with watched.recorder.episode("mine"):
        thread = threading.Thread(target=lambda: tree(1.0, None))
        thread.start()
        thread.join()
        tree(2.0, None)
    assert {s.action: s.episode_id for s in watched.snapshots()} == {1.0: "0", 2.0: "mine"}


def test_a_thread_that_fails_disturbs_no_other(watch):
    class Fussy(rs.Rubric):
        def forward(self, action, observation):
            if observation == "bad":
                raise LookupError(str(action))
            return action

    tree = rs.Sequential(Value(1.0), rs.Gate(Fussy(), 0.0), Echo())
    watched = watch(tree)

    def work(i):
        for _ in range(100):
            if i % 2:
                with contextlib.suppress(LookupError):
                    tree(i + 1.0, "bad")
            else:
                assert tree(i + 1.0, "good") == i + 1.0

    run_threads(work)
    for s in watched.snapshots():
        if s.observation == "bad":
            assert s.statuses["rubric_2"] == "skipped" and s.statuses["rubric_1.rubric"] == "failed"
            assert s.reasons["rubric_1.rubric"] == f"LookupError: {s.action}"
        else:
            assert s.statuses == dict.fromkeys(s.statuses, "scored")


def test_the_tree_changes_while_threads_call_it(watch):
    tree = Mean(a=Echo(), b=Echo())
    watched = watch(tree)
    stop = threading.Event()

    def change():
        while not stop.is_set():
            tree.a.extra = Value(0.0)
            tree.c = Value(0.0)
            del tree.a.extra
            del tree.c

    changer = threading.Thread(target=change)
    changer.start()
    try:

        def work(i):
            for _ in range(100):
                with contextlib.suppress(RuntimeError):  # the list of children changed while it was walked
                    tree(i + 1.0, None)

        run_threads(work, 4)
    finally:
        stop.set()
        changer.join()
    for s in watched.snapshots():
        assert s.scores["a"] == s.scores["b"] == s.action


def test_observers_come_and_go_while_threads_call(watch):
    tree = rs.Sequential(Echo(), Echo())
    watched = watch(tree)

    def work(i):
        for k in range(60):
            if i < 2:
                with rs.RubricObserver(tree, watched.recorder):
                    tree(i + 1.0, None)
            else:
                assert tree(i + 1.0, None) == i + 1.0
                if k % 10 == 0:
                    tree.get_rubric("rubric_1").register_forward_hook(lambda *_: None).remove()

    run_threads(work, 6)
    snapshots = watched.snapshots()
    assert len(snapshots) >= 6 * 60
    assert all(set(s.scores.values()) == {s.action} for s in snapshots)


def test_asyncio_in_several_threads(watch):
    tree = rs.WeightedSum([AsyncEcho(), rs.Gate(AsyncEcho(), 0.0)], [0.5, 0.5])
    watched = watch(tree)

    def work(i):
        async def many():
            actions = [(i * 32 + k + 1) / 256 for k in range(25)]
            assert await asyncio.gather(*(tree(a, k % 3) for k, a in enumerate(actions))) == actions

        asyncio.run(many())

    run_threads(work)
    snapshots = watched.snapshots()
    assert len(snapshots) == 200
    assert all(set(s.scores.values()) == {s.action} and len(s.scores) == 4 for s in snapshots)


def test_log_from_many_threads(tmp_path):
    with rs.record(tmp_path / "runs.db") as recorder:
        run_threads(lambda i: [recorder.log({f"t{i}": float(k)}, step=k) for k in range(100)])
    found = rows(
        tmp_path / "runs.db",
        "select name, count(*), sum(value) from scalar_values group by name order by name",
    )
    assert found == [(f"t{i}", 100, 4950.0) for i in range(8)]


def test_flush_stats_and_close_at_once(tmp_path):
    recorder = rs.record(tmp_path / "runs.db")
    tree = rs.Sequential(Echo())
    recorder.observe(tree)

    def work(i):
        for k in range(200):
            tree(float(k), None)
            if k % 20 == i:
                recorder.flush()
                recorder.stats()
        if i == 3:
            recorder.close()

    run_threads(work)
    recorder.close()
    stats = recorder.stats()
    assert rows(tmp_path / "runs.db", "select count(*) from steps") == [(stats.accepted,)]
    assert stats.durable == stats.accepted >= 200


def test_failing_trees_in_threads_keep_their_own_exceptions():
    tree = rs.Sequential(Raises())

    def work(i):
        for _ in range(200):
            with pytest.raises(RuntimeError, match="broken"):
                tree(i, None)

    run_threads(work)
