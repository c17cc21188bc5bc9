"""Sequential, Gate, WeightedSum, RubricList, RubricDict: RFC 004's semantics with DESIGN's improvements."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import rubriscope as rs
import torch
from engine_support import AsyncValue, Echo, Mean, Raises, Value, shown

NAN = float("nan")


def called(rubric):
    """A list that grows with every call of a rubric."""
    calls = []
    rubric.register_forward_pre_hook(lambda *_: calls.append(rubric))
    return calls


def test_constructor_signatures():
    parameters = {
        cls: [(p.name, p.kind.name, p.default) for p in inspect.signature(cls).parameters.values()]
        for cls in (rs.Sequential, rs.Gate, rs.WeightedSum, rs.RubricList, rs.RubricDict, rs.LLMJudge)
    }
    empty = inspect.Parameter.empty
    free, only = "POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"
    assert parameters[rs.Sequential] == [("rubrics", "VAR_POSITIONAL", empty)]
    assert parameters[rs.Gate] == [("rubric", free, empty), ("threshold", free, 1.0)]
    assert parameters[rs.WeightedSum] == [("rubrics", free, empty), ("weights", free, empty)]
    assert parameters[rs.RubricList] == [("rubrics", free, None)]
    assert parameters[rs.RubricDict] == [("rubrics", free, None)]
    assert parameters[rs.LLMJudge] == [
        ("prompt_template", free, empty),
        ("client", free, empty),
        ("score_pattern", only, None),
        ("default_score", only, 0.0),
        ("normalize", only, True),
    ]


# ---- Sequential


def test_sequential_gives_the_last_score():
    assert rs.Sequential(Value(0.25), Value(0.75))(1, 2) == 0.75
    assert rs.Sequential(Value(0.25))(1, 2) == 0.25
    assert rs.Sequential()(1, 2) == 1.0


@pytest.mark.parametrize(
    "zero", [0, 0.0, -0.0, False, np.float32(0), torch.tensor(0.0), rs.Score(0, "no")], ids=shown
)
def test_sequential_stops_at_exactly_zero(zero):
    after = Value(0.75)
    calls = called(after)
    score = rs.Sequential(Value(1.0), Value(zero), after)(1, 2)
    assert score == 0 and isinstance(score, float)
    assert calls == []


@pytest.mark.parametrize("not_zero", [1e-300, -0.5, NAN, math.inf, None], ids=shown)
def test_sequential_goes_on_at_anything_else(not_zero):
    assert rs.Sequential(Value(not_zero), Value(0.75))(1, 2) == 0.75


def test_sequential_child_names_len_and_index():
    children = [Value(i) for i in range(12)]
    tree = rs.Sequential(*children)
    assert [name for name, _ in tree.named_children()] == [f"rubric_{i}" for i in range(12)]
    assert len(tree) == 12
    assert tree[0] is children[0] and tree[-1] is children[-1]
    assert tree.rubric_7 is children[7]
    assert list(tree._rubric_list) == children
    with pytest.raises(IndexError):
        tree[12]


def test_sequential_passes_the_object_through():
    score = rs.Score(0.5, "because")
    assert rs.Sequential(Value(1.0), Value(score))(1, 2) is score


@pytest.mark.parametrize("wrong", [None, 1.0, lambda a, o: 1.0, rs.Gate], ids=shown)
def test_containers_refuse_what_is_no_rubric(wrong):
    for make in (
        lambda: rs.Sequential(Value(1), wrong),
        lambda: rs.Gate(wrong),
        lambda: rs.WeightedSum([wrong], [1.0]),
        lambda: rs.RubricList([wrong]),
        lambda: rs.RubricDict({"x": wrong}),
    ):
        with pytest.raises(TypeError, match="rubric"):
            make()


# ---- Gate


@pytest.mark.parametrize(
    ("score", "threshold", "expected"),
    [
        (1.0, 1.0, 1.0),
        (0.999, 1.0, 0.0),
        (0.5, 0.5, 0.5),
        (0.49, 0.5, 0.0),
        (2.0, 1.0, 2.0),
        (-0.5, -1.0, -0.5),
        (True, 1.0, True),
        (0.0, 0.0, 0.0),
        (NAN, 0.5, 0.0),
        (NAN, -math.inf, 0.0),
        (math.inf, 0.5, 0.0),
        (-math.inf, -math.inf, 0.0),
        (None, 0.5, 0.0),
        ("high", 0.5, 0.0),
        (0.5, NAN, 0.0),
        (np.float64(0.5), 0.25, 0.5),
        (rs.Score(NAN), 0.0, 0.0),
    ],
    ids=shown,
)
def test_gate(score, threshold, expected):
    assert rs.Gate(Value(score), threshold)(1, 2) == expected


def test_gate_default_threshold_and_child_name():
    gate = rs.Gate(Value(0.99))
    assert gate.threshold == 1.0
    assert [name for name, _ in gate.named_children()] == ["rubric"]
    assert gate(1, 2) == 0.0


def test_gate_passes_the_object_through():
    score = rs.Score(0.75, "because")
    assert rs.Gate(Value(score), 0.5)(1, 2) is score
    tensor = torch.tensor(0.75, requires_grad=True)
    assert rs.Gate(Value(tensor), 0.5)(1, 2) is tensor
    assert rs.Gate(Value(torch.tensor(NAN)), 0.5)(1, 2) == 0


def test_gate_threshold_can_be_changed_saved_and_loaded():
    gate = rs.Gate(Value(0.5))
    gate.threshold = 0.5
    assert gate(1, 2) == 0.5
    assert gate.state_dict() == {"threshold": 0.5}
    other = rs.Gate(Value(0.5), threshold=0.9)
    other.load_state_dict(gate.state_dict())
    assert other.threshold == 0.5
    other.load_state_dict({})
    assert other.threshold == 0.5


def test_gate_threshold_must_be_a_number():
    with pytest.raises(TypeError):
        rs.Gate(Value(0.5), "high")


def test_gate_runs_the_rubric_that_is_assigned_now():
    gate = rs.Gate(Value(0.2), 0.5)
    gate.rubric = Value(0.75)
    assert gate(1, 2) == 0.75
    del gate.rubric
    with pytest.raises((ValueError, AttributeError), match="rubric"):
        gate(1, 2)


# ---- WeightedSum


def test_weighted_sum():
    tree = rs.WeightedSum([Value(0.5), Value(1.0), Value(0.25)], [0.5, 0.25, 0.25])
    assert tree(1, 2) == 0.5 * 0.5 + 1.0 * 0.25 + 0.25 * 0.25
    assert [name for name, _ in tree.named_children()] == ["rubric_0", "rubric_1", "rubric_2"]


@pytest.mark.parametrize("weights", [[0.5], [0.3, 0.3, 0.4], []], ids=shown)
def test_weighted_sum_lengths_must_match(weights):
    with pytest.raises(ValueError, match=rf"2.*{len(weights)}|{len(weights)}.*2"):
        rs.WeightedSum([Value(1), Value(2)], weights)


@pytest.mark.parametrize(
    "weights", [[0.5, 0.4], [0.5, 0.500002], [1.0, 1.0], [NAN, 1.0], [math.inf, -math.inf]], ids=shown
)
def test_weighted_sum_weights_must_sum_to_one(weights):
    with pytest.raises(ValueError, match="sum"):
        rs.WeightedSum([Value(1), Value(2)], weights)


@pytest.mark.parametrize(
    "weights", [[0.5, 0.5], [1.0, 0.0], [2.0, -1.0], [0.5, 0.5000009], [1 / 3, 2 / 3], [1, 0]], ids=shown
)
def test_weighted_sum_weights_within_a_millionth(weights):
    rs.WeightedSum([Value(1), Value(2)], weights)


def test_weighted_sum_of_nothing():
    with pytest.raises(ValueError):
        rs.WeightedSum([], [])


def test_weighted_sum_weights_are_a_copy():
    tree = rs.WeightedSum([Value(1), Value(2)], [0.25, 0.75])
    tree.weights.append(3.0)
    tree.weights[0] = 9.0
    assert tree.weights == [0.25, 0.75]
    assert tree(1, 2) == 1.75


def test_weighted_sum_takes_any_iterable_of_numbers():
    tree = rs.WeightedSum((Value(1), Value(2)), np.array([0.25, 0.75]))
    assert tree(1, 2) == 1.75


@pytest.mark.parametrize("metric", [NAN, math.inf, None, 123.0, torch.tensor(NAN), rs.Score(NAN)], ids=shown)
def test_weight_zero_is_measured_not_rewarded(metric):
    child = Value(metric)
    calls = called(child)
    tree = rs.WeightedSum([Value(0.5), child], [1.0, 0.0])
    assert tree(1, 2) == 0.5
    assert len(calls) == 1
    assert child.last_score is metric or repr(child.last_score) == repr(metric)


def test_weight_zero_does_not_hide_an_exception():
    with pytest.raises(RuntimeError, match="broken"):
        rs.WeightedSum([Value(0.5), Raises()], [1.0, 0.0])(1, 2)


def test_weighted_sum_hands_nan_to_the_caller():
    assert math.isnan(rs.WeightedSum([Value(NAN), Value(1)], [0.5, 0.5])(1, 2))
    assert rs.WeightedSum([Value(math.inf), Value(1)], [0.5, 0.5])(1, 2) == math.inf


@pytest.mark.parametrize("wrong", [None, "0.5", [1], {}], ids=shown)
def test_weighted_sum_of_what_is_no_number_names_the_child(wrong):
    tree = rs.WeightedSum([Value(1.0), Value(wrong)], [0.5, 0.5])
    with pytest.raises(TypeError, match=rf"rubric_1.*Value.*{type(wrong).__name__}"):
        tree(1, 2)


def test_weighted_sum_of_tensors_is_differentiable_or_a_number():
    tree = rs.WeightedSum([Value(torch.tensor(0.5)), Value(1)], [0.5, 0.5])
    assert float(tree(1, 2)) == 0.75


def test_weighted_sum_every_child_is_called_in_order():
    children = [Value(0.0), Value(0.5), Value(1.0)]
    order = []
    for i, child in enumerate(children):
        child.register_forward_pre_hook(lambda *_, i=i: order.append(i))
    rs.WeightedSum(children, [0.2, 0.3, 0.5])(1, 2)
    assert order == [0, 1, 2]


# ---- RubricList, RubricDict


def test_rubric_list():
    items = rs.RubricList([Value(1), Value(2)])
    items.append(Value(3))
    items.extend([Value(4), Value(5)])
    assert len(items) == 5
    assert [child.value for child in items] == [1, 2, 3, 4, 5]
    assert items[0].value == 1 and items[-1].value == 5
    assert [name for name, _ in items.named_children()] == [f"rubric_{i}" for i in range(5)]
    assert len(rs.RubricList()) == 0
    with pytest.raises(TypeError, match="rubric"):
        items.append(3)
    assert len(items) == 5


def test_rubric_dict():
    named = rs.RubricDict({"syntax": Value(1), "style": Value(2)})
    named["tests"] = Value(3)
    named.update({"style": Value(4)})
    assert len(named) == 3
    assert list(named) == list(named.keys()) == ["syntax", "style", "tests"]
    assert [child.value for child in named.values()] == [1, 4, 3]
    assert [(key, child.value) for key, child in named.items()] == [("syntax", 1), ("style", 4), ("tests", 3)]
    assert "tests" in named and "nothing" not in named
    assert named["tests"] is named.tests is named.get_rubric("tests")
    with pytest.raises(KeyError):
        named["nothing"]
    del named["tests"]
    assert "tests" not in named
    assert [name for name, _ in named.named_children()] == ["syntax", "style"]
    with pytest.raises(KeyError):
        del named["tests"]


def test_rubric_dict_name_of_a_method():
    """A key such as "forward" or "items" must not break the dict itself."""
    named = rs.RubricDict({"forward": Value(1), "items": Value(2), "reset": Value(3), "last_score": Value(4)})
    assert named["items"].value == 2
    assert [key for key, _ in named.items()] == ["forward", "items", "reset", "last_score"]
    assert named.get_rubric("forward").value == 1
    assert [name for name, _ in named.named_children()] == ["forward", "items", "reset", "last_score"]
    for key in list(named):
        del named[key]
    assert list(named.children()) == []


@pytest.mark.parametrize("key", ["", "a.b"])
def test_rubric_dict_name_that_could_not_be_found_again(key):
    named = rs.RubricDict()
    with pytest.raises(ValueError, match="name"):
        named[key] = Value(1)
    assert len(named) == 0


@pytest.mark.parametrize(
    "container", [rs.RubricList([Value(1)]), rs.RubricDict({"x": Value(1)})], ids=["list", "dict"]
)
def test_lists_and_dicts_do_not_aggregate_and_say_so(container):
    with pytest.raises(NotImplementedError, match=f"{type(container).__name__} does not aggregate"):
        container(1, 2)


def test_lists_and_dicts_inside_a_rubric():
    class Games(rs.Rubric):
        def __init__(self):
            super().__init__()
            self.games = rs.RubricDict({"pong": Value(0.25), "chess": Value(0.75)})

        def forward(self, action, observation):
            return self.games[observation](action, observation)

    games = Games()
    assert games(1, "pong") == 0.25 and games(1, "chess") == 0.75
    assert [n for n, _ in games.named_rubrics()] == ["games", "games.pong", "games.chess"]


# ---- Subclasses


@pytest.mark.parametrize("by_name", [False, True])
def test_subclass_of_a_container_that_extends_forward(by_name):
    class Squared(rs.WeightedSum):
        def forward(self, action, observation):
            if by_name:
                return super().forward(action=action, observation=observation) ** 2
            return super().forward(action, observation) ** 2

    class Inverted(rs.Gate):
        def forward(self, action, observation):
            return 1.0 - super().forward(action, observation)

    class AtLeast(rs.Sequential):
        def forward(self, action, observation):
            return max(0.1, super().forward(action, observation))

    assert Squared([Value(0.5), Value(0.5)], [0.5, 0.5])(1, 2) == 0.25
    assert Inverted(Value(0.4), 0.5)(1, 2) == 1.0
    assert AtLeast(Value(0.0))(1, 2) == 0.1


def test_subclass_with_children_of_its_own():
    class Extra(rs.WeightedSum):
        def __init__(self):
            super().__init__([Value(0.5), Value(1.0)], [0.5, 0.5])
            self.penalty = Value(0.25)

        def forward(self, action, observation):
            return super().forward(action, observation) - self.penalty(action, observation)

    tree = Extra()
    assert tree(1, 2) == 0.5
    assert [name for name, _ in tree.named_children()] == ["rubric_0", "rubric_1", "penalty"]
    assert tree.weights == [0.5, 0.5]


def test_a_container_with_an_extra_attribute_does_not_evaluate_it():
    tree = rs.Sequential(Value(0.5))
    tree.helper = Raises()
    assert tree(1, 2) == 0.5
    assert len(tree) == 1


def test_forward_of_a_container_runs_its_children_with_their_hooks():
    tree = rs.Sequential(Value(0.5))
    calls = called(tree.rubric_0)
    assert tree.forward(1, 2) == 0.5
    assert len(calls) == 1


def test_items_replaced_by_attribute():
    tree = rs.WeightedSum([Value(0.0), Value(1.0)], [0.5, 0.5])
    tree.rubric_0 = Value(1.0)
    assert tree(1, 2) == 1.0
    assert tree.weights == [0.5, 0.5]


def test_deeply_mixed_tree():
    tree = rs.Sequential(
        rs.Gate(Mean(a=Value(0.5), b=Value(1.0)), 0.7),
        rs.WeightedSum([rs.Gate(Echo(), 0.5), rs.Sequential(Value(1), Echo())], [0.5, 0.5]),
    )
    assert tree(0.6, None) == pytest.approx(0.6)
    assert tree(0.4, None) == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_sync_children_give_a_number_async_ones_a_coroutine():
    for make in (
        lambda child: rs.Sequential(Value(1.0), child),
        lambda child: rs.Gate(child, 0.1),
        lambda child: rs.WeightedSum([Value(1.0), child], [0.5, 0.5]),
        lambda child: rs.Gate(rs.Sequential(child), 0.1),
    ):
        assert isinstance(make(Value(0.5))(1, 2), float)
        coroutine = make(AsyncValue(0.5))(1, 2)
        assert inspect.iscoroutine(coroutine)
        coroutine.close()


# ---- Batches


def test_batch_is_a_float64_vector():
    scores = rs.Gate(Echo(), 0.5).batch([0.25, 0.5, 1], ["a", "b", "c"])
    assert scores.dtype == torch.float64 and scores.device.type == "cpu"
    assert scores.tolist() == [0.0, 0.5, 1.0]


def test_batch_of_nothing():
    assert Echo().batch([], []).shape == (0,)


@pytest.mark.parametrize(("n", "m"), [(0, 1), (2, 3), (3, 2)])
def test_batch_lengths_must_match(n, m):
    class Vector(rs.Rubric):
        def forward_batch(self, actions, observations):
            return [0.0] * len(actions)

        def forward(self, action, observation):
            return 0.0

    for rubric in (Echo(), rs.Sequential(Echo()), Vector()):
        with pytest.raises(ValueError, match=rf"{n}.*{m}"):
            rubric.batch([1.0] * n, [1.0] * m)


def test_batch_takes_keywords_tuples_and_iterators():
    assert Echo().batch(actions=(0.5, 1.0), observations=iter([1, 2])).tolist() == [0.5, 1.0]
    with pytest.raises(TypeError):
        Echo().batch(1, [2])


def test_batch_keeps_nan_and_refuses_what_is_no_number():
    assert math.isnan(Echo().batch([NAN], [None])[0])
    with pytest.raises((TypeError, ValueError)):
        Echo().batch([0.5, None], [None, None])
