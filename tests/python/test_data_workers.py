"""DataLoader workers that score rubrics, and forks of a busy process: no writer hangs, none repeats."""

from __future__ import annotations

import os
import threading
import time

import pytest
import rubriscope as rs
import torch
from engine_support import Echo, rows
from torch.utils.data import DataLoader, Dataset


class Scored(Dataset):
    """Items are scored where they are loaded: in the worker."""

    def __init__(self, recorder: rs.Recorder, size: int, held: rs.Rubric | None = None) -> None:
        self.recorder = recorder
        self.size = size
        self.rubric = held  # observed in the parent already, where given
        self.made_in = os.getpid() if held is not None else None

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.rubric is None:  # once a worker: observers are of a process
            self.rubric = rs.Sequential(Echo())
            self.recorder.observe(self.rubric)
        with self.recorder.episode("load", step=index):
            return torch.tensor(self.rubric(float(index), "item"))


def check(path, size: int, passes: int, workers: int) -> None:
    found = rows(
        path,
        "SELECT w.pid, s.step_index, s.reward FROM steps s JOIN writers w ON w.writer_key = s.step_key >> 40",
    )
    assert sorted(step for _, step, _ in found) == sorted(list(range(size)) * passes)
    assert all(reward == step for _, step, reward in found)
    pids = {pid for pid, _, _ in found}
    assert len(pids) == workers and os.getpid() not in pids
    assert rows(path, "SELECT count(*) FROM sessions") == [(1,)]


@pytest.mark.parametrize(
    ("method", "persistent", "passes"), [("fork", False, 2), ("fork", True, 2), ("spawn", True, 2)]
)
def test_workers_of_a_data_loader_score(tmp_path, method, persistent, passes):
    path = tmp_path / "runs.db"
    with rs.record(path, session="loading", flush_interval_ms=5) as recorder:
        loader = DataLoader(
            Scored(recorder, 40),
            batch_size=4,
            num_workers=2,
            persistent_workers=persistent,
            multiprocessing_context=method,
        )
        for _ in range(passes):
            assert torch.cat(list(loader)).tolist() == [float(i) for i in range(40)]
        recorder.log({"loaded": 80.0})
        del loader  # persistent workers end here
    check(path, 40, passes=passes, workers=2 if persistent else 4)


def test_forked_workers_inherit_an_observed_rubric(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, session="loading", flush_interval_ms=5) as recorder:
        tree = rs.Sequential(Echo())
        recorder.observe(tree)
        data = Scored(recorder, 30, held=tree)
        loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context="fork")
        assert torch.cat(list(loader)).tolist() == [float(i) for i in range(30)]
    check(path, 30, passes=1, workers=2)


def test_workers_that_are_stopped_in_the_middle_lose_nothing_they_had_accepted(tmp_path):
    """A loop that ends early: the loader terminates its workers; the next start brings in what they left."""
    path = tmp_path / "runs.db"
    with rs.record(path, session="loading", flush_interval_ms=60_000) as recorder:
        loader = DataLoader(
            Scored(recorder, 400),
            batch_size=4,
            num_workers=2,
            multiprocessing_context="fork",
            prefetch_factor=2,
        )
        for number, _ in enumerate(loader):
            if number == 5:
                break
    rs.record(path, session="after").close()
    steps = [step for (step,) in rows(path, "SELECT step_index FROM steps ORDER BY step_index")]
    assert len(steps) == len(set(steps)) and set(range(24)) <= set(steps)


# ---- os.fork in user code


def child_of(body, leave: str) -> int:
    """Forks; the child runs ``body`` and leaves by os._exit, sys.exit or an exception. Its exit code."""
    pid = os.fork()
    if pid:
        deadline = time.monotonic() + 60
        while (status := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(status[1])
    try:
        body()
        if leave == "exit":
            raise SystemExit(3)
        if leave == "exception":
            raise RuntimeError("on purpose")
    except SystemExit as leaving:
        rs.recorder._close_all()  # what atexit does in a process that is not pytest's
        os._exit(leaving.code)
    except RuntimeError:
        rs.recorder._close_all()
        os._exit(1)
    finally:
        os._exit(7)


@pytest.mark.parametrize(("leave", "code"), [("os._exit", 7), ("exit", 3), ("exception", 1)])
def test_a_child_may_leave_as_it_likes(tmp_path, leave, code):
    path = tmp_path / "runs.db"
    with rs.record(path, session="forks", flush_interval_ms=1) as recorder:
        tree = rs.Sequential(Echo())
        recorder.observe(tree)
        for number in range(3):
            for i in range(50):  # the drain is at work when the fork comes
                tree(float(100 * number + i), "parent")

            def body(number=number):
                tree(-1.0 - number, "child")

            assert child_of(body, leave) == code
    rs.record(path, session="after").close()
    rewards = [reward for (reward,) in rows(path, "SELECT reward FROM steps")]
    assert sorted(reward for reward in rewards if reward < 0) == [-3.0, -2.0, -1.0]
    assert sorted(reward for reward in rewards if reward >= 0) == [
        100.0 * number + i for number in range(3) for i in range(50)
    ]


def test_forks_of_a_process_whose_threads_all_record(tmp_path):
    path = tmp_path / "runs.db"
    stop = threading.Event()
    counts = [0] * 4
    with rs.record(path, session="threads", flush_interval_ms=1) as recorder:
        tree = rs.Sequential(Echo())
        recorder.observe(tree)

        def work(number: int) -> None:
            while not stop.is_set():
                tree(float(counts[number]), f"thread {number}")
                counts[number] += 1
                if counts[number] % 20 == 0:
                    recorder.flush()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()

        def body() -> None:
            for i in range(10):
                tree(-1.0 - i, "child")
            recorder.flush()
            recorder.close()

        assert [child_of(body, "os._exit") for _ in range(6)] == [7] * 6
        stop.set()
        for thread in threads:
            thread.join()
    found = rows(path, "SELECT observation, reward, step_key >> 40 FROM steps ORDER BY step_key")
    for number in range(4):
        mine = [reward for who, reward, _ in found if who == f"thread {number}"]
        assert mine == [float(i) for i in range(counts[number])]
    children = [(writer, reward) for who, reward, writer in found if who == "child"]
    assert len({writer for writer, _ in children}) == 6 and len(children) == 60
    assert rows(path, "SELECT count(*) FROM writers") == [(7,)]


def test_a_script_that_forks_ends_by_itself_however_its_children_do(tmp_path):
    """The interpreter's own end, which pytest cannot have: atexit in parent and child."""
    import subprocess
    import sys

    path = tmp_path / "runs.db"
    script = f"""
import os, sys, rubriscope as rs
class Echo(rs.Rubric):
    def forward(self, action, observation):
        return action
tree = rs.Sequential(Echo())
recorder = rs.record({str(path)!r}, session="script", flush_interval_ms=60000)
recorder.observe(tree)
tree(0.0, None)
pids = []
for number in (1, 2, 3):
    pid = os.fork()
    if pid == 0:
        tree(float(number), None)
        if number == 1:
            os._exit(0)
        if number == 2:
            sys.exit(5)
        raise ValueError("on purpose")
    pids.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "[0, 5, 1]\n", done.stderr
    rs.record(path, session="after").close()  # brings in what the child that left by os._exit had accepted
    assert [reward for (reward,) in rows(path, "SELECT reward FROM steps ORDER BY reward")] == [
        0.0,
        1.0,
        2.0,
        3.0,
    ]
