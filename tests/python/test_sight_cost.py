"""Tokens and costs of sight points against sums made by hand."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rubriscope as rs
from hypothesis import given, settings
from hypothesis import strategies as st
from rubriscope.code_sight import Costs, CostStats

code_sight = rs.get_code_sight()
names = (f"cost.{i}" for i in itertools.count())
MILLION = 1_000_000


def of(name: str) -> CostStats:
    return code_sight.costs().by_point[name]


def last() -> dict[str, float]:
    return code_sight.observations(1)[0].metrics


def test_a_price_per_token_and_tokens_as_a_metric() -> None:
    @rs.sight_point(name="cost.metric", modality="text_generation", price=0.25)
    def answer(tokens: int) -> str:
        rs.metric("token_count", tokens)
        return "text"

    assert answer(10) == "text" and last() == {"token_count": 10, "cost": 2.5}
    answer(3)
    assert of("cost.metric") == CostStats(2, 13, 0, 0, 3.25, 0)


def test_prices_of_input_and_output_per_million() -> None:
    usage = SimpleNamespace(prompt_tokens=1200, completion_tokens=300)

    @rs.sight_point(
        name="cost.split",
        modality="text_generation",
        price=rs.TokenPrice(input=3.0, output=15.0, per=MILLION),
        token_count=lambda r: (r.usage.prompt_tokens, r.usage.completion_tokens),
    )
    def answer() -> Any:
        return SimpleNamespace(usage=usage)

    answer()
    assert last() == {
        "input_tokens": 1200,
        "output_tokens": 300,
        "token_count": 1500,
        "cost": pytest.approx(0.0081, rel=1e-15),
    }
    assert of("cost.split") == CostStats(1, 1500, 1200, 300, pytest.approx(0.0081, rel=1e-15), 0)
    with rs.sight("cost.thousand", price=rs.TokenPrice(2.0, per=1000), token_count=(1500, 500)):
        pass
    assert last()["cost"] == 4.0
    # The same price for both needs no more than the count.
    with rs.sight("cost.same", price=rs.TokenPrice(2.0, 2.0, per=1000), token_count=500):
        pass
    assert last() == {"token_count": 500, "cost": 1.0}


def test_what_is_not_known_is_counted() -> None:
    @rs.sight_point(name="cost.unknown", price=rs.TokenPrice(3.0, 15.0, MILLION))
    def answer(**metrics: float) -> None:
        for name, value in metrics.items():
            rs.metric(name, value)

    answer(token_count=100)  # how many of them went in?
    answer()
    answer(output_tokens=10)
    answer(token_count=100, cost=0.5)  # the provider's own bill
    assert of("cost.unknown") == CostStats(4, 210, 0, 10, 0.5 + 150 / MILLION, 2)
    # Tokens without a price are counted; a metric called cost alone is no money.
    with rs.sight("cost.free", metrics=["token_count"]) as s:
        s.metric("token_count", 7)
    assert of("cost.free") == CostStats(1, 7, 0, 0, 0.0, 0)
    with rs.sight("cost.path", modality="planning", metrics=["cost"]) as s:
        s.metric("cost", math.inf)
    assert "cost.path" not in code_sight.costs().by_point


def test_a_call_that_raised_has_no_tokens_of_its_result() -> None:
    @rs.sight_point(name="cost.raises", price=1.0, token_count=5)
    def answer(fails: bool, tokens: int | None = None) -> None:
        if tokens is not None:
            rs.metric("token_count", tokens)
        if fails:
            raise OSError("away")

    answer(False)
    for tokens in (None, 2):
        with pytest.raises(OSError, match="away"):
            answer(True, tokens)
    answer(False, 1)  # given inside: that counts
    assert of("cost.raises") == CostStats(4, 8, 0, 0, 8.0, 1)


def test_every_kind_of_function() -> None:
    price: dict[str, Any] = {"modality": "text_generation", "price": 2.0}

    @rs.sight_point(name="cost.async", token_count=len, **price)
    async def coroutine() -> list[int]:
        await asyncio.sleep(0)
        return [1, 2, 3]

    @rs.sight_point(name="cost.gen", token_count=lambda r: r, **price)
    def generator() -> Iterator[int]:
        yield 1
        return 4

    @rs.sight_point(name="cost.agen", token_count=6, **price)
    async def async_generator() -> AsyncIterator[int]:
        yield 1

    async def main() -> None:
        assert await coroutine() == [1, 2, 3]
        assert [i async for i in async_generator()] == [1]
        early: Any = async_generator()
        await early.asend(None)
        await early.aclose()

    asyncio.run(main())
    assert list(generator()) == [1]
    early = generator()
    next(early)
    early.close()  # type: ignore[attr-defined]
    assert of("cost.async") == CostStats(1, 3, 0, 0, 6.0, 0)
    assert of("cost.gen") == CostStats(2, 4, 0, 0, 8.0, 1)
    assert of("cost.agen") == CostStats(2, 6, 0, 0, 12.0, 1)

    class Model:
        @rs.sight_point(name="cost.method", token_count=lambda r: r, **price)
        def method(self, n: int) -> int:
            return n

    assert Model().method(3) == 3 and of("cost.method").tokens == 3


def test_a_failing_or_silent_token_function_is_contained() -> None:
    results: list[Any] = [None, "no number", -1, 2.5, (1, "x"), 3]

    @rs.sight_point(name="cost.bad", price=1.0, token_count=lambda r: results[r])
    def answer(i: int) -> int:
        return i

    before = code_sight.failures
    for i in [*range(len(results)), 99]:
        assert answer(i) == i
    assert code_sight.failures == before + 5
    assert of("cost.bad") == CostStats(7, 4, 1, 0, 4.0, 5)


def test_a_limit_on_the_cost() -> None:
    with (
        pytest.raises(rs.FailClosed, match=r"cost 12(\.0)? > 10"),
        rs.sight("cost.limit", price=1.0, conditions={"cost": 10}, action="fail_closed") as s,
    ):
        s.metric("token_count", 12)
    assert of("cost.limit").cost == 12.0  # it was spent


def test_what_is_refused() -> None:
    with rs.sight("cost.counts", metrics=["token_count"], price=1.0) as s:
        for value in (-1, 0.5, math.nan, math.inf, 1e13):
            with pytest.raises(ValueError, match="whole number"):
                s.metric("token_count", value)
        with pytest.raises(ValueError, match="finite"):
            rs.metric("cost", math.nan)
        s.metric("token_count", 1)
    assert of("cost.counts") == CostStats(1, 1, 0, 0, 1.0, 0)
    price: Any
    for price in (-1.0, math.inf, rs.TokenPrice(1.0, math.nan), rs.TokenPrice(1.0, per=0)):
        with pytest.raises(ValueError, match="price"):
            rs.sight(next(names), price=price)
    for price in ("1", True, (1, 2)):
        with pytest.raises(TypeError, match="price is"):
            rs.sight(next(names), price=price)
    tokens: Any
    for tokens in (1.5, "5", (1, 2, 3), True, lambda r: 1):
        with pytest.raises(TypeError):
            rs.sight(next(names), token_count=tokens)
    with pytest.raises(ValueError, match="from 0"):
        rs.sight(next(names), token_count=-1)
    with pytest.raises(TypeError, match="no result"):

        @rs.sight_point(name=next(names), token_count=len)
        async def ticks() -> AsyncIterator[int]:
            yield 1

    with pytest.raises(ValueError, match="is there already"):
        rs.sight("cost.counts", metrics=["token_count"], price=2.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 2), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=30,
    ),
    st.floats(0, 1e3, allow_nan=False),
    st.floats(0, 1e3, allow_nan=False),
    st.sampled_from([1, 1000, MILLION]),
)
def test_sums_are_those_by_hand(
    calls: list[tuple[int, int, int, bool, bool]], cheap: float, dear: float, per: int
) -> None:
    points = [next(names) for _ in range(2)]
    modality = rs.Modality.register(points[0].replace(".", "_"))
    prices = [rs.TokenPrice(cheap, per=per), rs.TokenPrice(cheap, dear, per=per)]
    tracer = rs.MultimodalTracer()
    by_hand: dict[Any, list[Any]] = {}

    def note(key: Any, tokens: int, cost: Fraction) -> None:
        sums = by_hand.setdefault(key, [0, 0, Fraction(0)])
        sums[0] += 1
        sums[1] += tokens
        sums[2] += cost

    traces = [tracer.start_trace("outer")]
    for into, out, which, split, nested in calls:
        point, price = points[which % 2], prices[which % 2]
        split = split or not price.flat or into + out > 10**12
        with nullcontext() if not nested else tracer.trace("nested") as inner:
            trace_id = traces[0] if inner is None else inner.trace_id
            with rs.sight(point, modality=modality, price=price) as s:
                if split:
                    s.metric("input_tokens", into)
                    s.metric("output_tokens", out)
                else:
                    s.metric("token_count", into + out)
        dear_one = price.input if price.output is None else price.output
        cost = (Fraction(into) * Fraction(price.input) + Fraction(out) * Fraction(dear_one)) / per
        for key in (point, "all", trace_id):
            note(key, into + out, cost)
        traces.append(trace_id)
    tracer.end_trace(traces[0])
    found = code_sight.costs()
    for key, stats in (
        *((point, found.by_point[point]) for point in points if point in by_hand),
        ("all", found.by_modality[modality]),
        *((trace_id, found.by_trace[trace_id]) for trace_id in traces if trace_id in by_hand),
    ):
        count, tokens, cost = by_hand[key]
        assert (stats.calls, stats.tokens, stats.unknown) == (count, tokens, 0)
        assert stats.cost == pytest.approx(float(cost), rel=1e-14)


def test_traces_that_fall_out_are_counted(tmp_path: Path) -> None:
    tracer = rs.MultimodalTracer(max_traces=1)
    before = code_sight.costs()
    ids = []
    for i in range(1500):
        with tracer.trace("t") as trace, rs.sight("cost.many", price=1.0, token_count=i):
            ids.append(trace.trace_id)
    after = code_sight.costs()
    assert list(after.by_trace) == ids[-1024:]
    assert [after.by_trace[one].tokens for one in ids[-1024:]] == list(range(1500 - 1024, 1500))
    assert after.dropped_traces == before.dropped_traces + len(before.by_trace) + 1500 - 1024

    def tokens(costs: Costs) -> int:
        return costs.dropped.tokens + sum(one.tokens for one in costs.by_trace.values())

    assert tokens(after) == tokens(before) + sum(range(1500))
    assert after.total.tokens == before.total.tokens + sum(range(1500))


def test_the_recording_holds_tokens_and_cost(tmp_path: Path) -> None:
    tracer = rs.MultimodalTracer()
    with rs.record(tmp_path / "a.db", session="a"), tracer.trace("t") as trace:
        for tokens in (100, 50):
            with rs.sight("cost.kept", modality="text_generation", price=0.5, token_count=tokens):
                pass
        with rs.sight("cost.kept", modality="text_generation", price=0.5):
            pass
    events = list(rs.Film(tmp_path / "a.db").events(name="cost.kept"))
    assert [event.values for event in events] == [
        {"token_count": 100, "cost": 50},
        {"token_count": 50, "cost": 25},
        {},
    ]
    with rs.connect(tmp_path / "a.db") as database:
        total = database.execute(
            "SELECT sum(value) FROM event_values WHERE trace_id = ? AND name = 'cost'", (trace.trace_id,)
        ).fetchone()[0]
    assert total == code_sight.costs().by_trace[trace.trace_id].cost == 75
