"""rs.adapters.ray on a real local Ray: batches in order, actors as writers of one session, failures."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time

import pytest
import ray
import rubriscope as rs
import torch
from engine_support import AsyncEcho, Collect, Echo
from rubriscope.adapters.ray import RayScorer
from rubriscope.cli.app import run


class Picky(rs.Rubric):
    """Fails for negative actions, by an exception with state of its own."""

    class Refused(ValueError):
        def __init__(self, value: float) -> None:
            super().__init__(f"{value} is refused")
            self.value = value

        def __reduce__(self):
            return Picky.Refused, (self.value,)

    def forward(self, action: float, observation: object) -> float:
        if action < 0:
            raise Picky.Refused(action)
        time.sleep(float(observation or 0))
        return action


class Unpicklable(rs.Rubric):
    def forward(self, action: float, observation: object) -> float:
        raise type("LocalError", (OSError,), {"__reduce__": lambda self: (_refuse, ())})("cannot be sent")


def _refuse() -> None:
    raise RuntimeError("this cannot be made again")


class Vector(rs.Rubric):
    """Scores whole batches."""

    def forward(self, action: float, observation: float) -> float:
        return action + observation

    def forward_batch(self, actions: list[float], observations: list[float]) -> torch.Tensor:
        return torch.tensor(actions, dtype=torch.float64) + torch.tensor(observations, dtype=torch.float64)


class Kills(rs.Rubric):
    """Ends its process at an action of -1."""

    def forward(self, action: float, observation: object) -> float:
        if action == -1:
            os.kill(os.getpid(), signal.SIGKILL)
        return action


def make_echo() -> rs.Rubric:
    return rs.Sequential(Echo())


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two CPUs, little memory, no dashboard and no reports; paths of sockets must be short."""
    folder = tempfile.mkdtemp(prefix="rs-ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        here = os.path.dirname(__file__)
        patch.setenv("PYTHONPATH", os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DISABLE_DOCKER_CPU_WARNING", "1")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 << 20,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def test_actors_write_one_session_and_the_film_has_the_pairs_in_order(tmp_path, capsys):
    path = tmp_path / "runs.db"
    with RayScorer(rs.Sequential(Echo()), target=path, session="pool") as scorer:
        about = scorer.actors()
        assert len({one["writer"] for one in about}) == 2 == scorer.num_actors
        actions = [float(i) for i in range(100)]
        scores = scorer.batch(actions, ["text"] * 100)
        assert scores.dtype == torch.float64 and scores.tolist() == actions
        assert scorer.batch([], []).shape == (0,)
        assert scorer.batch([100.0], ["text"]).tolist() == [100.0]
        assert scorer.flush() == 101
        scorer.recorder.log({"mean": scores.mean().item()}, step=100)
    with rs.Film(path) as film:
        (session,) = film.sessions()
        assert (session.name, session.steps, session.ranks) == ("pool", 101, (0, 1))
        found = list(film.snapshots())
        assert [s.reward for s in found] == [float(i) for i in range(101)]
        assert [s.step for s in found] == list(range(101))
        assert {s.rank for s in found} == {0, 1}
        writers = {s.id.rpartition(":")[0]: s.rank for s in found}
        assert writers == {one["writer"]: rank for rank, one in enumerate(about)}
        assert session.closed is not None
    assert run(["verify", str(path)]) == 0
    capsys.readouterr()


def test_a_recorder_of_ones_own_and_labels(tmp_path):
    path = tmp_path / "runs.db"
    with (
        rs.record(path, session="grpo") as recorder,
        RayScorer(make_echo, recorder=recorder, chunk_size=3, num_actors=1) as scorer,
    ):
        recorder.step = 7
        recorder.episode_id = "train"
        scores = scorer.batch(
            [float(i) for i in range(8)],
            [None] * 8,
            group_ids=[i // 4 for i in range(8)],
            sample_indices=[i % 4 for i in range(8)],
        )
        assert scores.tolist() == [float(i) for i in range(8)]
        scorer.batch([10.0, 11.0], [None, None], step=[8, 9], episode="heldout")
    with rs.Film(path) as film:
        found = sorted(
            (s.episode_id, s.step, s.group_id, s.sample_index, s.reward) for s in film.snapshots("grpo")
        )
    train = [("train", 7, i // 4, i % 4, float(i)) for i in range(8)]
    assert found == [("heldout", 8, None, None, 10.0), ("heldout", 9, None, None, 11.0), *train]


def test_whole_batches(tmp_path):
    path = tmp_path / "runs.db"
    rubric = rs.WeightedSum([Vector(), Vector()], [0.5, 0.5])
    actions, observations = [float(i) for i in range(20)], [0.5] * 20
    with RayScorer(rubric, target=path, num_actors=1) as scorer:
        assert scorer.batch(actions, observations).tolist() == rubric.batch(actions, observations).tolist()
    with rs.Film(path) as film:
        assert [(s.step, s.reward) for s in film.snapshots()] == [(i, i + 0.5) for i in range(20)]


def test_asynchronous_rubrics_keep_their_places(tmp_path):
    path = tmp_path / "runs.db"
    with RayScorer(AsyncEcho(), target=path, num_actors=1) as scorer:
        actions = [float(i) for i in range(20)]
        # The later a pair, the sooner its call ends.
        assert scorer.batch(actions, [20 - i for i in range(20)]).tolist() == actions
    with rs.Film(path) as film:
        assert sorted((s.step, s.reward) for s in film.snapshots()) == [(i, float(i)) for i in range(20)]


def test_without_a_recorder_by_name():
    with RayScorer("test_ray:make_echo", num_actors=1) as scorer:
        assert scorer.recorder is None
        assert scorer.batch([1.0, 2.0], ["a", "b"]).tolist() == [1.0, 2.0]
        assert scorer.actors()[0]["writer"] is None


def test_what_a_rubric_raises_comes_through(tmp_path):
    path = tmp_path / "runs.db"
    with RayScorer(Picky(), target=path, chunk_size=1) as scorer:
        pauses = [2.0] + [0.0] * 20  # a slow chunk does not hold the others
        assert scorer.batch([float(i) for i in range(21)], pauses).tolist() == [float(i) for i in range(21)]
        scorer.flush()
        series = rs.Film(path).scores("root")
        assert (series.rank == series.rank[series.step == 0][0]).sum() < 10
        actions = [float(i) for i in range(20)]
        actions[7] = -7.0
        actions[18] = -18.0
        with pytest.raises(Picky.Refused, match=r"-7\.0 is refused") as caught:
            scorer.batch(actions, [0] * 20)
        assert caught.value.value == -7.0
        assert "while scoring pair 7 in actor" in caught.value.__notes__[0]
        assert "in forward" in caught.value.__notes__[0]
        assert scorer.batch([1.0], [0]).tolist() == [1.0]  # the pool goes on
        scorer.flush()
    with rs.Film(path) as film:
        failed = [s for s in film.snapshots() if s.reward is None]
        assert -7.0 in [s.action for s in failed] and "is refused" in failed[0].reasons["root"]
        assert [s.step for s in failed if s.action == -7.0] == [28]


def test_an_exception_that_cannot_be_sent_comes_as_text():
    with (
        RayScorer(Unpicklable(), num_actors=1) as scorer,
        pytest.raises(RuntimeError, match="LocalError: cannot be sent"),
    ):
        scorer.batch([1.0], [None])


def test_an_actor_that_dies_is_replaced_and_its_records_recovered(tmp_path):
    path = tmp_path / "runs.db"
    with RayScorer(Kills(), target=path, session="dies", num_actors=1) as scorer:
        (first,) = scorer.actors()
        with pytest.raises(RuntimeError, match=r"actor 0 died while it scored the pairs from 3 on"):
            scorer.batch([0.0, 1.0, 2.0, -1.0], [None] * 4)
        assert scorer.batch([5.0, 6.0], [None] * 2, step=[5, 6]).tolist() == [5.0, 6.0]
        (second,) = scorer.actors()
        assert second["writer"] != first["writer"]
    rs.record(path, session="after").close()
    with rs.Film(path) as film:
        assert [s.reward for s in film.snapshots("dies")] == [0.0, 1.0, 2.0, 5.0, 6.0]
        assert film.session("dies").writers == 3  # and who made the session


def test_too_few_cpus_are_said():
    with pytest.raises(TimeoutError, match=r"of 3 actors started within 3 s; free in the cluster"):
        RayScorer(Echo(), num_actors=3, start_timeout_s=3)
    with RayScorer(Echo(), num_actors=1):
        pass  # what was started has been ended


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rubric": 5}, TypeError, "a function that makes one"),
        ({"recorder": "runs.db"}, TypeError, "a path is a target"),
        ({"num_actors": 0}, ValueError, "1 or more"),
        ({"chunk_size": 0}, ValueError, "1 or more"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        RayScorer(**{"rubric": Echo(), **arguments})


def test_wrong_batches(tmp_path):
    recorder = rs.record(sinks=[Collect()], journal_dir=tmp_path)
    with pytest.raises(ValueError, match="not both"):
        RayScorer(Echo(), recorder=recorder, target="runs.db")
    recorder.close()
    scorer = RayScorer(Echo(), num_actors=1)
    with pytest.raises(ValueError, match="got 1 and 2"):
        scorer.batch([1.0], [1, 2])
    with pytest.raises(ValueError, match="group_ids has 1 values for 2 pairs"):
        scorer.batch([1.0, 2.0], [1, 2], group_ids=[1])
    scorer.close()
    scorer.close()
    with pytest.raises(ValueError, match="closed"):
        scorer.batch([1.0], [1])


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"rubriscope\[ray\]"):
        RayScorer(Echo())
