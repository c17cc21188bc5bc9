"""Sight points: what they keep of a function, what they count and record, what they do."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import logging
import math
import multiprocessing
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import rubriscope as rs
import torch
from hypothesis import given
from hypothesis import strategies as st

code_sight = rs.get_code_sight()


def last(name: str) -> Any:
    return [one for one in code_sight.observations(last=100) if one.name == name][-1]


@rs.sight_point(name="t.add", modality="simulation", metrics=["latency_ms", "sum"])
def add(a: int, b: int = 2, *, c: int = 0) -> int:
    """Adds."""
    rs.metric("sum", a + b + c)
    return a + b + c


class Car:
    @rs.sight_point
    def drive(self, by: int) -> tuple[Any, int]:
        return self, by

    @staticmethod
    @rs.sight_point
    def static_outer(x: int) -> int:
        return x

    @rs.sight_point
    @staticmethod
    def static_inner(x: int) -> int:
        return x

    @classmethod
    @rs.sight_point
    def class_outer(cls) -> type:
        return cls

    @rs.sight_point
    @classmethod
    def class_inner(cls) -> type:
        return cls


def test_what_a_function_says_of_itself_stays() -> None:
    assert add(1) == 3 and add(1, b=5, c=1) == 7
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Adds.", __name__)
    assert str(inspect.signature(add)) == "(a: 'int', b: 'int' = 2, *, c: 'int' = 0) -> 'int'"
    assert pickle.loads(pickle.dumps(add)) is add and copy.deepcopy(add) is add
    assert pickle.loads(pickle.dumps(Car.drive)) is Car.drive
    assert inspect.unwrap(add) is add.__wrapped__  # type: ignore[attr-defined]
    assert functools.partial(add, 1)(1) == 2
    with pytest.raises(TypeError, match="add"):
        add()  # type: ignore[call-arg]


def test_methods_bind() -> None:
    car = Car()
    assert car.drive(3) == (car, 3) and Car.drive(car, 4) == (car, 4) and car.drive(by=5) == (car, 5)
    assert Car.static_outer(1) == car.static_outer(1) == Car.static_inner(1) == car.static_inner(1) == 1
    assert Car.class_outer() is car.class_outer() is Car.class_inner() is car.class_inner() is Car
    assert code_sight.stats()[f"{__name__}:Car.drive"].count == 3


def test_every_call_is_counted_and_the_window_holds_ten_thousand() -> None:
    @rs.sight_point(name="t.count")
    def odd(i: int) -> int:
        if i % 4 == 0:
            raise KeyError(i)
        return i

    for i in range(12_000):
        if i % 4 == 0:
            with pytest.raises(KeyError) as raised:
                odd(i)
            assert raised.value.args == (i,)
        else:
            odd(i)
    stats = code_sight.stats()["t.count"]
    assert (stats.count, stats.errors) == (12_000, 3_000)
    assert 0 < stats.p50_ms <= stats.p95_ms <= stats.p99_ms <= stats.total_ms and stats.last > 0
    seen = code_sight.observations()
    assert len(seen) == 10_000 and len(code_sight.observations(last=3)) == 3
    assert [one.outcome for one in seen[-4:]] == ["error", "success", "success", "success"]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_the_last_value_of_a_metric_counts(values: list[float]) -> None:
    with rs.sight("t.values", metrics=["a"]) as s:
        for i, value in enumerate(values):
            s.metric("a", value)
            rs.metric(f"b{i}", -value)
    assert last("t.values").metrics == {"a": values[-1], **{f"b{i}": -v for i, v in enumerate(values)}}


def test_metric_reaches_the_innermost() -> None:
    @rs.sight_point(name="t.inner")
    def inner() -> None:
        assert rs.metric("depth", 2)

    @rs.sight_point(name="t.outer")
    def outer() -> None:
        with rs.sight("t.block"):
            inner()
            rs.metric("depth", 1)
        rs.metric("depth", 0)

    assert not rs.metric("depth", 9)
    outer()
    assert [last(f"t.{n}").metrics["depth"] for n in ("outer", "block", "inner")] == [0, 1, 2]


def test_threads_and_tasks_do_not_mix() -> None:
    @rs.sight_point(name="t.plain")
    def plain(i: int) -> None:
        barrier.wait()
        rs.metric("i", i)
        barrier.wait()

    barrier = threading.Barrier(4)
    threads = [threading.Thread(target=plain, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o.metrics["i"] for o in code_sight.observations(4)) == [0, 1, 2, 3]

    @rs.sight_point(name="t.task")
    async def task(i: int) -> int:
        await asyncio.sleep(0.002 * (5 - i))
        rs.metric("i", i)
        with rs.sight("t.task_block") as s:
            await asyncio.sleep(0)
            rs.metric("i", i + 100)
            s.metric("j", i)
        rs.metric("k", i)
        return i

    async def main() -> list[int]:
        return list(await asyncio.gather(*(task(i) for i in range(5))))

    assert inspect.iscoroutinefunction(task) and asyncio.iscoroutinefunction(task)
    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    seen = code_sight.observations(10)
    assert sorted(o.metrics["i"] for o in seen if o.name == "t.task") == [0, 1, 2, 3, 4]
    assert all(o.metrics["k"] == o.metrics["i"] for o in seen if o.name == "t.task")
    assert all(o.metrics["i"] == o.metrics["j"] + 100 for o in seen if o.name == "t.task_block")
    assert last("t.task").duration_ns >= 2_000_000


def test_generators() -> None:
    closed: list[int] = []

    @rs.sight_point(name="t.gen")
    def count(n: int) -> Iterator[Any]:
        got = []
        try:
            for i in range(n):
                rs.metric("i", i)
                try:
                    got.append((yield i))
                except ValueError:
                    got.append("caught")
            return got
        finally:
            closed.append(n)

    def stats() -> int:
        known = code_sight.stats().get("t.gen")
        return known.count if known else 0

    assert inspect.isgeneratorfunction(count)
    assert list(count(3)) == [0, 1, 2] and stats() == 1
    running: Any = count(3)
    assert next(running) == 0 and stats() == 1
    assert not rs.metric("i", 99)  # the generator is suspended: nothing runs here
    assert running.send("x") == 1 and running.throw(ValueError()) == 2
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value == ["x", "caught", None] and stats() == 2
    early = count(5)
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert closed[-1] == 5 and stats() == 3 and last("t.gen").outcome == "success"
    failing: Any = count(2)
    next(failing)
    with pytest.raises(KeyError):
        failing.throw(KeyError("k"))
    assert stats() == 4 and last("t.gen").outcome == "error"
    del early, failing


def test_async_generators() -> None:
    @rs.sight_point(name="t.agen")
    async def ticks(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            rs.metric("i", i)
            yield i

    async def main() -> None:
        assert [i async for i in ticks(3)] == [0, 1, 2]
        early: Any = ticks(3)
        assert await early.asend(None) == 0
        assert not rs.metric("i", 9)
        await early.aclose()
        failing: Any = ticks(3)
        await failing.asend(None)
        with pytest.raises(KeyError):
            await failing.athrow(KeyError("k"))

    assert inspect.isasyncgenfunction(ticks)
    asyncio.run(main())
    stats = code_sight.stats()["t.agen"]
    assert (stats.count, stats.errors) == (3, 1)


def test_conditions_and_actions(caplog: pytest.LogCaptureFixture) -> None:
    def point(action: str) -> Any:
        @rs.sight_point(
            name=f"t.act_{action}", metrics=["residual"], conditions={"threshold": 1.2}, action=action
        )
        def run(value: float, *, note: str = "") -> float:
            rs.metric("residual", value)
            return value

        return run

    alerts: list[Any] = []
    run = point("alert")
    with code_sight.on_alert(alerts.append):
        run(1.2)
        run(1.3)
        run(math.nan)
    run(5.0)
    assert [one.violation for one in alerts] == ["residual 1.3 > 1.2", "residual NaN > 1.2"]
    assert alerts[0].metrics == {"residual": 1.3} and alerts[0].name == "t.act_alert"
    with caplog.at_level(logging.INFO, "rubriscope.sight"):
        point("log")(2.0)
    assert "residual 2 > 1.2" in caplog.text.replace("2.0", "2")
    closed = point("fail_closed")
    assert closed(1.0) == 1.0
    with pytest.raises(rs.FailClosed, match=r"t\.act_fail_closed: residual 1\.5 > 1\.2"):
        closed(1.5)
    assert last("t.act_fail_closed").outcome == "blocked"
    with pytest.raises(rs.FailClosed), rs.sight("t.closing", conditions={"x": 0}, action="fail_closed") as s:
        s.metric("x", 1)


def test_a_failing_handler_is_contained(capfd: pytest.CaptureFixture[str]) -> None:
    def bad(alert: Any) -> None:
        raise RuntimeError("broken handler")

    before = code_sight.failures
    with code_sight.on_alert(bad):
        for _ in range(3):
            with rs.sight("t.bad", conditions={"x": 0}, action="alert") as s:
                s.metric("x", 1)
    assert code_sight.failures == before + 3
    assert capfd.readouterr().err.count("broken handler") == (1 if before == 0 else 0)


def test_a_snapshot_of_what_cannot_be_shown_is_contained() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    @rs.sight_point(name="t.snap_bad", action="snapshot")
    def f(x: object) -> object:
        return x

    bad = Bad()
    assert f(bad) is bad and code_sight.stats()["t.snap_bad"].count == 1


def test_disabled_points_do_nothing() -> None:
    code_sight.disable("t.add")
    before = code_sight.stats()["t.add"].count
    assert add(1) == 3
    code_sight.enable("t.add")
    add(1)
    assert code_sight.stats()["t.add"].count == before + 1
    with pytest.raises(KeyError):
        code_sight.disable("nobody")


def test_observations_are_recorded(tmp_path: Path) -> None:
    @rs.sight_point(name="t.rec", modality="vision_processing", metrics=["m"], action="snapshot")
    def f(x: int, *, y: str) -> int:
        if x == 3:
            raise ValueError("three")
        if x != 1:
            rs.metric("m", x)
        return -x

    with rs.record(tmp_path / "a.db", session="a") as first:
        f(0, y="é")
        f(1, y="b")
        with rs.record(tmp_path / "b.db", session="b") as second:
            f(2, y="c")
            code_sight.attach(first)
            with pytest.raises(ValueError, match="three"):
                f(3, y="d")
            code_sight.attach(None)
            with rs.sight("t.rec_block") as s:
                s.metric("new", 1)
            with rs.sight("t.rec_block") as s:
                s.metric("newer", 2)
            assert second.stats().dropped == 0
        f(4, y="e")
    f(5, y="f")
    events = list(rs.Film(tmp_path / "a.db").events(kind="observation"))
    assert [e.values for e in events] == [{"m": 0}, {}, {}, {"m": 4}]
    assert events[0].fields == {"arguments": "(0, y='é')", "result": "0"}
    assert events[2].outcome == "error" and events[2].fields["error"] == "ValueError: three"
    assert events[0].attributes == {"modality": "vision_processing"} and events[0].duration_ns > 0
    other = list(rs.Film(tmp_path / "b.db").events(kind="observation"))
    assert [(e.name, e.values) for e in other] == [
        ("t.rec", {"m": 2}),
        ("t.rec_block", {"new": 1}),
        ("t.rec_block", {"newer": 2}),
    ]
    with pytest.raises(ValueError, match="closed"):
        code_sight.attach(first)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="no modality"):
        rs.sight("t.x", modality="smell")
    assert rs.Modality.register("smell") in rs.Modality.names()
    rs.sight("t.smell", modality="smell")
    with pytest.raises(ValueError, match="is there already"):
        rs.sight("t.smell", modality="simulation")
    with pytest.raises(ValueError, match="no action"):
        rs.sight("t.y", action="explode")
    with pytest.raises(ValueError, match="needs conditions"):
        rs.sight("t.z", action="alert")
    with pytest.raises(TypeError, match="decorates functions"):
        rs.sight_point(3)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="list of names"):
        rs.sight("t.w", metrics="latency_ms")
    block = rs.sight("t.twice")
    with block, pytest.raises(RuntimeError, match="entered already"):
        block.__enter__()


def test_times_that_are_measured_without_being_given() -> None:
    with rs.sight("t.times", metrics=["latency_ms", "cpu_time_ms"]):
        sum(range(200_000))
    seen = last("t.times")
    assert seen.metrics["latency_ms"] == pytest.approx(seen.duration_ns / 1e6)
    assert seen.metrics["cpu_time_ms"] > 0


def test_messages_texts_and_tensors_are_recorded(tmp_path: Path) -> None:
    assert not code_sight.log_log("t.log", "nobody records")
    assert not code_sight.log_tensor("t.tensor", torch.zeros(2))
    tensor = torch.tensor([[1.0, -3.0, 0.0], [math.nan, math.inf, 4.0]], dtype=torch.bfloat16)
    finite = torch.tensor([1.0, -3.0, 0.0, 4.0], dtype=torch.float64)
    with rs.record(tmp_path / "a.jsonl", session="a"):
        assert code_sight.log_log("t.log", "grüße", "warning")
        assert code_sight.log_log("t.log", "bad", level="error")
        assert code_sight.log_text("t.text", "a\nb")
        assert code_sight.log_tensor("t.tensor", tensor.t())
        assert code_sight.log_tensor("t.tensor", torch.arange(3))
        with pytest.raises(ValueError, match="no level"):
            code_sight.log_log("t.log", "x", "loud")
        with pytest.raises(TypeError, match="takes a str"):
            code_sight.log_text("t.text", b"x")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"expected a torch\.Tensor"):
            code_sight.log_tensor("t.tensor", 3)  # type: ignore[arg-type]
    first, second, text, stats, integers = rs.Film(tmp_path / "a.jsonl").events(kind="observation")
    assert first.fields == {"message": "grüße", "level": "warning"} and first.outcome == "success"
    assert second.outcome == "error" and first.attributes == {"type": "log"}
    assert text.fields == {"text": "a\nb"} and text.name == "t.text"
    assert stats.values == {
        "count": 6,
        "mean": finite.mean().item(),
        "std": pytest.approx(finite.std().item(), rel=1e-14),
        "min": -3,
        "max": 4,
        "nan": 1,
        "inf": 1,
        "zero": 1,
    }
    assert (stats.fields["shape"], stats.fields["dtype"], stats.fields["device"]) == (
        [3, 2],
        "bfloat16",
        "cpu",
    )
    assert sum(stats.fields["histogram"]) == 3
    assert integers.fields["dtype"] == "int64" and integers.values["max"] == 2


def test_a_forked_worker_records_into_the_same_session(tmp_path: Path) -> None:
    with rs.record(tmp_path / "a.db", session="a"):
        add(1)
        process = multiprocessing.get_context("fork").Process(target=add, args=(2,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
        add(3)
    events = list(rs.Film(tmp_path / "a.db").events(kind="observation", name="t.add"))
    assert sorted(e.values["sum"] for e in events) == [3, 4, 5]
    assert len({e.writer for e in events}) == 2
