"""A session scored again: what comes back exactly, what cannot, places kept, failures contained."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import rubriscope as rs
import torch
from engine_support import AsyncEcho, Echo
from rubriscope.cli.app import run
from rubriscope.rescoring import digest


class Length(rs.Rubric):
    """How long the action is, over ten."""

    def __init__(self, scale: float = 10.0) -> None:
        super().__init__()
        self.scale = scale

    def state_dict(self):
        return {"scale": self.scale}

    def forward(self, action, observation):
        return len(str(action)) / self.scale


class Sees(rs.Rubric):
    """Notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, object]] = []

    def forward(self, action, observation):
        self.seen.append((action, observation))
        return 1.0


class SeesBatches(Sees):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward_batch(self, actions, observations):
        self.sizes.append(len(actions))
        self.seen += zip(actions, observations, strict=True)
        if "fail" in actions:
            raise ValueError("the batch has a fail")
        return torch.ones(len(actions), dtype=torch.float64)


class Fussy(rs.Rubric):
    def forward(self, action, observation):
        if action == "fail":
            raise ValueError("no such action")
        return 0.25


EXACT = [
    ("text", "an observation"),
    ("", 0),
    (7, -3),
    (2**70, 1),
    (0.1, 1e300),
    (2.0, -0.0),
    (math.inf, "ends in …"),
    ("ünïcödé \n", None),
    (True, {"a": [1, 2.5, None], "b": ("x", b"y")}),
    ([], ()),
]


class Spaced:
    """Its repr is read by Python, but is not that of what is read."""

    def __repr__(self) -> str:
        return "[1,  2]"


LOST = [("x" * 5000, 1), (1, torch.zeros(2)), (object(), 1), (Spaced(), 1)]


@pytest.fixture(params=["runs.db", "run.jsonl", "postgresql"])
def target(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return str(tmp_path / request.param)


def film_of(target, pairs, session="old", rubric=None, **options) -> rs.Film:
    with rs.record(target, session=session) as recorder:
        rubric = rubric or Length()
        recorder.observe(rubric, **options)
        for number, pair in enumerate(pairs):
            recorder.group_id, recorder.sample_index = number // 2, number % 2
            with recorder.episode(f"ep{number // 4}", step=10 + number):
                rubric(*pair)
    return rs.Film(target)


def test_what_was_captured_comes_back_exactly(target):
    rubric = Sees()
    # JSON has no infinity: in a .jsonl file it is null, as a capture that was not made.
    pairs = [pair for pair in EXACT if not (target.endswith("jsonl") and math.inf in pair)]
    with film_of(target, [*pairs, *LOST]) as film:
        progress: list[tuple[int, int]] = []
        result = film.rescore("old", rubric, "new", batch_size=4, progress=lambda *at: progress.append(at))
        assert [(type(a), repr(a)) for a, _ in rubric.seen] == [(type(a), repr(a)) for a, _ in pairs]
        assert [(type(o), repr(o)) for _, o in rubric.seen] == [(type(o), repr(o)) for _, o in pairs]
        assert (result.snapshots, result.failed) == (len(pairs), 0)
        assert result.left_out == {"cut": 1, "repr of an object": 3}
        assert progress[-1] == (len(pairs) + 4, len(pairs) + 4) and len(progress) > 2
        old, new = film.session("old"), film.session("new")
        assert new.uuid == result.session and new.metadata["rescored"]["session"] == old.uuid
        assert new.metadata["rescored"]["rubric"]["sha256"] == digest(Sees())
        before = {s.step: s for s in film.snapshots("old")}
        after = list(film.snapshots("new"))
        assert [s.step for s in after] == [10 + n for n in range(len(pairs))]
        for snapshot in after:
            one = before[snapshot.step]
            for name in ("episode_id", "group_id", "sample_index", "action", "observation", "captures"):
                assert getattr(snapshot, name) == getattr(one, name), name
            assert snapshot.reward == 1.0
        compared = film.compare("old", "new")
        assert compared["root"].pairs == len(pairs)
        # A second time, from the rescored one: nothing more is lost.
        assert film.rescore("new", Length(), "newer").left_out == {}
        newer = {s.step: s.reward for s in film.snapshots("newer")}
        assert newer == {step: before[step].reward for step in newer}


def test_strict_refuses_before_anything_is_recorded(tmp_path):
    with film_of(tmp_path / "runs.db", [("fine", 1), *LOST]) as film:
        with pytest.raises(
            ValueError, match="4 snapshots cannot be replayed, the first at episode ep0 step 11"
        ):
            film.rescore("old", Length(), "new", strict=True)
        assert [s.name for s in film.sessions()] == ["old"]
        assert film.rescore("old", Length(), "new", strict=True, stop=11).snapshots == 1


def test_captures_that_were_not_made(tmp_path):
    with film_of(tmp_path / "runs.db", [("a", "b")] * 3, capture="none") as film:
        result = film.rescore("old", Length(), "new")
        assert (result.snapshots, result.left_out) == (0, {"not captured": 3})


def test_restore_makes_objects_of_texts(tmp_path):
    pairs = [({"answer": n}, {"done": n == 2}) for n in range(3)]
    with film_of(tmp_path / "runs.db", pairs, capture=json.dumps) as film:
        asked: list[str] = []

        def restore(name: str, text: str):
            asked.append(name)
            value = json.loads(text)
            if value == {"answer": 1}:
                raise LookupError("not this one")
            return value

        rubric = Sees()
        result = film.rescore("old", rubric, "new", restore=restore, capture=json.dumps)
        assert rubric.seen == [pairs[0], pairs[2]]
        assert asked == ["action", "observation", "action", "action", "observation"]
        assert result.left_out == {"not restored": 1}
        with pytest.raises(ValueError, match="raised LookupError: not this one"):
            film.rescore("old", rubric, "newer", restore=restore, strict=True)
        assert [s.action for s in film.snapshots("new")] == [json.dumps(pairs[0][0]), json.dumps(pairs[2][0])]


def test_failures_are_recorded_and_counted(tmp_path):
    with film_of(tmp_path / "runs.db", [("a", 1), ("fail", 2), ("b", 3), ("fail", 4), ("c", 5)]) as film:
        result = film.rescore("old", Fussy(), "new", batch_size=3)
        assert (result.snapshots, result.failed) == (5, 2)
        assert result.first_failure == "episode ep0 step 11: ValueError: no such action"
        assert [s.reward for s in film.snapshots("new")] == [0.25, None, 0.25, None, 0.25]
        assert [s.step for s in film.snapshots("new")] == [10, 11, 12, 13, 14]


def test_batches(tmp_path):
    pairs = [(f"a{n}", n) for n in range(10)]
    with film_of(tmp_path / "runs.db", pairs) as film:
        rubric = SeesBatches()
        result = film.rescore("old", rs.Sequential(rubric), "new", batch_size=4)
        assert rubric.sizes == [4, 4, 2] and rubric.seen == pairs and result.snapshots == 10
        assert [(s.step, s.group_id, s.sample_index) for s in film.snapshots("new")] == [
            (10 + n, n // 2, n % 2) for n in range(10)
        ]
    with film_of(tmp_path / "fails.db", [("a", 1), ("fail", 2), ("b", 3)]) as film:
        result = film.rescore("old", SeesBatches(), "new", batch_size=2)
        assert (result.snapshots, result.failed) == (3, 2)  # its batch fails with it
        assert [s.reward for s in film.snapshots("new")] == [None, None, 1.0]


def test_asynchronous_rubrics(tmp_path):
    # The first calls are the last to end.
    with film_of(tmp_path / "runs.db", [(float(n), 20 - n) for n in range(20)]) as film:
        assert film.rescore("old", AsyncEcho(), "new").snapshots == 20
        found = {s.step: (s.reward, s.episode_id) for s in film.snapshots("new")}
        assert found == {10 + n: (float(n), f"ep{n // 4}") for n in range(20)}


class Trajectory(rs.TrajectoryRubric):
    def score_trajectory(self, trajectory):
        return sum(action for action, _ in trajectory)

    def compute_step_rewards(self):
        return []


def test_trajectories_are_replayed_one_after_the_other(tmp_path, monkeypatch):
    path = tmp_path / "runs.db"
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        with rs.record(path, session="old", session_id="one") as recorder:
            tree = Echo()
            recorder.observe(tree)
            for step in range(6):  # two episodes, interleaved
                with recorder.episode(f"ep{step % 2}", step=step):
                    tree(float(10**rank), {"done": step >= 4})
    monkeypatch.setenv("RANK", "0")
    with rs.Film(path) as film:
        result = film.rescore("old", Trajectory(), "new")
        assert (result.snapshots, result.left_out) == (12, {})
        ends = [s.reward for s in film.snapshots("new") if s.step >= 4]
        assert sorted(ends) == [3.0, 3.0, 30.0, 30.0]


def test_digests_tell_rubrics_apart():
    assert digest(Length()) == digest(Length())
    assert len({digest(r) for r in (Length(), Length(5.0), Sees(), rs.Sequential(Length()))}) == 4


def test_into_another_recording(tmp_path):
    with film_of(tmp_path / "runs.db", [("a", 1)]) as film:
        result = film.rescore(
            "old", Length(), "new", target=tmp_path / "other.db", metadata={"why": "a test"}
        )
        assert [s.name for s in film.sessions()] == ["old"]
    with rs.Film(tmp_path / "other.db") as other:
        session = other.session(result.session)
        assert session.metadata["rescored"]["target"] == str(tmp_path / "runs.db")
        assert session.metadata["why"] == "a test" and str(tmp_path / "other.db") in result.target


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"rubric": len}, TypeError), ({"batch_size": 0}, ValueError), ({"session": "x"}, KeyError)],
)
def test_wrong_arguments(tmp_path, arguments, error):
    with film_of(tmp_path / "runs.db", [("a", 1)]) as film:
        with pytest.raises(error):
            film.rescore(**{"session": "old", "rubric": Length(), "into": "new", **arguments})
        assert len(film.sessions()) == 1


# ---- the command

REWARDS = """
import json, rubriscope as rs

class Short(rs.Rubric):
    def forward(self, action, observation):
        if action == "fail":
            raise ValueError("on purpose")
        return 0.5

def make():
    return rs.Sequential(Short())

def load(name, text):
    return json.loads(text) if name == "observation" else text

number = -12345
"""


@pytest.fixture
def rewards(tmp_path, monkeypatch):
    name = f"rewards_{os.getpid()}_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(REWARDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    return name


def test_the_command(tmp_path, capsys, rewards):
    path = str(tmp_path / "runs.db")
    film_of(path, [("a", 1), ("b", 2), LOST[0]]).close()
    assert run(["rescore", path, "--session", "old", "--rubric", f"{rewards}:make", "--into", "new"]) == 0
    out = capsys.readouterr().out
    assert "2 snapshots of old rescored into new" in out and "1 snapshot left out: cut" in out
    command = out.splitlines()[-1].split()
    assert command[:2] == ["rubriscope", "compare"] and run(command[1:]) == 0
    assert "paired" in capsys.readouterr().out
    rescore = ["rescore", f"{path}:old", "--rubric", f"{rewards}:Short", "--into", "again", "--json"]
    assert run([*rescore, "--to-target", str(tmp_path / "b.db"), "--to", "11"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["snapshots"], result["left_out"]) == (1, {})
    assert rs.Film(tmp_path / "b.db").session("again").steps == 1
    assert run([*rescore, "--strict"]) == 1
    assert "1 snapshot cannot be replayed" in capsys.readouterr().err
    film_of(path, [("fail", "[1, 2]")], "fails").close()
    assert run(["rescore", path, "-s", "fails", *rescore[2:-1], "--restore", f"{rewards}:load"]) == 1
    assert "raised for 1 snapshot" in capsys.readouterr().out
    assert run(["rescore", path, "-s", "fails", *rescore[2:-1], "--restore", "json:loads"]) == 0
    assert "left out: not restored" in capsys.readouterr().out
    for wrong, said in (
        ("no_such_module:make", "no_such_module"),
        (f"{rewards}:nothing", "nothing"),
        (f"{rewards}:number", "got -12345"),
        (f"{rewards}:json.dumps", "missing 1 required"),
        (rewards, "module:attribute"),
    ):
        assert run(["rescore", path, "-s", "old", "--rubric", wrong, "--into", "x"]) == 2
        assert said in capsys.readouterr().err
