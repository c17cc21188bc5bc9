"""HausdorffRubric and PhysicsResidualRubric: what they score, in C++ and through torch, and in trees."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from typing import Any

import pytest
import rubriscope as rs
import torch
from rubriscope.ops import hausdorff, physics
from scipy.spatial.distance import directed_hausdorff

TARGET = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])


def peer(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(max(directed_hausdorff(x, y)[0], directed_hausdorff(y, x)[0]))


def points(count: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Python(rs.Rubric):
    """A leaf that keeps the tree it is in from being called without Python."""

    def forward(self, action: Any, observation: Any) -> float:
        return 1.0


# ---- Hausdorff


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_the_score_is_the_stated_map_of_the_distance(shape: Any, dtype: torch.dtype) -> None:
    x, y = points(50, 1, dtype), points(70, 2, dtype)
    distance = peer(x, y)
    expected = 1 - distance / 2 if shape == "linear" else math.exp(-distance / 2)
    for rubric in (rs.HausdorffRubric(y, 2.0, shape=shape), rs.HausdorffRubric(limit=2.0, shape=shape)):
        assert rubric(x, y) == pytest.approx(expected, rel=1e-6)
        assert rubric.last_score == rubric(x, y)


def test_known_distances() -> None:
    rubric = rs.HausdorffRubric(TARGET, limit=4.0)
    assert rubric(TARGET, None) == 1.0
    assert rubric(TARGET + torch.tensor([0.0, 1.0]), None) == pytest.approx(0.75)
    assert rubric(TARGET + 100, None) == 0.0
    assert rubric(torch.empty(0, 2), None) == 0.0
    assert math.isnan(rubric(torch.full((2, 2), math.nan), None))


@pytest.mark.parametrize("reduction", ["max", "percentile", "mean", "modified"])
@pytest.mark.parametrize("directed", [False, True])
def test_reductions_are_those_of_the_operator(reduction: Any, directed: bool) -> None:
    x, y = points(40, 3), points(60, 4)
    rubric = rs.HausdorffRubric(y, 3.0, reduction=reduction, percentile=80.0, directed=directed)
    distance = hausdorff.distance(x, y, reduction=reduction, percentile=80.0, directed=directed)
    assert rubric(x, None) == pytest.approx(1 - float(distance) / 3, rel=1e-6)


def test_what_cpp_does_not_take_goes_through_torch() -> None:
    x, y = points(40, 5), points(30, 6)
    rubric = rs.HausdorffRubric(y, 2.0)
    expected = rubric(x, None)
    assert rubric(x.t().contiguous().t(), None) == pytest.approx(expected)  # not contiguous
    assert rubric(torch.nn.Parameter(x), None) == pytest.approx(expected)  # a subclass
    assert rubric(x, {"any": "observation"}) == expected
    half = rs.HausdorffRubric(y.half(), 2.0)(x.half(), None)
    assert half == pytest.approx(expected, abs=2e-3)


def test_a_batch_is_scored_in_one_launch() -> None:
    sets = [points(n, n) for n in (5, 40, 40, 17)]
    rubric = rs.HausdorffRubric(points(30, 9), 2.0)
    scores = rubric.batch(sets, [None] * 4)
    assert scores.dtype == torch.float64
    assert scores.tolist() == pytest.approx([rubric(x, None) for x in sets])
    ours = rs.HausdorffRubric(limit=2.0)
    assert ours.batch(sets, sets[::-1]).tolist() == pytest.approx(
        [ours(x, y) for x, y in zip(sets, sets[::-1], strict=True)]
    )
    assert rubric.batch([], []).shape == (0,)


def test_in_a_tree_with_and_without_python() -> None:
    y = points(30, 6)
    near, far = rs.HausdorffRubric(y, 0.5), rs.HausdorffRubric(y, 2.0)
    native = rs.WeightedSum([far, rs.Gate(near, 0.1)], [0.5, 0.5])
    mixed = rs.WeightedSum([far, rs.Gate(near, 0.1), Python()], [0.5, 0.5, 0.0])
    for x in (points(40, 7), y, y + 5, points(12, 8).t().contiguous().t()):
        assert native(x, None) == mixed(x, None)


def test_without_the_gil_other_threads_run() -> None:
    """A tree of native rubrics holds the interpreter up for a moment only, however long it scores."""
    x, y = torch.rand(3000, 30), torch.rand(3000, 30)
    rubric = rs.HausdorffRubric(y, 10.0)
    ticks, stop = 0, threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1

    rubric(x, None)
    thread = threading.Thread(target=tick)
    thread.start()
    before = ticks
    for _ in range(5):
        rubric(x, None)
    during = ticks - before
    stop.set()
    thread.join()
    assert during > 1000


def test_wrong_arguments_say_so() -> None:
    with pytest.raises(ValueError, match="limit is 0"):
        rs.HausdorffRubric(TARGET, 0.0)
    with pytest.raises(ValueError, match="shape is 'round'"):
        rs.HausdorffRubric(TARGET, shape="round")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction is 'sum'"):
        rs.HausdorffRubric(TARGET, reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"target has shape \(3,\)"):
        rs.HausdorffRubric(torch.zeros(3))
    with pytest.raises(TypeError, match="target is list"):
        rs.HausdorffRubric([[0.0]])  # type: ignore[arg-type]
    rubric = rs.HausdorffRubric(TARGET)
    with pytest.raises(TypeError, match="action is a str"):
        rubric("text", None)
    with pytest.raises(ValueError, match=r"y has shape|coordinates|expected"):
        rubric(torch.zeros(4, 3), None)
    with pytest.raises(TypeError, match="observation is a NoneType"):
        rs.HausdorffRubric()(TARGET, None)


def test_copies_and_state() -> None:
    rubric = rs.HausdorffRubric(TARGET, 4.0, reduction="mean", shape="exponential")
    x = TARGET + 0.5
    for other in (copy.deepcopy(rubric), pickle.loads(pickle.dumps(rubric))):
        assert other(x, None) == rubric(x, None)
    fresh = rs.HausdorffRubric(TARGET)
    fresh.load_state_dict(rubric.state_dict())
    assert fresh(x, None) == rubric(x, None)


def test_scores_are_recorded(watch: Any) -> None:
    tree = rs.WeightedSum([rs.HausdorffRubric(TARGET, 4.0), rs.HausdorffRubric(TARGET, 2.0)], [0.5, 0.5])
    watching = watch(tree)
    tree(TARGET + torch.tensor([0.0, 1.0]), None)
    tree(torch.full((2, 2), math.nan), None)
    first, second = watching.snapshots()
    assert first.scores == pytest.approx({"root": 0.625, "rubric_0": 0.75, "rubric_1": 0.5})
    assert set(second.statuses.values()) == {"failed"}


# ---- residuals


def field(n: int = 16, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.arange(n, dtype=dtype) * (2 * math.pi / n)
    return torch.sin(x)[:, None] * torch.cos(x)[None, :]


HEAT: dict[str, Any] = {"pde": "heat", "spacing": (0.4, 0.4), "dt": 0.1, "params": {"alpha": 0.3}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["linear", "exponential"])
def test_the_score_is_the_stated_map_of_the_residual(shape: Any, dtype: torch.dtype) -> None:
    now, new = field(dtype=dtype), 0.9 * field(dtype=dtype)
    r = float(physics.fd_residual_loss((now, new), **HEAT)) ** 0.5
    expected = 1 - r / 5 if shape == "linear" else math.exp(-r / 5)
    rubric = rs.PhysicsResidualRubric(limit=5.0, shape=shape, **HEAT)
    for _ in range(3):  # the first call makes the program, the others need no Python
        assert rubric((now, new), None) == pytest.approx(expected, rel=1e-5)


def test_a_perfect_field_scores_one() -> None:
    u = field()
    f = physics.fd_residual((u, torch.zeros_like(u)), "poisson", (0.4, 0.4))
    rubric = rs.PhysicsResidualRubric("poisson", (0.4, 0.4), 1.0)
    assert rubric((u, f), None) == pytest.approx(1.0, abs=1e-12)
    assert rubric((u, f), None) == pytest.approx(1.0, abs=1e-12)
    assert rubric((u, f + 0.25), None) == pytest.approx(0.75)


def test_a_prediction_after_an_observed_state() -> None:
    now, new = field(), 0.9 * field()
    both = rs.PhysicsResidualRubric(limit=5.0, **HEAT)
    observed = rs.PhysicsResidualRubric(limit=5.0, observed=True, **HEAT)
    for _ in range(2):
        assert observed(new, now) == both((now, new), None)


def test_other_grids_and_tensors_as_parameters() -> None:
    rubric = rs.PhysicsResidualRubric(limit=5.0, **HEAT)
    with_tensor = rs.PhysicsResidualRubric(
        limit=5.0, **{**HEAT, "params": {"alpha": torch.tensor(0.3, dtype=torch.float64)}}
    )
    for n in (16, 16, 24, 24, 16, 12):
        pair = (field(n), 0.9 * field(n))
        assert rubric(pair, None) == pytest.approx(with_tensor(pair, None), rel=1e-12)


def test_several_components_and_boundaries() -> None:
    arguments: dict[str, Any] = {
        "pde": "navier_stokes",
        "spacing": (0.4, 0.4),
        "params": {"nu": 0.1},
        "bc": "dirichlet",
    }
    fields = (field(), field().t().contiguous(), field() ** 2)
    r = float(physics.fd_residual_loss(fields, **arguments)) ** 0.5
    rubric = rs.PhysicsResidualRubric(limit=10.0, **arguments)
    for _ in range(2):
        assert rubric(fields, None) == pytest.approx(1 - r / 10, rel=1e-12)


def test_a_batch_of_fields_is_one_launch() -> None:
    rubric = rs.PhysicsResidualRubric(limit=5.0, **HEAT)
    pairs = [(field(), k * field()) for k in (0.7, 0.9, 1.0)]
    assert rubric.batch(pairs, [None] * 3).tolist() == pytest.approx([rubric(p, None) for p in pairs])


def test_wrong_equations_and_fields_say_so() -> None:
    with pytest.raises((KeyError, ValueError), match="heat"):
        rs.PhysicsResidualRubric("hat", 0.1)
    with pytest.raises(ValueError, match="limit is -1"):
        rs.PhysicsResidualRubric("heat", 0.1, -1.0)
    rubric = rs.PhysicsResidualRubric(limit=5.0, **HEAT)
    with pytest.raises(TypeError, match="a field is a str"):
        rubric("text", None)
    with pytest.raises(ValueError):
        rubric((field(), field(24)), None)


def test_pickled_after_a_call() -> None:
    rubric = rs.PhysicsResidualRubric(limit=5.0, **HEAT)
    pair = (field(), 0.9 * field())
    score = rubric(pair, None)
    assert pickle.loads(pickle.dumps(rubric))(pair, None) == score


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_score_stays_on_its_device() -> None:
    x = TARGET.cuda()
    score = rs.HausdorffRubric(TARGET, 4.0)(x, None)
    assert isinstance(score, torch.Tensor) and score.is_cuda
    assert float(score) == 1.0
