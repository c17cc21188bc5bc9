"""Scores on a device: never waited for, recorded when they arrive.

The CPU plays the device here; where the machine has CUDA, a real one does too.
"""

from __future__ import annotations

import math

import pytest
import rubriscope as rs
import torch
from engine_support import Echo, Value
from rubriscope import _device, _tensors

DEVICES = ["cpu as a device", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    """A device whose tensors are not to be read in a call."""
    if request.param == "cuda":
        return torch.device("cuda")
    monkeypatch.setattr(_tensors.is_readable, "__code__", (lambda tensor: False).__code__)
    return torch.device("cpu")


class OnDevice(rs.Rubric):
    def __init__(self, device, value=None):
        super().__init__()
        self.device = device
        self.value = value

    def forward(self, action, observation):
        return torch.tensor(
            action if self.value is None else self.value, device=self.device, dtype=torch.float64
        )


def test_numbers_arrive_in_order(watch, device):
    tree = rs.WeightedSum([OnDevice(device), rs.Gate(OnDevice(device), 0.5), Value(1.0)], [0.5, 0.25, 0.25])
    watched = watch(tree)
    actions = [i / 64 for i in range(64)]
    scores = [tree(action, None) for action in actions]
    assert all(isinstance(score, torch.Tensor) for score in scores)
    for action, score, s in zip(actions, scores, watched.snapshots(), strict=True):
        gated = action if action >= 0.5 else 0.0
        assert s.scores == {
            "root": float(score),
            "rubric_0": action,
            "rubric_1": gated,
            "rubric_1.rubric": action,
            "rubric_2": 1.0,
        }
        assert s.reward == 0.5 * action + 0.25 * gated + 0.25
        assert set(s.statuses.values()) == {"scored"}
        assert s.action == action
        assert s.step == round(action * 64)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda d: rs.Sequential(OnDevice(d, 1.0), OnDevice(d, 0.5)), 0.5),
        (lambda d: rs.Sequential(OnDevice(d, 0.0), OnDevice(d, 0.5)), 0.0),
        (lambda d: rs.Sequential(OnDevice(d, 0.0), Value(0.5)), 0.0),
        (lambda d: rs.Sequential(Value(0.0), OnDevice(d, 0.5)), 0.0),
        (lambda d: rs.Gate(OnDevice(d, math.nan), 0.0), 0.0),
        (lambda d: rs.Gate(OnDevice(d, math.inf), 0.0), 0.0),
        (lambda d: rs.Gate(OnDevice(d, 0.5), 0.5), 0.5),
        (lambda d: rs.WeightedSum([OnDevice(d, 0.5), OnDevice(d, math.nan)], [1.0, 0.0]), 0.5),
        (lambda d: rs.WeightedSum([Value(1.0), OnDevice(d, 0.5)], [0.5, 0.5]), 0.75),
    ],
)
def test_containers_combine_without_reading(watch, device, make, expected):
    tree = make(device)
    watched = watch(tree)
    assert float(tree(1, 2)) == expected
    assert watched.only().scores["root"] == expected


def test_what_arrives_may_be_no_score(watch, device):
    tree = rs.WeightedSum(
        [Value(0.5), OnDevice(device, math.nan), OnDevice(device, [1.0, 2.0])], [1.0, 0.0, 0.0]
    )
    watched = watch(tree)
    assert tree(1, 2) == 0.5
    s = watched.only()
    assert s.statuses == {"root": "scored", "rubric_0": "scored", "rubric_1": "failed", "rubric_2": "failed"}
    assert "nan" in s.reasons["rubric_1"] and "(2,)" in s.reasons["rubric_2"]


def test_gradients_survive(watch, device):
    weight = torch.tensor(0.5, device=device, requires_grad=True)

    class Learned(rs.Rubric):
        def forward(self, action, observation):
            return weight * action

    tree = rs.WeightedSum([rs.Gate(Learned(), 0.0), Value(1.0)], [0.5, 0.5])
    watched = watch(tree)
    tree(3.0, None).backward()
    assert float(weight.grad) == 1.5
    assert watched.only().scores["rubric_0.rubric"] == 1.5


def test_annotations_positions_and_failures(watch, device):
    tree = rs.Sequential(OnDevice(device, 1.0), Echo())
    watched = watch(tree)
    with watched.recorder.episode("e", step=3, group_id=4):
        watched.recorder.annotate(k=1)
        tree(0.5, None)
    with pytest.raises(TypeError):
        rs.WeightedSum([tree, Value(None)], [0.5, 0.5])(0.5, None)
    first = watched.snapshots()[0]
    assert (first.episode_id, first.step, first.group_id) == ("e", 3, 4)
    assert first.metadata == {"k": 1}


def test_async_device_scores(watch, device):
    import asyncio

    class Later(OnDevice):
        async def forward(self, action, observation):
            await asyncio.sleep(0)
            return torch.tensor(action, device=self.device)

    tree = rs.WeightedSum([Later(device), rs.Sequential(Later(device), Value(1.0))], [0.5, 0.5])
    watched = watch(tree)

    async def many():
        return await asyncio.gather(*(tree((i + 1) / 32, None) for i in range(20)))

    scores = asyncio.run(many())
    assert [float(score) for score in scores] == pytest.approx([0.5 * (i + 1) / 32 + 0.5 for i in range(20)])
    for s in watched.snapshots():
        assert s.scores["rubric_0"] == s.scores["rubric_1.rubric_0"] == s.action
        assert s.reward == pytest.approx(0.5 * s.action + 0.5)


class SlowEvent:
    """Stands for copies that have not arrived."""

    def __init__(self, gate):
        self.gate = gate

    def synchronize(self):
        assert self.gate.wait(30)


@pytest.fixture
def slow(monkeypatch):
    """Arrivals wait for the returned event, as those of a busy device do."""
    import threading

    gate = threading.Event()
    made = _device._Arrival.__init__

    def init(self, *arguments):
        made(self, *arguments)
        self.events.append(SlowEvent(gate))

    monkeypatch.setattr(_device._Arrival, "__init__", init)
    monkeypatch.setattr(_tensors.is_readable, "__code__", (lambda tensor: False).__code__)
    yield gate
    gate.set()


def test_a_call_does_not_wait_and_flush_does(watch, slow):
    tree = rs.Gate(OnDevice(torch.device("cpu")), 0.0)
    watched = watch(tree)
    for i in range(10):
        tree(i / 16, None)
    assert watched.recorder.stats().accepted == 0
    with pytest.raises(TimeoutError, match="device"):
        watched.recorder.flush(0.1)
    slow.set()
    assert [s.reward for s in watched.snapshots()] == [i / 16 for i in range(10)]


def test_positions_are_those_of_the_call(watch, slow):
    """Its numbers come late: a snapshot still belongs where its call was made."""
    tree = rs.Gate(OnDevice(torch.device("cpu")), 0.0)
    watched = watch(tree)
    for episode in ("a", "b"):
        with watched.recorder.episode(episode, group_id=7):
            watched.recorder.annotate(of=episode)
            tree(0.5, episode)
            tree(0.75, episode)
    watched.recorder.step = 99
    slow.set()
    found = [(s.observation, s.episode_id, s.group_id, s.step, s.metadata) for s in watched.snapshots()]
    assert found == [
        ("a", "a", 7, 0, {"of": "a"}),
        ("a", "a", 7, 1, {}),
        ("b", "b", 7, 0, {"of": "b"}),
        ("b", "b", 7, 1, {}),
    ]


def test_close_waits_for_the_device(watch, slow):
    import threading

    tree = rs.Gate(OnDevice(torch.device("cpu")), 0.0)
    watched = watch(tree)
    tree(0.5, None)
    threading.Timer(0.1, slow.set).start()
    watched.recorder.close()
    assert [s.reward for s in watched.sink.snapshots] == [0.5]


def test_captures_are_those_of_the_call(watch, slow):
    tree = rs.Gate(OnDevice(torch.device("cpu"), 0.5), 0.0)
    watched = watch(tree)
    action = ["before"]
    tree(action, None)
    action[0] = "changed after the call"
    slow.set()
    assert watched.only().action == "['before']"
