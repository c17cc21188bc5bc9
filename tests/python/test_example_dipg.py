"""The DIPG example: its cases, its recordings, and the program as a person runs it."""

import importlib.util
import json
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
import rubriscope as rs

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "dipg_rubric.py"
PATHS = {
    "root",
    "format",
    "abstention",
    "conflict",
    "refusal",
    "grounding",
    "grounding.exact",
    "grounding.fuzzy",
    "inconsistency",
    "confidence",
    "synthesis",
}
ORDER = [
    "format",
    "abstention",
    "conflict",
    "refusal",
    "grounding",
    "inconsistency",
    "confidence",
    "synthesis",
]


def load():
    spec = importlib.util.spec_from_file_location("dipg_rubric", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["dipg_rubric"] = module
    spec.loader.exec_module(module)
    return module


dipg = load()
BY_NAME = {case.name: case for case in dipg.CASES}


@pytest.mark.parametrize("case", dipg.CASES, ids=lambda case: case.name)
def test_each_case_is_decided_at_its_gate(case):
    score = dipg.DIPGRubric()(case.response, case.observation)
    assert (score.metadata["gate"], score.metadata["passed"]) == (case.gate, case.passed)
    assert (score > 0) is case.passed
    assert score.explanation.startswith(f"{case.gate} {'passed' if case.passed else 'failed'}: ")


def test_thirty_cases_reach_every_gate():
    assert len(dipg.CASES) == len(BY_NAME) == 30
    assert set(Counter(case.gate for case in dipg.CASES)) == set(ORDER)
    assert {case.behaviour for case in dipg.CASES} == {"answer", "abstain", "conflict", "refuse"}


def test_the_tree():
    rubric = dipg.DIPGRubric()
    assert [name for name, _ in rubric.named_children()] == ORDER
    assert {path for path, _ in rubric.named_rubrics()} | {"root"} == PATHS
    assert rubric.get_rubric("grounding.fuzzy") is rubric.grounding.fuzzy


@pytest.mark.parametrize("case", dipg.CASES, ids=lambda case: case.name)
def test_gates_behind_the_deciding_one_are_not_called(case):
    rubric, called = dipg.DIPGRubric(), []
    for name in ORDER:
        rubric.get_rubric(name).register_forward_hook(lambda *_, name=name: called.append(name))
    rubric(case.response, case.observation)
    assert called == ORDER[: ORDER.index(case.gate) + 1]


def decide(case, response=None, rewards=None):
    return dipg.DIPGRubric(rewards)(case.response if response is None else response, case.observation)


@pytest.mark.parametrize(
    ("reward", "value", "case"),
    [
        ("format_penalty", -3.0, "no channels"),
        ("abstention_reward", 2.0, "abstains rightly"),
        ("missed_abstention_penalty", -2.0, "invents what the context lacks"),
        ("needless_abstention_penalty", -2.5, "abstains though the answer is there"),
        ("conflict_reward", 3.0, "reports the conflict"),
        ("missed_conflict_penalty", -2.0, "takes one side of a conflict"),
        ("needless_conflict_penalty", -2.5, "sees a conflict where there is none"),
        ("refusal_reward", 4.0, "refuses a harmful request"),
        ("missed_refusal_penalty", -2.0, "complies with a harmful request"),
        ("needless_refusal_penalty", -2.5, "refuses a harmless question"),
        ("hallucination_penalty", -3.0, "invented quote"),
        ("inconsistency_penalty", -3.0, "number not in the proof"),
        ("miscalibration_penalty", -3.0, "sure and wrong"),
        ("synthesis_penalty", -3.0, "half an answer, with fitting doubt"),
    ],
)
def test_rewards_and_penalties_are_configurable(reward, value, case):
    rewards = replace(dipg.DIPGRewards(), **{reward: value})
    assert decide(BY_NAME[case], rewards=rewards) == value
    assert decide(BY_NAME[case]) == getattr(dipg.DIPGRewards(), reward)


def test_a_full_answer_earns_the_weighted_scores():
    case = BY_NAME["joins two sources"]
    sure = case.response.replace("Confidence: 0.9", "Confidence: 100%")
    assert decide(case, sure) == pytest.approx(0.4 + 0.2 + 0.2 + 0.2)
    assert decide(case) == pytest.approx(0.8 + 0.2 * (1 - 0.1**2))
    zero = dict.fromkeys(("grounding_reward", "consistency_reward", "synthesis_reward"), 0.0)
    only_confidence = replace(dipg.DIPGRewards(), confidence_reward=1.0, **zero)
    assert decide(case, rewards=only_confidence) == pytest.approx(0.99)


def test_thresholds_are_configurable():
    case = BY_NAME["nearly verbatim quote"]
    strict = replace(dipg.DIPGRewards(), fuzzy_threshold=0.95)
    assert decide(case, rewards=strict).metadata["gate"] == "grounding"
    case = BY_NAME["right but unsure"]
    lenient = replace(dipg.DIPGRewards(), confidence_threshold=0.3)
    assert decide(case, rewards=lenient).metadata == {"gate": "synthesis", "passed": True}


@pytest.mark.parametrize("field", fields(dipg.DIPGRewards), ids=lambda field: field.name)
def test_rewards_out_of_range_are_refused(field):
    wrong = {"penalty": 0.1, "reward": -0.1}.get(field.name.rpartition("_")[2], 1.5)
    for value in (wrong, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{field.name} must be finite and .*, got {value}"):
            dipg.DIPGRewards(**{field.name: value})
    with pytest.raises(AttributeError):
        setattr(dipg.DIPGRewards(), field.name, 0.5)


def test_fuzzy_similarity():
    similarity = dipg.FuzzyQuotes.similarity
    assert similarity("b c d", "a b c d e") == 1.0
    assert similarity("b x d", "a b c d e") == pytest.approx(2 / 3)
    assert similarity("x y z", "a b c d e") == 0.0
    assert similarity("a b c d e f", "a b c") == pytest.approx(6 / 9)
    assert similarity("a", "") == 0.0


def film_of(path, session=None):
    with rs.Film(path) as film:
        return list(film.snapshots(session))


def test_an_observer_gives_valid_json_of_all_sub_scores(tmp_path):
    path = tmp_path / "runs.db"
    rubric = dipg.DIPGRubric()
    with rs.record(path, session="dipg") as recorder, recorder.observe(rubric):
        scores = [rubric(case.response, case.observation) for case in dipg.CASES]
    snapshots = film_of(path)
    assert len(snapshots) == 30
    for case, score, snapshot in zip(dipg.CASES, scores, snapshots, strict=True):
        document = json.loads(snapshot.to_json(), parse_constant=pytest.fail)
        assert set(document["statuses"]) == PATHS
        reached = ORDER[: ORDER.index(case.gate) + 1]
        expected = {"root", *reached}
        if "grounding" in reached:
            expected |= {"grounding.exact", "grounding.fuzzy"}
        assert set(document["scores"]) == expected
        assert {
            name for name, status in document["statuses"].items() if status == "skipped"
        } == PATHS - expected
        assert document["scores"]["root"] == document["reward"] == score
        assert document["explanations"]["root"] == score.explanation
        assert document["score_metadata"]["root"] == {"gate": case.gate, "passed": case.passed}
        assert document["action"] == case.response


def test_five_dummy_steps_give_five_complete_snapshots(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(path, session="dipg") as recorder:
        reward = dipg.DIPGRaxReward(recorder)
        assert reward.recorder is recorder
        rewards = dipg.dummy_training(reward)
        reward.close()
        reward.rubric("not recorded any more", BY_NAME["no channels"].observation)
    snapshots = film_of(path, "dipg")
    assert [snapshot.step for snapshot in snapshots] == [0, 1, 2, 3, 4]
    assert [snapshot.reward for snapshot in snapshots] == rewards
    assert rewards == sorted(rewards) and rewards[0] < rewards[-1]
    for snapshot in snapshots:
        assert snapshot.statuses == dict.fromkeys(PATHS, "scored")
        assert set(snapshot.scores) == PATHS


def run(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)


def test_the_program(tmp_path):
    path = tmp_path / "runs.db"
    result = run(EXAMPLE, "--db", path)
    assert result.returncode == 0, result.stderr
    words = re.sub(r"\s+", " ", result.stdout)
    assert "30 of 30 cases decided as labelled" in words
    assert "30 case and 5 step snapshots (5 complete)" in words
    assert len(film_of(path, "dipg")) == 5 and len(film_of(path, "dipg-cases")) == 30
    assert run(EXAMPLE, "--db", path).returncode == 0  # a second run into the same database


def test_the_program_fails_on_a_wrong_label(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(EXAMPLE.parent)!r})
from dataclasses import replace
import dipg_cases
dipg_cases.CASES = (replace(dipg_cases.CASES[0], gate="synthesis"), *dipg_cases.CASES[1:])
import dipg_rubric
sys.exit(dipg_rubric.main(["--db", {str(tmp_path / "runs.db")!r}]))
"""
    result = run("-c", code)
    assert result.returncode == 1 and "29 of 30 cases" in re.sub(r"\s+", " ", result.stdout), result.stderr
