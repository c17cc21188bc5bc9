import asyncio
import copy
import inspect
import math
import pickle
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rubriscope.judge import LLMJudge
from rubriscope.score import Score


class ScriptedClient:
    """Answers with what it was given, and remembers the prompts."""

    def __init__(self, answer="0.5"):
        self.answer = answer
        self.prompts = []

    async def complete(self, prompt):
        self.prompts.append(prompt)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def ask(judge, action="act", observation="obs"):
    return asyncio.run(_await(judge, action, observation))


async def _await(judge, action, observation):
    return await judge(action, observation)


def read(answer, **options):
    return ask(LLMJudge("{action}", ScriptedClient(answer), **options))


def render(template, action="A", observation="O"):
    client = ScriptedClient()
    ask(LLMJudge(template, client), action, observation)
    return client.prompts[0]


def test_a_call_is_a_coroutine_and_gives_a_score_with_the_answer():
    judge = LLMJudge("Rate {action} after {observation}", ScriptedClient("Good work. Score: 0.75"))
    call = judge("act", "obs")
    assert inspect.iscoroutine(call)
    call.close()
    score = ask(judge)
    assert score == 0.75 and isinstance(score, Score)
    assert score.explanation == "Good work. Score: 0.75"
    assert score.metadata == {"parsed": True}
    assert judge._client.prompts == ["Rate act after obs"]


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("0.75", 0.75),
        ("Score: 1", 1.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("It is 0.8.", 0.8),
        ("0.25 or perhaps 0.75", 0.25),
        ("-0.5", -0.5),
        ("Score:-0.5", -0.5),
        ("score \u22120.5", -0.5),
        ("+0.5", 0.5),
        ("2.5e-1", 0.25),
        ("1E2", 100.0),
        ("2.5e\u22121", 0.25),
        ("- 0.5", 0.5),  # a list's dash
        ("part-3 of it", 3.0),  # a hyphen
        ("range 0.2-0.4", 0.2),
        ("(0.2)-0.4", 0.2),
        ("5 egg", 5.0),
    ],
)
def test_default_pattern(answer, value):
    score = read(answer, normalize=False)
    assert score == value and score.metadata == {"parsed": True}


@pytest.mark.parametrize("answer", ["", "no number", "nan", "inf", "-", "1e999"])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_unreadable_answer_gives_the_default_and_says_so(answer, normalize):
    score = read(answer, default_score=0.25, normalize=normalize)
    assert score == 0.25
    assert score.metadata == {"parsed": False}
    assert score.explanation == answer


@pytest.mark.parametrize(("answer", "value", "raw"), [("8/10", 1.0, 8.0), ("-3", 0.0, -3.0)])
def test_clamping_shows_what_it_clamped(answer, value, raw):
    score = read(answer)
    assert score == value and score.metadata == {"parsed": True, "raw": raw}


@pytest.mark.parametrize(
    ("pattern", "answer", "value"),
    [
        (r"Score: (\S+)", "Score: 0.5", 0.5),
        (r"Score: (\S+)", "Score: nan", None),
        (r"Score: (\S+)", "Score: high", None),
        (r"\d\.\d", "about 0.5", 0.5),
        (r"A=(\d)|B=(\d)", "B=1", 1.0),  # the first group does not take part
        (r"(A)?=", "=", None),
    ],
)
def test_own_patterns(pattern, answer, value):
    score = read(answer, score_pattern=pattern, default_score=0.125)
    assert score == (0.125 if value is None else value)
    assert score.metadata["parsed"] is (value is not None)


@given(st.text())
def test_never_nan_and_never_outside_the_range(answer):
    score = LLMJudge("{action}", ScriptedClient())._parse_score(answer)
    assert 0.0 <= score <= 1.0
    unclamped = LLMJudge("{action}", ScriptedClient(), normalize=False)._parse_score(answer)
    assert math.isfinite(unclamped)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_python_prints_is_read_back(value):
    judge = LLMJudge("{action}", ScriptedClient(), normalize=False)
    assert judge._parse_score(f"Score: {value!r}, I think.") == value


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Rate {action} given {observation}", "Rate A given O"),
        ("{action}{action}", "AA"),
        ("no fields", "no fields"),
        ('Answer {{"score": 1}} for {action}', 'Answer {"score": 1} for A'),  # RFC 004: a format string
        ('Answer {"score": 1} for {action}', 'Answer {"score": 1} for A'),
        ('{"a": {"b": 1}} {action}', '{"a": {"b": 1}} A'),
        ("{ {action} }", "{ A }"),
        ("{} {0} {action}", "{} {0} A"),
        ("{reward} {action}", "{reward} A"),
        ("{action} {", "A {"),
        ("{action} }", "A }"),
        ("{action!r:>5}|{", "  'A'|{"),
        ("{action!r:>5}|", "  'A'|"),
        ("{actions} {action}", "{actions} A"),
    ],
)
def test_templates(template, prompt):
    assert render(template) == prompt


def test_templates_reach_into_the_action():
    action = SimpleNamespace(text="hi", parts=["x"])
    assert render("{action.text} {action.parts[0]}", action) == "hi x"
    assert render("{action.text} {action.parts[0]} {oops}", action) == "hi x {oops}"


@given(st.text(), st.text())
def test_replaced_text_is_left_alone(action, observation):
    for template in ("<{action}|{observation}>", '<{action}|{observation}>{"json": 1}'):
        assert render(template, action, observation).startswith(f"<{action}|{observation}>")


def test_the_template_may_change_between_calls():
    judge = LLMJudge("{action} {x}", ScriptedClient())
    ask(judge)
    judge.prompt_template = "new {observation} {x}"
    ask(judge)
    assert judge._client.prompts == ["act {x}", "new obs {x}"]


def test_subclasses_may_override_both_halves():
    class Doubling(LLMJudge):
        def _render_prompt(self, action, observation):
            return "mine: " + super()._render_prompt(action, observation)

        def _parse_score(self, response):
            return super()._parse_score(response) * 2

    judge = Doubling("{action}", ScriptedClient("0.25"))
    score = ask(judge)
    assert score == 0.5 and score.explanation == "0.25"
    assert score.metadata == {}  # a number alone does not say whether it was parsed
    assert judge._client.prompts == ["mine: act"]


def test_failures_of_the_client_reach_the_caller():
    with pytest.raises(ConnectionError, match="gone"):
        read(ConnectionError("gone"))
    with pytest.raises(TypeError, match=r"ScriptedClient.complete\(\) must return a string, got NoneType"):
        read(None)


@pytest.mark.parametrize("default", [math.nan, math.inf])
def test_a_default_that_is_not_finite_is_refused(default):
    with pytest.raises(ValueError, match="default_score must be finite"):
        LLMJudge("{action}", ScriptedClient(), default_score=default)
    judge = LLMJudge("{action}", ScriptedClient())
    with pytest.raises(ValueError, match="default_score must be finite"):
        judge.load_state_dict({"default_score": default, "normalize": False})
    assert judge.normalize is True


def test_state_dict_round_trip():
    judge = LLMJudge(
        "a {action}", ScriptedClient(), score_pattern=r"(\d)", default_score=0.5, normalize=False
    )
    state = judge.state_dict()
    assert state == {
        "prompt_template": "a {action}",
        "score_pattern": r"(\d)",
        "default_score": 0.5,
        "normalize": False,
    }
    other = LLMJudge("b", ScriptedClient())
    other.load_state_dict(state)
    assert other.state_dict() == state and isinstance(other._score_pattern, re.Pattern)
    other.load_state_dict({})
    assert other.state_dict() == state
    with pytest.raises(re.error):
        other.load_state_dict({"score_pattern": "(", "prompt_template": "changed"})
    assert other.state_dict() == state


@pytest.mark.parametrize(
    "twin", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))], ids=["copy", "pickle"]
)
def test_copies(twin):
    other = twin(LLMJudge("{action}", ScriptedClient("0.75"), default_score=0.5))
    assert ask(other) == 0.75 and other.default_score == 0.5


def test_calls_at_once_keep_their_answers_apart():
    class Echo:
        async def complete(self, prompt):
            await asyncio.sleep(0)
            return prompt

    async def run():
        judge = LLMJudge("{action}", Echo(), normalize=False)
        return await asyncio.gather(*(judge(str(i), None) for i in range(100)))

    scores = asyncio.run(run())
    assert scores == list(range(100)) and [s.explanation for s in scores] == [str(i) for i in range(100)]
