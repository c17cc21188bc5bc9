"""NeuralSnapshot: its dictionary and its JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rubriscope.snapshot import FIELD_NAMES, NeuralSnapshot, dump_json

FIELDS = [
    *("id", "session_id", "session_name", "episode_id", "step", "time_ns", "scores", "statuses"),
    *("durations_ns", "reward", "metadata", "action", "observation", "explanations", "reasons"),
    *("score_metadata", "calls", "rank", "group_id", "sample_index", "recovered", "captures"),
]


def make(**changes: object) -> NeuralSnapshot:
    values: dict[str, object] = {
        "id": "w:0",
        "session_id": "s",
        "session_name": "run",
        "episode_id": "0",
        "step": 3,
        "time_ns": 1_700_000_000_500_000_000,
        "scores": {"root": 0.5},
        "statuses": {"root": "scored", "a": "failed"},
        "durations_ns": {"root": 10, "a": 2},
        "reward": 0.5,
    }
    values.update(changes)
    return NeuralSnapshot(**values)  # type: ignore[arg-type]


def strict(text: str) -> object:
    """Parses JSON and refuses NaN and Infinity, as the standard does."""

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} in JSON")

    return json.loads(text, parse_constant=refuse)


def test_field_order_is_the_contract_with_the_extension() -> None:
    assert list(FIELD_NAMES) == FIELDS


def test_has_slots() -> None:
    with pytest.raises(AttributeError):
        make().unknown = 1  # type: ignore[attr-defined]


def test_timestamp_is_seconds() -> None:
    assert make().timestamp == 1_700_000_000.5


def test_to_dict_holds_every_field_and_copies() -> None:
    snapshot = make()
    found = snapshot.to_dict()
    assert set(found) == {*FIELDS, "timestamp"}
    found["scores"]["root"] = 9.0
    assert snapshot.scores["root"] == 0.5


def test_json_round_trip() -> None:
    snapshot = make(
        metadata={"lr": 0.1, "nested": {"a": [1, None, True]}},
        action="text ☃\n",
        observation=3,
        explanations={"root": "why"},
        score_metadata={"root": {"k": 1}},
        calls={"a": 2},
        group_id=4,
        sample_index=1,
        recovered=True,
    )
    assert NeuralSnapshot.from_dict(json.loads(snapshot.to_json())) == snapshot
    assert NeuralSnapshot.from_dict(snapshot.to_dict()) == snapshot


def test_numbers_that_are_not_finite_become_null() -> None:
    snapshot = make(
        scores={"root": math.nan, "a": math.inf},
        reward=math.nan,
        action=-math.inf,
        metadata={"x": [math.nan], "y": {"z": np.float64("inf")}, "w": np.array([1.0, math.nan])},
    )
    found = strict(snapshot.to_json())
    assert isinstance(found, dict)
    assert found["scores"] == {"root": None, "a": None}
    assert found["reward"] is None
    assert found["action"] is None
    assert found["metadata"] == {"x": [None], "y": {"z": None}, "w": [1.0, None]}


def test_indent_is_passed_on() -> None:
    assert "\n  " in make().to_json(indent=2)
    assert "\n" not in make().to_json()


def test_lone_surrogates_can_be_written() -> None:
    text = make(action="bad \udcff byte").to_json()
    assert json.loads(text.encode())["action"] == "bad \udcff byte"


def test_other_objects_become_text() -> None:
    found = strict(dump_json({1: {2}, None: print, "b": b"x", (1, 2): np.int64(3)}))
    assert found == {"1": "{2}", "null": str(print), "b": "b'x'", "(1, 2)": 3}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(json_values, st.floats(), st.text(st.characters(codec=None)))
def test_any_content_gives_valid_json(metadata: object, score: float, action: str) -> None:
    snapshot = make(metadata={"m": metadata}, scores={"root": score}, reward=score, action=action)
    found = strict(snapshot.to_json().encode().decode())
    assert isinstance(found, dict)
    assert found["action"] == action
    assert found["scores"]["root"] == (score if math.isfinite(score) else None)


def test_from_dict_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="no field 'rewrad'"):
        NeuralSnapshot.from_dict({**make().to_dict(), "rewrad": 1})
    short = make().to_dict()
    del short["step"]
    with pytest.raises(ValueError, match="'step' missing"):
        NeuralSnapshot.from_dict(short)
