"""Observations that know their trace: spans of the tracer, traces of MultimodalTracer, their recording."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import rubriscope as rs
from rubriscope import _C

code_sight = rs.get_code_sight()
current = rs.MultimodalTracer.current_trace_id


@pytest.fixture
def tracer() -> Iterator[rs.MultimodalTracer]:
    assert current() is None
    yield rs.MultimodalTracer()
    assert current() is None  # every test restores the context


@rs.sight_point(name="tr.plan", modality="planning", metrics=["steps"])
def plan(steps: int) -> str | None:
    rs.metric("steps", steps)
    return current()


@rs.sight_point(name="tr.look", modality="vision_processing")
async def look() -> str | None:
    await asyncio.sleep(0)
    return current()


def last() -> Any:
    return code_sight.observations(1)[0]


def test_outside_a_trace_there_are_no_ids(tracer: rs.MultimodalTracer, tmp_path: Path) -> None:
    with rs.record(tmp_path / "a.db", session="a"):
        assert plan(1) is None
    assert (last().trace_id, last().parent_id) == (None, None)
    (event,) = rs.Film(tmp_path / "a.db").events(kind="observation")
    assert event.fields == {}


def test_sight_points_join_the_open_trace(tracer: rs.MultimodalTracer) -> None:
    trace_id = tracer.start_trace("answer", "planning", user="u1")
    assert plan(1) == trace_id and last().trace_id == last().parent_id == trace_id
    asyncio.run(look())
    assert (last().name, last().trace_id) == ("tr.look", trace_id)
    with rs.sight("tr.code", modality="code_execution"):
        pass
    assert tracer.add_event(trace_id, "tool_calling", "search", {"q": "é"}, duration_ms=2) is False
    assert plan(2) == trace_id
    view = tracer.get_trace(trace_id)
    assert (view.status, view.name, view.modality, view.metadata) == (
        "open",
        "answer",
        "planning",
        {"user": "u1"},
    )
    assert view.parent_id is None and view.dropped == 0
    tracer.end_trace(trace_id, cost="low")
    assert plan(3) is None and last().trace_id is None
    view = tracer.get_trace(trace_id)
    assert [(one.kind, one.modality, one.name) for one in view.events] == [
        ("observation", "planning", "tr.plan"),
        ("observation", "vision_processing", "tr.look"),
        ("observation", "code_execution", "tr.code"),
        ("event", "tool_calling", "search"),
        ("observation", "planning", "tr.plan"),
    ]
    assert view.events[0].data == {"steps": 1} and view.events[3].data == {"q": "é"}
    assert view.events[3].duration_ns == 2_000_000
    assert [one.time_ns for one in view.events] == sorted(one.time_ns for one in view.events)
    assert view.status == "success" and view.metadata == {"user": "u1", "cost": "low"}
    assert view.duration_ns > 0 and view.start_ns <= view.events[0].time_ns


def test_spans_of_the_tracer_are_the_same_context(tracer: rs.MultimodalTracer) -> None:
    rs.tracer.enable(None)
    try:
        with rs.tracer.span("sys", "request") as outer:
            plan(0)
            assert (last().trace_id, last().parent_id) == (outer.trace_id, outer.trace_id)
            with rs.tracer.span("mem", "read") as inner:
                plan(1)
                assert (last().trace_id, last().parent_id) == (outer.trace_id, inner.trace_id)
                with tracer.trace("t") as trace:
                    assert rs.tracer.current_span().trace_id == trace.trace_id
                    plan(2)
                    assert (last().trace_id, last().parent_id) == (trace.trace_id, trace.trace_id)
                    with rs.tracer.span("rsn", "classify") as below:
                        plan(3)
                        assert (last().trace_id, last().parent_id) == (trace.trace_id, below.trace_id)
                        assert below.parent_id == trace.trace_id
                        assert below.w3c_trace_id == outer.w3c_trace_id
                    assert rs.tracer.current_span().trace_id == trace.trace_id
                assert tracer.get_trace(trace.trace_id).parent_id == inner.trace_id
                assert current() == outer.trace_id
            plan(4)
            assert last().parent_id == outer.trace_id
        headers: dict[str, str] = {}
        with rs.tracer.span("sys", "send") as sender:
            rs.tracer.inject(headers)
        with rs.tracer.extract(headers):
            plan(5)
            assert (last().trace_id, last().parent_id) == (sender.trace_id, sender.trace_id)
        foreign = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
        with rs.tracer.extract(foreign):
            plan(6)
            assert (last().trace_id, last().parent_id) == ("ab" * 16, "cd" * 8)
    finally:
        rs.tracer.disable()


def test_an_observation_belongs_where_it_began(tracer: rs.MultimodalTracer) -> None:
    @rs.sight_point(name="tr.gen", modality="planning")
    def numbers() -> Iterator[int]:
        yield 1
        yield 2

    with tracer.trace("first") as first:
        generator = numbers()
        next(generator)
    with tracer.trace("second") as second:
        assert next(generator) == 2
        assert list(generator) == []
        assert (last().name, last().trace_id) == ("tr.gen", first.trace_id)
        block = rs.sight("tr.around")
        with block, tracer.trace("inside"):
            pass
        assert last().trace_id == second.trace_id
    # One that nobody finishes lets go of its span.
    dropped = numbers()
    with tracer.trace("third"):
        next(dropped)
    del dropped
    gc.collect()


def test_threads_and_tasks(tracer: rs.MultimodalTracer) -> None:
    async def child() -> str | None:
        await asyncio.sleep(0.001)
        return await look()

    async def request(i: int) -> None:
        with tracer.trace(f"request {i}") as trace:
            tasks = [asyncio.create_task(child()) for _ in range(3)]
            assert set(await asyncio.gather(*tasks)) == {trace.trace_id}
            assert await asyncio.to_thread(plan, i) == trace.trace_id
            own = asyncio.create_task(nested(trace.trace_id))
            await own
            assert current() == trace.trace_id  # what a task opens stays in it
        assert len(tracer.get_trace(trace.trace_id).events) == 4

    async def nested(outer: str) -> None:
        inner = tracer.start_trace("nested")
        assert tracer.get_trace(inner).parent_id == outer
        assert await look() == inner
        tracer.end_trace(inner)
        assert current() == outer

    async def main() -> None:
        await asyncio.gather(*(request(i) for i in range(8)))
        assert current() is None

    asyncio.run(main())

    def work(i: int) -> bool:
        with tracer.trace(f"thread {i}") as trace:
            barrier.wait()
            same = plan(i) == trace.trace_id
            barrier.wait()
        return same and current() is None

    barrier = threading.Barrier(4)
    with tracer.trace("outer") as outer, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
        assert pool.submit(plan, 9).result() is None  # threads begin with an empty context
        assert pool.submit(rs.tracer.wrap(plan), 9).result() == outer.trace_id


def test_a_trace_is_ended_from_anywhere_and_then_nobody_stands_in_it(tracer: rs.MultimodalTracer) -> None:
    with tracer.trace("outer") as outer:
        trace_id = tracer.start_trace("t")
        thread = threading.Thread(target=tracer.end_trace, args=(trace_id,))
        thread.start()
        thread.join()
        assert plan(1) == outer.trace_id and tracer.get_trace(trace_id).status == "success"
    assert plan(1) is None

    async def main() -> None:
        one = tracer.start_trace("one")
        late = asyncio.create_task(after())
        early = asyncio.create_task(end(one))
        await early
        assert current() is None  # ended by a task whose context is a copy of this one
        gate.set()
        assert await late is None

    async def end(trace_id: str) -> None:
        tracer.end_trace(trace_id)

    async def after() -> str | None:
        await gate.wait()
        return plan(2)

    gate = asyncio.Event()
    asyncio.run(main())
    # Not nested: the first ends first.
    first = tracer.start_trace("first")
    second = tracer.start_trace("second")
    tracer.end_trace(first)
    assert plan(3) == second
    tracer.end_trace(second)
    assert current() is None
    # An event added from elsewhere stands in its own trace.
    with tracer.trace("one") as one, tracer.trace("two") as two:
        one.add_event("planning", "from two")
        two.add_event("planning", "from two")
    for trace in (one, two):
        (event,) = tracer.get_trace(trace.trace_id).events
        assert event.parent_id == trace.trace_id


def test_a_chain_of_tasks_that_trace_does_not_grow(tracer: rs.MultimodalTracer) -> None:
    kept: list[weakref.ref[Any]] = []
    tracer = rs.MultimodalTracer(max_traces=2)

    class Noticed(str):
        pass

    async def step(left: int) -> None:
        name = Noticed("step")
        kept.append(weakref.ref(name))
        trace_id = tracer.start_trace(name)
        del name
        following = asyncio.create_task(step(left - 1)) if left else None
        await asyncio.sleep(0)
        tracer.end_trace(trace_id)
        if following is not None:
            tasks.append(following)

    async def main() -> None:
        await step(50)
        while tasks:
            await tasks.pop()

    tasks: list[Any] = []
    asyncio.run(main())
    gc.collect()
    assert len(kept) == 51 and sum(one() is not None for one in kept) <= 3


def test_status_and_errors(tracer: rs.MultimodalTracer) -> None:
    with pytest.raises(RuntimeError, match="broken"), tracer.trace("t") as failed:
        raise RuntimeError("broken")
    assert tracer.get_trace(failed.trace_id).status == "error"
    trace_id = tracer.start_trace("t")
    tracer.end_trace(trace_id, "blocked", reason="not allowed")
    view = tracer.get_trace(trace_id)
    assert (view.status, view.metadata) == ("blocked", {"reason": "not allowed"})
    with pytest.raises(ValueError, match="ended"):
        tracer.end_trace(trace_id)
    with pytest.raises(ValueError, match="ended"):
        tracer.add_event(trace_id, "planning", "late")
    with tracer.trace("t") as trace:
        with pytest.raises(ValueError, match="no modality"):
            trace.add_event("smell_of", "x")
        with pytest.raises(ValueError, match="status is"):
            trace.add_event("planning", "x", status="fine")
        with pytest.raises(ValueError, match="type is a str"):
            trace.add_event("planning", "")
        with pytest.raises(ValueError, match="duration_ms"):
            trace.add_event("planning", "x", duration_ms=-1)
        with pytest.raises(ValueError, match="status is"):
            tracer.end_trace(trace.trace_id, "fine")  # type: ignore[arg-type]
        tracer.end_trace(trace.trace_id)  # inside its block
    for call in (tracer.get_trace, tracer.end_trace):
        with pytest.raises(KeyError, match="no trace"):
            call("mmt_1_0000000000000001")
    with pytest.raises(ValueError, match="no modality"):
        tracer.start_trace("t", "smell_of")
    with pytest.raises(TypeError, match="name is a str"):
        tracer.start_trace(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 or more"):
        rs.MultimodalTracer(max_traces=0)


def test_memory_is_bounded() -> None:
    tracer = rs.MultimodalTracer(max_traces=3, max_events=5)
    long = tracer.start_trace("long", note="x" * 10_000)
    for i in range(8):
        tracer.add_event(long, "planning", "step", {"i": i})
    view = tracer.get_trace(long)
    assert view.dropped == 3 and [one.data["i"] for one in view.events] == [3, 4, 5, 6, 7]
    assert len(view.metadata["note"]) <= 4001
    tracer.add_event(long, "planning", "step", "y" * 10_000)
    tracer.add_event(long, "planning", "step", b"\x00" * 10_000)
    kept = [one.data for one in tracer.get_trace(long).events]
    assert kept[-1] == "10000 bytes" and len(kept[-2]) <= 4002
    ended = []
    for i in range(3):
        with tracer.trace(f"t{i}") as trace:
            ended.append(trace.trace_id)
    # An open one stays, the oldest that has ended goes.
    assert tracer.trace_ids() == [long, *ended[1:]] and tracer.dropped_traces == 1
    tracer.end_trace(long)
    with tracer.trace("more"):
        pass
    with pytest.raises(KeyError):
        tracer.get_trace(long)
    # A block whose trace went is left all the same.
    small = rs.MultimodalTracer(max_traces=1)
    with small.trace("a"):
        with small.trace("b"):
            pass
        assert current() is not None
    assert current() is None


def test_what_data_cannot_say_is_its_text(tracer: rs.MultimodalTracer, tmp_path: Path) -> None:
    with (
        rs.record(tmp_path / "a.db", session="a"),
        tracer.trace("\ud800", odd={1, 2}, lone="\udfff") as trace,
    ):
        assert trace.add_event("planning", "lone", "\ud800")
        assert trace.add_event("planning", "object", object())
        assert trace.add_event("planning", "nothing")
        assert trace.add_event("planning", "number", 7)
        assert trace.add_event("planning", "nan", float("nan"))
    start, *events = rs.Film(tmp_path / "a.db").events(kind="observation")
    assert start.fields["name"] == "?"
    assert events[0].fields["data"] == "?"
    assert events[2].fields.get("data") is None and events[3].fields["data"] == 7


def test_the_recording_holds_beginning_events_and_end(tracer: rs.MultimodalTracer, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with rs.record(path, session="a"):
        with tracer.trace("outer") as outer:
            trace_id = tracer.start_trace("a long name " * 20, "planning", user="u1")
            plan(3)
            code_sight.log_log("nav", "recalculating", "warning")
            code_sight.log_text("note", "text")
            assert tracer.add_event(
                trace_id, "tool_calling", "search", {"q": [1]}, status="error", duration_ms=1.5
            )
            assert tracer.add_event(trace_id, "vision_processing", "frame", b"\x89PNG")
            tracer.end_trace(trace_id, found=3)
        code_sight.log_text("note", "outside")
    film = rs.Film(path)
    first, second, observed, logged, text, search, frame, outside = film.events(kind="observation")
    assert first.fields["trace_id"] == outer.trace_id
    assert second.fields == {
        "name": "a long name " * 20,
        "began_in": outer.trace_id,
        "trace_id": trace_id,
        "parent_id": trace_id,
    }
    assert second.metadata == {"user": "u1"}
    assert second.attributes == {"type": "trace_start", "modality": "planning"}
    for event in (observed, logged, text, search, frame):
        assert (event.fields["trace_id"], event.fields["parent_id"]) == (trace_id, trace_id)
    assert observed.values == {"steps": 3} and logged.fields["message"] == "recalculating"
    assert (search.name, search.outcome, search.duration_ns) == ("search", "error", 1_500_000)
    assert search.fields["data"] == {"q": [1]} and frame.fields["data"] == b"\x89PNG"
    assert search.attributes == {"type": "trace_event", "modality": "tool_calling"}
    assert outside.fields == {"text": "outside"}
    ended, outer_end = film.events(kind="span")
    assert (ended.fields["trace_id"], ended.fields["parent_id"]) == (trace_id, outer.trace_id)
    assert ended.metadata == {"modality": "planning", "user": "u1", "found": 3}
    assert ended.duration_ns > 0 and ended.time_ns >= frame.time_ns
    assert outer_end.fields["input_summary"] == "outer" and "parent_id" not in outer_end.fields
    with rs.connect(path) as database:
        rows = database.execute(
            "SELECT name, parent_id FROM events WHERE trace_id = ? AND kind = 'observation' ORDER BY time_ns",
            (trace_id,),
        ).fetchall()
    assert [row[0] for row in rows] == ["trace", "tr.plan", "nav", "note", "search", "frame"]


def test_the_command_line_shows_a_trace_with_its_observations(
    tracer: rs.MultimodalTracer, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    with rs.record(path, session="a"):
        with tracer.trace("answer") as trace:
            plan(3)
            code_sight.log_text("note", "hello")
        plan(4)
        other = tracer.start_trace("still open")
        plan(5)
        asyncio.run(look())

    def view(*options: str) -> str:
        command = [sys.executable, "-m", "rubriscope", "trace", "view", str(path), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    shown = view("--trace-id", trace.trace_id).splitlines()
    assert shown[0].startswith("[mmt] trace: answer (") and len(shown) == 3
    assert (
        shown[1].startswith("  └─[planning] tr.plan → steps 3 (") and "[text] note → text hello" in shown[2]
    )
    opened = view("--trace-id", other).splitlines()
    assert opened[0] == "[mmt] trace: still open [open]" and len(opened) == 3
    as_json = [json.loads(line) for line in view("--trace-id", trace.trace_id, "--json").splitlines()]
    assert [one["operation"] for one in as_json] == ["trace", "tr.plan", "note"]
    assert as_json[1]["metadata"] == {"steps": 3} and as_json[1]["parent_id"] == trace.trace_id
    tracer.end_trace(other)


def test_the_trace_file_has_the_trace_while_the_tracer_is_on(
    tracer: rs.MultimodalTracer, tmp_path: Path
) -> None:
    rs.tracer.enable(tmp_path / "trace.jsonl")
    try:
        with tracer.trace("answer") as trace, rs.tracer.span("mem", "read"):
            pass
    finally:
        rs.tracer.disable()
    inner, outer = map(json.loads, (tmp_path / "trace.jsonl").read_text().splitlines())
    assert (outer["trace_id"], outer["hrm_layer"], outer["input_summary"]) == (
        trace.trace_id,
        "multimodal",
        "answer",
    )
    assert inner["parent_id"] == trace.trace_id


def test_observations_and_traces_go_to_the_attached_recorder(
    tracer: rs.MultimodalTracer, tmp_path: Path
) -> None:
    with (
        rs.record(tmp_path / "a.db", session="a") as first,
        rs.record(tmp_path / "b.db", session="b"),
    ):
        with tracer.trace("to b"):
            plan(1)
        code_sight.attach(first)
        with tracer.trace("to a"):
            plan(2)
        code_sight.attach(None)
        with tracer.trace("to b again"):
            plan(3)
    names = {
        name: [event.fields["input_summary"] for event in rs.Film(tmp_path / name).events(kind="span")]
        for name in ("a.db", "b.db")
    }
    assert names == {"a.db": ["to a"], "b.db": ["to b", "to b again"]}


def test_a_recorder_nobody_closed_is_let_go(tmp_path: Path) -> None:
    with rs.record(tmp_path / "a.db", session="a"):
        recorder = rs.record(tmp_path / "b.db", session="b")
        code_sight.attach(recorder)
        plan(1)
        native = weakref.ref(recorder)
        del recorder
        gc.collect()
        assert native() is None
        assert _C.sight_recorder().session_name == "a"
        plan(2)
    assert _C.sight_recorder() is None
    assert [event.values["steps"] for event in rs.Film(tmp_path / "b.db").events()] == [1]
    assert [event.values["steps"] for event in rs.Film(tmp_path / "a.db").events()] == [2]


def _in_child(tracer: rs.MultimodalTracer, outer: str) -> None:
    assert plan(1) == outer
    with tracer.trace("child"):
        plan(2)
    tracer.add_event(outer, "planning", "from the child")


def test_a_forked_child_goes_on_in_the_trace(tracer: rs.MultimodalTracer, tmp_path: Path) -> None:
    stop = threading.Event()

    def busy() -> None:  # the lock is often held when the fork comes
        while not stop.is_set():
            tracer.trace_ids()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with rs.record(tmp_path / "a.db", session="a"), tracer.trace("t") as trace:
            for _ in range(5):
                process = multiprocessing.get_context("fork").Process(
                    target=_in_child, args=(tracer, trace.trace_id)
                )
                process.start()
                process.join(30)
                assert process.exitcode == 0
    finally:
        stop.set()
        thread.join()
    events = list(rs.Film(tmp_path / "a.db").events(kind="observation", name="tr.plan"))
    assert [event.fields["trace_id"] == trace.trace_id for event in events].count(True) == 5
    assert len(events) == 10
