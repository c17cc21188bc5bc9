"""Recorders in forked, spawned and pickled workers: each is a writer of its own in the same session."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import traceback

import cloudpickle
import pytest
import rubriscope as rs
from engine_support import Collect, Echo, rows


def steps(path):
    return rows(
        path,
        "select pid, reward from steps s join writers w on w.writer_key = s.step_key >> 40 order by step_key",
    )


def in_fork(body) -> None:
    """Runs a function in a forked child that ends as an interpreter does not: at once."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_fork_while_recording(tmp_path):
    path = tmp_path / "runs.db"
    recorder = rs.record(path, session="forked")
    tree = rs.Sequential(Echo())
    recorder.observe(tree)
    for i in range(10):
        tree(float(i), "parent")
    parent_writer = recorder.writer_id

    def child():
        for i in range(10):
            tree(100.0 + i, "child")
        assert recorder.writer_id != parent_writer
        assert recorder.session_id == session
        recorder.close()

    session = recorder.session_id
    in_fork(child)
    for i in range(10, 20):
        tree(float(i), "parent")
    assert recorder.writer_id == parent_writer
    recorder.close()
    found = steps(path)
    mine = [reward for pid, reward in found if pid == os.getpid()]
    others = [reward for pid, reward in found if pid != os.getpid()]
    assert mine == [float(i) for i in range(20)]
    assert others == [100.0 + i for i in range(10)]
    assert rows(path, "select name from sessions") == [("forked",)]


def test_a_child_that_records_nothing_changes_nothing(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        tree = Echo()
        recorder.observe(tree)
        tree(1.0, None)
        in_fork(lambda: None)
        in_fork(recorder.stats)
        in_fork(recorder.close)
        tree(2.0, None)
    assert [reward for _, reward in steps(path)] == [1.0, 2.0]
    assert rows(path, "select count(*) from writers") == [(1,)]


def test_a_child_that_dies_without_close_is_recovered(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        tree = Echo()
        recorder.observe(tree)

        def child():
            for i in range(5):
                tree(100.0 + i, None)

        in_fork(child)
        tree(1.0, None)
    rs.record(path).close()
    assert sorted(reward for _, reward in steps(path)) == [1.0, 100.0, 101.0, 102.0, 103.0, 104.0]


def test_many_forks(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        tree = Echo()
        recorder.observe(tree)
        pids = []
        for k in range(6):
            tree(float(k), None)
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for i in range(20):
                        tree(1000.0 * (k + 1) + i, None)
                    recorder.flush()
                    recorder.close()
                    code = 0
                finally:
                    os._exit(code)
            pids.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
    rewards = sorted(reward for _, reward in steps(path))
    assert rewards == sorted(
        [float(k) for k in range(6)] + [1000.0 * (k + 1) + i for k in range(6) for i in range(20)]
    )
    assert rows(path, "select count(*) from writers") == [(7,)]


def test_a_fork_of_a_fork(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path) as recorder:
        tree = Echo()
        recorder.observe(tree)

        def grandchild():
            tree(3.0, None)
            recorder.close()

        def child():
            tree(2.0, None)
            in_fork(grandchild)
            recorder.close()

        tree(1.0, None)
        in_fork(child)
    assert sorted(reward for _, reward in steps(path)) == [1.0, 2.0, 3.0]


def test_fork_with_a_busy_drain(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, flush_interval_ms=1) as recorder:
        tree = Echo()
        recorder.observe(tree)

        def child():
            tree(-1.0, None)
            recorder.close()

        for i in range(10):
            for k in range(200):
                tree(float(i * 200 + k), None)
            in_fork(child)
    rewards = [reward for _, reward in steps(path)]
    assert rewards.count(-1.0) == 10
    assert [r for r in rewards if r >= 0] == [float(i) for i in range(2000)]


# ---- multiprocessing


def work(arguments):
    recorder, numbers = arguments
    tree = rs.Sequential(Echo())
    observer = recorder.observe(tree)
    for number in numbers:
        tree(number, None)
    observer.detach()
    recorder.flush()
    return os.getpid()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_get_the_recorder_as_an_argument(tmp_path, method):
    path = tmp_path / "runs.db"
    with rs.record(path, session="pool") as recorder:
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            pids = pool.map(
                work, [(recorder, [float(10 * k + i) for i in range(10)]) for k in range(4)], chunksize=1
            )
            pool.close()
            pool.join()
        recorder.log({"done": 1.0})
    found = steps(path)
    assert sorted(reward for _, reward in found) == [float(i) for i in range(40)]
    assert {pid for pid, _ in found} == set(pids)
    assert rows(path, "select name from sessions") == [("pool",)]


def leave_without_flush(recorder, number):
    tree = Echo()
    recorder.observe(tree)
    tree(number, None)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_returns_has_delivered(tmp_path, method):
    """multiprocessing ends its children without atexit."""
    path = tmp_path / "runs.db"
    with rs.record(path, flush_interval_ms=60_000) as recorder:
        process = multiprocessing.get_context(method).Process(
            target=leave_without_flush, args=(recorder, 5.0)
        )
        process.start()
        process.join(60)
        assert process.exitcode == 0
        recorder.log({"x": 1.0})
    assert [reward for _, reward in steps(path)] == [5.0]


RECORDS_FIRST_IN_THE_CHILD = """
import multiprocessing, sys
import rubriscope as rs

def work(path):
    global recorder
    recorder = rs.record(path, flush_interval_ms=60_000)
    recorder.log({"x": 5.0})

if __name__ == "__main__":
    assert "rubriscope.recorder" not in sys.modules
    process = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(sys.argv[2],))
    process.start()
    process.join(60)
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_records_where_its_parent_never_did_has_delivered(tmp_path, method):
    (tmp_path / "program.py").write_text(RECORDS_FIRST_IN_THE_CHILD)
    path = tmp_path / "runs.db"
    subprocess.run([sys.executable, tmp_path / "program.py", method, path], check=True)
    assert rows(path, "select step_index from scalars") == [(0,)]
    assert not (tmp_path / "runs.db.rubriscope").exists()


# ---- Pickles


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_pickle_in_its_own_process_is_the_same_recorder(tmp_path, dumps):
    with rs.record(tmp_path / "runs.db") as recorder:
        assert pickle.loads(dumps(recorder)) is recorder
        assert copy.deepcopy(recorder) is recorder
        assert copy.copy(recorder) is recorder


def test_a_reward_object_that_holds_its_recorder(tmp_path):
    class Reward:
        def __init__(self, recorder):
            self.tree = rs.Sequential(Echo())
            self.recorder = recorder

        def __call__(self, number):
            return self.tree(number, None)

    with rs.record(tmp_path / "runs.db") as recorder:
        reward = Reward(recorder)
        twin = cloudpickle.loads(cloudpickle.dumps(reward))
        assert twin.recorder is recorder and twin(0.5) == 0.5
        assert copy.deepcopy(reward).recorder is recorder


def test_a_closed_recorder_is_not_opened_again_by_its_pickle_alone(tmp_path):
    recorder = rs.record(tmp_path / "runs.db", session="s")
    text = pickle.dumps(recorder)
    recorder.close()
    again = pickle.loads(text)
    assert again is not recorder and again.session_id == recorder.session_id
    again.log({"x": 1.0})
    again.close()
    assert rows(tmp_path / "runs.db", "select count(*) from sessions") == [(1,)]
    assert rows(tmp_path / "runs.db", "select count(*) from scalars") == [(1,)]


def test_python_sinks_travel_with_the_recorder(tmp_path):
    with rs.record(sinks=[Collect()], journal_dir=tmp_path) as recorder:
        assert pickle.loads(pickle.dumps(recorder)) is recorder
