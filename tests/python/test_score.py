import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rubriscope.score import Score


class NamedScore(Score):
    """A subclass with state of its own (and so with a __dict__)."""


def test_is_a_float_with_a_reason():
    score = Score(0.5, "two of four", found=2)
    assert isinstance(score, float) and score == 0.5 and hash(score) == hash(0.5)
    assert score.explanation == "two of four"
    assert score.metadata == {"found": 2}


def test_defaults():
    score = Score(1)
    assert score.explanation is None and score.metadata == {}


def test_metadata_is_not_shared_between_scores():
    first, second = Score(1.0), Score(1.0)
    first.metadata["a"] = 1
    assert second.metadata == {}


def test_repr_shows_everything_and_str_the_number():
    score = Score(0.5, "why", a=1, b="x")
    assert repr(score) == "Score(0.5, 'why', a=1, b='x')"
    assert repr(Score(0.5)) == "Score(0.5)"
    assert str(score) == f"{score}" == "0.5"
    assert f"{score:.3f}" == "0.500"
    assert json.dumps([score]) == "[0.5]"


def test_arithmetic_gives_plain_floats():
    score = Score(0.5, "why")
    for result in (score + 1, 1 + score, score * 2, -score, abs(score), sum([score, score]), score**2):
        assert type(result) is float


@given(
    value=st.floats(),
    explanation=st.none() | st.text(),
    metadata=st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.lists(st.integers())),
)
def test_pickles_and_copies(value, explanation, metadata):
    score = Score(value, explanation, **{k: v for k, v in metadata.items() if k != "explanation"})
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(score, protocol))
        assert type(again) is Score
        assert float.hex(again) == float.hex(score)
        assert (again.explanation, again.metadata) == (score.explanation, score.metadata)
    assert copy.copy(score).metadata == score.metadata


def test_metadata_may_be_called_value():
    assert Score(1.0, value=3, self=4).metadata == {"value": 3, "self": 4}


def test_deep_copy_copies_the_metadata():
    score = Score(0.5, "why", items=[1])
    twin = copy.deepcopy(score)
    twin.metadata["items"].append(2)
    assert score.metadata == {"items": [1]} and twin.explanation == "why"


def test_a_subclass_keeps_its_type_and_state():
    score = NamedScore(0.5, "why", a=1)
    score.name = "mine"
    again = pickle.loads(pickle.dumps(score))
    assert type(again) is NamedScore and again.name == "mine" and again.metadata == {"a": 1}


def test_takes_tensors():
    torch = pytest.importorskip("torch")
    assert Score(torch.tensor(0.25)) == 0.25


@pytest.mark.parametrize("value", [None, [1.0], object()])
def test_refuses_what_is_no_number(value):
    with pytest.raises(TypeError):
        Score(value)


def test_refuses_an_explanation_that_is_no_text():
    with pytest.raises(TypeError, match="explanation must be a string or None, got int: 3"):
        Score(1.0, 3)
