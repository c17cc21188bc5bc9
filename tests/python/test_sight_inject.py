"""Injection at run time: the real function is instrumented, and is what it was afterwards."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import math
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rubriscope as rs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SOURCE = '''
import functools

def plain(a, b=2, /, c=3, *rest, d, e=5, **more):
    """Adds."""
    return a + b + c + sum(rest) + d + e + sum(more.values())

def step(state, batch=1):
    if state < 0:
        raise ValueError("negative")
    return state + batch

def caller(state):
    return step(state)

def outer(factor):
    def inner(x):
        return factor * x
    return inner

def recursive(n):
    return 1 if n == 0 else n * recursive(n - 1)

double = outer(2)
triple = outer(3)
small = lambda x: x - 1

class Base:
    scale = 10
    def forward(self, x):
        return self.scale * x
    @classmethod
    def make(cls):
        return cls()
    @staticmethod
    def twice(x):
        return 2 * x
    @property
    def half(self):
        return self.scale / 2
    def __private(self, __x):
        return __x

class Sub(Base):
    def forward(self, x):
        return super().forward(x) + 1

class Child(Base):
    pass

class Result:
    def __init__(self, loss):
        self.loss = loss
        self.parts = {"kl": loss / 2}

def result(loss):
    return Result(loss)

async def wait(x):
    return x + 1

def count(n):
    got = []
    for i in range(n):
        got.append((yield i))
    return got

async def ticks(n):
    for i in range(n):
        try:
            sent = yield i
        except KeyError:
            sent = "thrown"
        if sent == "stop":
            return

@functools.wraps(step)
def wrapped(*args):
    return step(*args)

cached = functools.lru_cache(step)
number = 3
'''


@pytest.fixture
def mod() -> Iterator[Any]:
    global M
    M = name = f"injected_things_{next(_modules)}.deep"
    module = ModuleType(name)
    exec(compile(SOURCE, "<injected>", "exec"), module.__dict__)
    sys.modules[name] = module
    yield module
    for one in rs.get_code_sight().injections():
        rs.get_code_sight().remove(one.id)
    del sys.modules[name]


sight = rs.get_code_sight()
M = ""  #: the module of the test that runs: points and their figures last as long as the process
_modules = itertools.count()


def last(name: str) -> dict[str, float]:
    return [one for one in sight.observations() if one.name == name][-1].metrics


def point(function: str) -> str:
    """The name of the function's point, the newest where there are several."""
    return max(
        (name for name in sight.stats() if name.split("#")[0] == f"{M}:{function}"),
        key=lambda name: int(name.partition("#")[2] or 1),
    )


def test_metrics_of_a_call_are_those_of_the_call(mod: Any) -> None:
    for metric in ("execution_time_ms", "cpu_time_ms", "result", "args.state", "args.batch"):
        sight.inject_metric(f"{M}:step", metric)
    assert mod.step(3, batch=4) == 7
    metrics = last(point("step"))
    assert metrics["result"] == 7 and metrics["args.state"] == 3 and metrics["args.batch"] == 4
    assert metrics["execution_time_ms"] > 0 and metrics["cpu_time_ms"] >= 0
    mod.step(1)  # a default is an argument, too
    assert last(point("step"))["args.batch"] == 1


def test_names_imported_before_are_instrumented_and_removal_restores_the_very_code(mod: Any) -> None:
    imported, code, inside = mod.step, mod.step.__code__, dict(vars(mod.step))
    id = sight.inject_metric("deep.step", "result")
    assert imported is mod.step and imported(5) == 6
    assert last(point("step")) == {"result": 6}
    assert mod.caller(7) == 8 and last(point("step")) == {"result": 8}
    sight.remove(id)
    assert mod.step.__code__ is code and vars(mod.step) == inside and mod.step is imported
    before = sight.stats()[point("step")].count
    assert imported(5) == 6
    assert sight.stats()[point("step")].count == before == 2
    with pytest.raises(KeyError, match=id):
        sight.remove(id)


def test_the_same_injection_again_changes_nothing(mod: Any) -> None:
    id = sight.inject_metric(f"{M}:step", "result", 3.0)
    code = mod.step.__code__
    assert sight.inject_metric("deep.step", "result", 3) == id and mod.step.__code__ is code
    assert len(sight.injections()) == 1
    other = sight.inject_metric(f"{M}:step", "result", 4.0)
    assert other != id and mod.step.__code__ is code
    mod.step(2.5)
    assert {one.id: one.hits for one in sight.injections()} == {id: 1, other: 0}
    sight.remove(id)
    assert mod.step.__code__ is code, "another injection is still there"
    sight.remove(other)
    assert sight.inject_metric(f"{M}:step", "result", 3.0) == id


def test_a_function_injected_again_goes_on_with_its_point(mod: Any) -> None:
    names = set()
    for calls in (1, 2, 3):
        with pytest.raises(ValueError, match="no value speed"):
            sight.inject_metric(f"{M}:double", "speed")
        id = sight.inject_metric(f"{M}:double", "result", modality="planning")
        mod.double(1)
        name = sight.observations(1)[0].name
        names.add(name)
        assert sight.stats()[name].count == calls
        sight.remove(id)
    assert len(names) == 1


def test_a_reloaded_function_is_another_one(mod: Any) -> None:
    old, id = mod.step, sight.inject_metric(f"{M}:step", "result")
    exec(compile(SOURCE, "<injected>", "exec"), mod.__dict__)
    assert mod.step(1) == 2 and sight.injections()[0].id == id
    with pytest.raises(RuntimeError, match="another function"):
        sight.inject_metric(f"{M}:step", "result")
    sight.remove(id)
    assert sight.inject_metric(f"{M}:step", "result") == id
    mod.step(5)
    old(7)
    assert last(point("step")) == {"result": 6}


def test_every_kind_of_parameter_arrives(mod: Any) -> None:
    signature, before = inspect.signature(mod.plain), mod.plain(1, 2, 3, 4, 5, d=6, z=7)
    arguments = "{args.a} {args.b} {args.c} {args.rest} {args.rest[1]} {args.d} {args.e} {args.z}"
    sight.inject_log(f"{M}:plain", None, arguments, "metric")
    assert inspect.signature(mod.plain) == signature and mod.plain.__doc__ == "Adds."
    assert mod.plain(1, 2, 3, 4, 5, d=6, z=7) == before
    assert mod.plain(1, d=2) == 1 + 2 + 3 + 2 + 5
    assert mod.plain(1, d=2, a=30) == 1 + 2 + 3 + 2 + 5 + 30  # the name of a positional-only one
    with pytest.raises(TypeError, match=r"plain\(\) missing 1 required keyword-only argument: 'd'"):
        mod.plain(1)
    assert inspect.getfullargspec(mod.plain).kwonlydefaults == {"e": 5}


def test_messages_are_recorded(mod: Any, tmp_path: Any) -> None:
    sight.inject_log(f"{M}:plain", "args.d == 6", "rest {args.rest}, {args.z}, {{}}", "metric")
    with rs.record(tmp_path / "x.db", session="s"):
        mod.plain(1, 2, 3, 4, 5, d=6, z=7)
        mod.plain(1, 2, 3, 4, 5, d=7, z=7)
    said = [event.fields for event in rs.Film(tmp_path / "x.db").events(kind="observation")]
    assert said[0]["message"] == "rest (4, 5), 7, {}" and said[0]["violation"] == "args.d == 6"
    assert "message" not in said[1] or said[1]["message"] is None


def test_methods_class_methods_static_methods_and_properties(mod: Any) -> None:
    for name in ("Base.forward", "Base.make", "Base.twice", "Base.half", "Sub.forward"):
        sight.inject_metric(f"{M}:{name}", "execution_time_ms")
    sub = mod.Sub()
    assert sub.forward(2) == 21 and mod.Sub.make().__class__ is mod.Sub and mod.Base.twice(4) == 8
    assert sub.half == 5.0
    counts = {name: sight.stats()[point(name)].count for name in ("Base.forward", "Base.make", "Base.twice")}
    assert counts == {"Base.forward": 1, "Base.make": 1, "Base.twice": 1}
    assert sight.stats()[point("Base.half")].count == sight.stats()[point("Sub.forward")].count == 1
    id = sight.inject_metric("deep.Base._Base__private", "args._Base__x")
    assert sub._Base__private(9) == 9 and last(point("Base._Base__private"))["args._Base__x"] == 9
    sight.remove(id)


def test_closures_lambdas_and_recursion(mod: Any) -> None:
    sight.inject_metric(f"{M}:double", "result")
    assert mod.double(4) == 8 and mod.triple(4) == 12
    assert [one.target for one in sight.injections()] == [f"{M}:double"]
    assert last(point("double"))["result"] == 8
    sight.inject_metric(f"{M}:small", "result")
    assert mod.small(4) == 3 and last(point("small"))["result"] == 3
    sight.inject_metric(f"{M}:recursive", "args.n")
    assert mod.recursive(5) == 120 and sight.stats()[point("recursive")].count == 6


def test_results_are_looked_into(mod: Any) -> None:
    for metric in ("result.loss", 'result.parts["kl"]'):
        sight.inject_metric(f"{M}:result", metric)
    mod.result(0.5)
    assert last(point("result")) == {"result.loss": 0.5, 'result.parts["kl"]': 0.25}
    mod.result(torch.tensor(2.0, requires_grad=True))
    assert last(point("result")) == {"result.loss": 2.0, 'result.parts["kl"]': 1.0}
    mod.result(np.float32(0.25))
    assert last(point("result"))["result.loss"] == 0.25
    mod.result(torch.ones(2))
    assert "result.loss" not in last(point("result"))
    assert [one.undecided for one in sight.injections()] == [1, 1]


def test_coroutines_and_generators(mod: Any) -> None:
    for name in ("wait", "count", "ticks"):
        sight.inject_metric(f"{M}:{name}", "execution_time_ms")
        sight.inject_log(f"{M}:{name}", "result != None", "{result}", "metric")
    assert inspect.iscoroutinefunction(mod.wait) and inspect.isasyncgenfunction(mod.ticks)
    assert inspect.isgeneratorfunction(mod.count)
    assert asyncio.run(mod.wait(1)) == 2
    generator = mod.count(2)
    assert generator.send(None) == 0 and generator.send("a") == 1
    with pytest.raises(StopIteration) as stop:
        generator.send("b")
    assert stop.value.value == ["a", "b"]

    async def use() -> list[Any]:
        first = [one async for one in mod.ticks(3)]
        stream = mod.ticks(5)
        got = [await stream.asend(None), await stream.athrow(KeyError()), await stream.asend(None)]
        with pytest.raises(StopAsyncIteration):
            await stream.asend("stop")
        left = mod.ticks(5)
        await left.asend(None)
        await left.aclose()
        return first + got

    assert asyncio.run(use()) == [0, 1, 2, 0, 1, 2]
    assert [sight.stats()[point(name)].count for name in ("wait", "count", "ticks")] == [1, 1, 3]
    assert {one.target.split(":")[1]: one.hits for one in sight.injections() if one.kind == "log"} == {
        "wait": 1,
        "count": 1,
        "ticks": 0,
    }


def test_what_a_call_raises_is_its_own(mod: Any) -> None:
    sight.inject_log(f"{M}:step", "error == 'ValueError'", "failed at {args.state}: {error}", "metric")
    with pytest.raises(ValueError, match="negative") as caught:
        mod.step(-1)
    mod.step(1)
    assert [one.hits for one in sight.injections()] == [1]
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames == ["test_what_a_call_raises_is_its_own", "step", "step"]
    assert sight.stats()[point("step")].errors == 1


def test_actions(mod: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    alerts = []
    ids = [
        sight.inject_metric(f"{M}:step", "result", 10),
        sight.inject_log(f"{M}:step", "args.state > 20", "big {args.state}", level="warning"),
        sight.inject_log(f"{M}:step", "args.state > 30", "arguments of {args.state}", "snapshot"),
        sight.inject_log(f"{M}:step", "args.state > 40", "no further", "fail_closed"),
    ]
    with (
        rs.record(tmp_path / "x.db", session="s"),
        sight.on_alert(alerts.append),
        caplog.at_level(logging.INFO, "rubriscope.sight"),
    ):
        for state in (5, 15, 25, 35):
            assert mod.step(state) == state + 1
        with pytest.raises(rs.FailClosed, match=r"result 46 > 10; args.state > 20; .*args.state > 40"):
            mod.step(45)
        sight.disable(ids[3])
        assert mod.step(45) == 46
        sight.enable(ids[3])
        with pytest.raises(rs.FailClosed):
            mod.step(45)
    assert [alert.violation for alert in alerts[:2]] == ["result 16 > 10", "result 26 > 10"]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 5
    assert caplog.records[0].getMessage().endswith(": big 25")
    events = list(rs.Film(tmp_path / "x.db").events(kind="observation"))
    assert [event.outcome for event in events] == ["success"] * 4 + ["blocked", "success", "blocked"]
    assert (
        events[3].fields["arguments"] == "(35, 1)"
        and events[3].fields["message"] == "big 35; arguments of 35"
    )
    assert events[1].fields["violation"] == "result 16 > 10"


def test_a_disabled_point_only_calls_through(mod: Any) -> None:
    sight.inject_metric(f"{M}:step", "result")
    mod.step(1)
    sight.disable(point("step"))
    assert mod.step(1) == 2 and sight.stats()[point("step")].count == 1
    sight.enable(point("step"))
    assert mod.step(1) == 2 and sight.stats()[point("step")].count == 2


def test_a_sight_point_takes_injections_into_its_function(mod: Any) -> None:
    @rs.sight_point(name=f"{M}:Base.forward")
    def forward(self: Any, x: float) -> float:
        return x

    forward.__wrapped__.__qualname__, forward.__wrapped__.__module__ = "Base.forward", M
    mod.Base.forward = forward
    sight.inject_metric(f"{M}:Base.forward", "args.x")
    assert mod.Base().forward(4) == 4
    assert last(point("Base.forward")) == {"args.x": 4} and "#" in point("Base.forward")


def test_refusals_say_why(mod: Any) -> None:
    def refused(kind: type[Exception], text: str, target: str, metric: str = "result", **more: Any) -> None:
        with pytest.raises(kind, match=text):
            sight.inject_metric(target, metric, **more)

    refused(LookupError, "no module 'absent' is loaded", "absent:f")
    refused(LookupError, "has no 'missing'", f"{M}:missing")
    refused(LookupError, "no loaded module has it", "Nowhere.forward_at_all")
    refused(LookupError, r"functions made inside functions", f"{M}:outer.<locals>.inner")
    refused(TypeError, f"inherits forward from {M}:Base", f"{M}:Child.forward")
    refused(TypeError, "the class Base", f"{M}:Base")
    refused(TypeError, "of the type builtins.int", f"{M}:number")
    refused(TypeError, "lru_cache", f"{M}:cached")
    refused(TypeError, "implemented in C", "math:sqrt")
    refused(TypeError, "a target is a str", 3)  # type: ignore[arg-type]
    refused(ValueError, 'no metric "args.state > 1"', f"{M}:step", "args.state > 1")
    refused(ValueError, r"no argument nothing \(the function has state, batch\)", f"{M}:step", "args.nothing")
    refused(ValueError, "there are execution_time_ms", f"{M}:step", "speed")
    refused(ValueError, "private names", f"{M}:step", "result.__class__")
    refused(ValueError, "expected a finite number", f"{M}:step", alert_threshold=math.nan)
    refused(ValueError, "needs an alert_threshold", f"{M}:step", action="alert")
    refused(ValueError, "no action", f"{M}:step", action="explode")
    refused(ValueError, "no modality", f"{M}:step", modality="odour")
    with pytest.raises(ValueError, match="no level"):
        sight.inject_log(f"{M}:step", None, "x", level="loud")
    with pytest.raises(ValueError, match=r"single } at character 3"):
        sight.inject_log(f"{M}:step", None, "a }")
    assert sight.injections() == []
    assert "rubriscope" not in repr(mod.step.__code__.co_consts)


def test_an_ambiguous_suffix_lists_the_candidates(mod: Any) -> None:
    other = ModuleType(f"{M}_other")
    exec("class Sub:\n    def forward(self): pass\nclass Base: pass", other.__dict__)
    other.Base = mod.Base  # type: ignore[attr-defined]  # no second candidate: the same function
    sys.modules[f"{M}_other"] = other
    try:
        with pytest.raises(LookupError, match=rf"{M}:Sub.forward, {M}_other:Sub.forward"):
            sight.inject_metric("Sub.forward", "result")
        assert sight.inject_metric("Base.twice", "result")
    finally:
        del sys.modules[f"{M}_other"]


def test_code_that_somebody_else_exchanged_is_left_alone(mod: Any) -> None:
    id = sight.inject_metric(f"{M}:step", "result")
    ours, mod.step.__code__ = mod.step.__code__, mod.caller.__code__.replace(co_name="x")
    with pytest.raises(RuntimeError, match="exchanged by somebody else"):
        sight.remove(id)
    mod.step.__code__ = ours
    sight.remove(id)


def test_functions_that_the_observation_uses_do_not_recurse(mod: Any) -> None:
    sight.inject_log("reprlib:Repr.repr", None, "{args.x}", "snapshot")
    id = sight.inject_log("logging:Logger.log", None, "{args.msg}", "log")
    try:
        logging.getLogger("x").log(logging.INFO, "hello")
        import reprlib

        assert reprlib.repr("a") == "'a'"
    finally:
        sight.remove(id)


def test_injections_come_and_go_under_calls_from_threads(mod: Any) -> None:
    wrong: list[Any] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                if mod.step(1, batch=2) != 3 or mod.Base().forward(3) != 30:
                    wrong.append("result")
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(150):
        one = sight.inject_metric(f"{M}:step", "result", 2.0)
        two = sight.inject_metric(f"{M}:Base.forward", "args.x")
        sight.remove(one)
        sight.remove(two)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_code_pickled_by_value_is_the_function_as_it_was(mod: Any, tmp_path: Any) -> None:
    import cloudpickle

    sight.inject_metric(f"{M}:double", "result")
    cloudpickle.register_pickle_by_value(mod)
    try:
        (tmp_path / "function").write_bytes(cloudpickle.dumps(mod.double))
    finally:
        cloudpickle.unregister_pickle_by_value(mod)
    program = (
        "import pickle, rubriscope as rs; double = pickle.load(open('function', 'rb')); "
        "print(double(4), double(x=5), rs.get_code_sight().stats())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout == "8 10 {}\n"


def test_a_property_that_fails_leaves_the_condition_undecided(mod: Any) -> None:
    class Broken:
        @property
        def loss(self) -> float:
            raise RuntimeError("no")

    mod.Result = lambda loss: Broken()
    sight.inject_log(f"{M}:result", "result.loss > 1", "x", "fail_closed")
    failures = sight.failures
    mod.result(1)
    assert [(one.hits, one.undecided) for one in sight.injections()] == [(0, 1)]
    assert sight.failures == failures


# -- the grammar, with Python as the oracle ---------------------------------------------------------------

_numbers = st.sampled_from(["1", "2", "0.5", "3", "args.a", "args.b", "len(args.c)", "result"])
_texts = st.sampled_from(["'x'", "args.d", '"y"'])


def _expressions() -> st.SearchStrategy[str]:
    numeric = st.recursive(
        _numbers,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            inner.map(lambda x: f"-{x}"),
            st.tuples(inner, inner).map(lambda t: f"min({t[0]}, {t[1]})"),
            st.tuples(inner, inner, inner).map(lambda t: f"max({t[0]}, {t[1]}, {t[2]})"),
            inner.map(lambda x: f"abs({x})"),
        ),
        max_leaves=6,
    )
    compared = st.one_of(
        st.tuples(
            numeric, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numeric,
            st.sampled_from(["<", "=="]), numeric,
        ).map(lambda t: " ".join(t)),
        st.tuples(numeric, st.sampled_from(["<", ">=", "=="]), numeric).map(lambda t: "".join(t)),
        st.tuples(_texts, st.sampled_from(["==", "!=", "<"]), _texts).map(lambda t: " ".join(t)),
    )  # fmt: skip
    return st.recursive(
        compared,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(lambda t: "".join(t)),
            inner.map(lambda x: f"not ({x})"),
            inner.map(lambda x: f"not {x}"),
        ),
        max_leaves=5,
    )


class _Args:
    def __init__(self, a: float, b: float, c: list[int], d: str) -> None:
        self.a, self.b, self.c, self.d = a, b, c, d


def _probe(a: float, b: float, c: list[int], d: str) -> float:
    return a * 2


@settings(deadline=None, max_examples=300)
@given(_expressions(), st.integers(-3, 3), st.floats(-4, 4), st.integers(0, 3), st.sampled_from("xy "))
def test_conditions_agree_with_python(text: str, a: float, b: float, n: int, d: str) -> None:
    args = _Args(a, b, [0] * n, d)
    try:
        expected: bool | None = bool(eval(text, {}, {"args": args, "result": a * 2}))
    except ZeroDivisionError:
        expected = None  # ours is IEEE's, which may decide either way
    id = sight.inject_log(f"{__name__}:_probe", text, "", "metric")
    try:
        _probe(a, b, args.c, d)
        [one] = sight.injections()
        assert one.undecided == 0
        assert expected is None or one.hits == int(expected), (text, vars(args))
    finally:
        sight.remove(id)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="ab1.()[]<>=!+-*/%'\"{} andornot,_é\\", max_size=30))
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    try:
        id = sight.inject_log(f"{__name__}:_probe", text, "", "metric")
    except ValueError as error:
        assert text in str(error)
    else:
        _probe(1, 2, [], "")
        sight.remove(id)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected a value at character 1"),
        ("1 +", "expected a value at character 4"),
        ("(1", r"expected \) at character 3"),
        ("1 2", "expected an operator or the end at character 3"),
        ("args.a =< 1", "at character 8"),
        ("open('x')", "no function open"),
        ("__import__", "no value __import__"),
        ("args.a.__class__", "private names cannot be read"),
        ("args.nope > 1", "no argument nope"),
        ("1e999 > 2", "expected a finite number"),
        ("'open", "closing quote"),
        ("args.c[x]", "a whole number or a quoted key"),
        ("abs(1, 2)", r"abs\(\) takes one value"),
        ("(" * 100 + "1" + ")" * 100, "nested deeper than 64"),
        ("+".join(["1"] * 300), "more than 256"),
        ("1" * 5000, "4096 characters at most"),
    ],
)
def test_what_is_no_condition_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        sight.inject_log(f"{__name__}:_probe", text, "x")


def test_unknown_values_follow_kleene() -> None:
    def holds(condition: str) -> tuple[int, int]:
        id = sight.inject_log(f"{__name__}:_probe", condition, "", "metric")
        _probe(1, 2, [], "x")
        [one] = sight.injections()
        sight.remove(id)
        return one.hits, one.undecided

    unknown = "metrics.never > 1"
    assert holds(unknown) == holds(f"not {unknown}") == holds(f"{unknown} and True") == (0, 1)
    assert holds(f"{unknown} or True") == (1, 0) and holds(f"{unknown} and False") == (0, 0)
    assert holds("args.d < 1") == (0, 1), "no order between a text and a number"
    assert holds("args.d != 1") == (1, 0) and holds("args.c != None") == (1, 0)
    assert holds("args.c == 1") == (0, 1), "an object that is no number"
    assert holds("isnan(0 / 0) and 1 / 0 > 1e308 and -7 % 3 == 2 and -7 // 2 == -4 and -2 ** 2 == -4") == (
        1,
        0,
    )
    assert holds("args.c[3] == 1") == (0, 1) and holds("args.a == True") == (1, 0)


def test_compiled_code_goes_on_unobserved(mod: Any) -> None:
    def through(x: torch.Tensor) -> torch.Tensor:
        return mod.double(x) + 1

    x = torch.arange(3.0)
    before = torch.compile(through, backend="eager", fullgraph=True)
    assert before(x).tolist() == [1, 3, 5]
    id = sight.inject_metric(f"{M}:double", "execution_time_ms")
    after = torch.compile(lambda x: through(x) * 2, backend="eager", fullgraph=True)
    assert before(x).tolist() == [1, 3, 5] and after(x).tolist() == [2, 6, 10]
    assert point("double") not in {one.name for one in sight.observations()}, "compiled code is not observed"
    assert through(x).tolist() == [1, 3, 5] and last(point("double"))
    sight.remove(id)
    assert before(x).tolist() == [1, 3, 5] and after(x).tolist() == [2, 6, 10]
