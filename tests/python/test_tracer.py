"""The layered tracer: ids, spans, parents by context, trace.jsonl, the recorder."""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import rubriscope as rs
from hypothesis import given, settings
from hypothesis import strategies as st
from rubriscope.tracer import _console

tracer = rs.tracer

ORDER = [
    "trace_id", "parent_id", "timestamp", "hrm_layer", "operation", "component", "input_summary",
    "output_summary", "duration_ms", "status", "metadata",
]  # fmt: skip


@pytest.fixture
def traced(tmp_path):
    """The tracer on; a function that gives what it wrote."""
    path = tmp_path / "trace.jsonl"
    tracer.enable(path)

    def lines():
        tracer.flush()
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    yield lines
    tracer.disable()


def test_off_is_false_and_takes_everything():
    assert not tracer.enabled()
    with tracer.span("alt", "transition", "altitude.py", "L4→L2") as ctx:
        assert not ctx
        ctx.set_output("success", reason="…")
        ctx.block("no")
    assert tracer.event("foc", "gate_check") is None
    assert tracer.current_span() is None
    with tracer.memory.write("ns", "k", "warm", 1) as ctx:
        assert not ctx
    assert ctx.trace_id is None


def test_fields_and_order(traced):
    before = datetime.now(UTC)
    with tracer.span("alt", "transition", "altitude.py", "L4→L2") as ctx:
        ctx.set_output("success", reason="asked", count=1)
        ctx.set_output("done", count=2, list=[1, None], odd=1j)
        inner = tracer.event("foc", "gate_check", "gates.py", "W", "allowed", metadata={"user_consent": True})
    child, root = traced()
    assert list(root) == ORDER
    assert root["trace_id"] == ctx.trace_id
    assert re.fullmatch(r"alt_\d+_[0-9a-f]{16}", ctx.trace_id)
    assert int(ctx.trace_id.split("_")[1]) - int(before.timestamp()) in (0, 1)
    begin = datetime.fromisoformat(root["timestamp"])
    assert before - timedelta(milliseconds=2) <= begin <= datetime.now(UTC)
    assert root["hrm_layer"] == "altitude"
    assert (root["operation"], root["component"], root["input_summary"]) == (
        "transition", "altitude.py", "L4→L2",
    )  # fmt: skip
    assert (root["output_summary"], root["status"], root["parent_id"]) == ("done", "success", None)
    assert 0 < root["duration_ms"] < 10_000
    assert root["metadata"] == {"reason": "asked", "count": 2, "list": [1, None], "odd": "1j"}
    assert child["trace_id"] == inner
    assert child["parent_id"] == ctx.trace_id
    assert (child["duration_ms"], child["metadata"]) == (0, {"user_consent": True})


def test_statuses(traced):
    with pytest.raises(ValueError, match="bad"), tracer.span("mem", "write"):
        raise ValueError("bad")
    with tracer.span("memory", "write") as ctx:
        ctx.block("not allowed", rule=7)
        assert ctx.status == "blocked"
    with pytest.raises(PermissionError), tracer.span("mem", "write") as ctx:
        ctx.block("no")
        raise PermissionError("stop")
    with tracer.span("mem", "write") as ctx:
        ctx.fail("late")
    failed, blocked, both, late = traced()
    assert (failed["status"], failed["metadata"]) == ("error", {"error": "bad", "error_type": "ValueError"})
    assert (blocked["status"], blocked["metadata"]) == ("blocked", {"reason": "not allowed", "rule": 7})
    assert (both["status"], both["metadata"]["reason"], both["metadata"]["error"]) == (
        "blocked",
        "no",
        "stop",
    )
    assert (late["status"], late["metadata"]) == ("error", {"error": "late"})


def test_levels(tmp_path):
    path = tmp_path / "t.jsonl"
    for level, expected in (("debug", 5), ("info", 4), ("warn", 2)):
        tracer.enable(path, level)
        with tracer.span("sys", "fine"):
            tracer.event("sys", "detail", level="debug")
            tracer.event("sys", "note")
            tracer.event("sys", "stop", status="blocked")
        with pytest.raises(KeyError), tracer.span("sys", "wrong"):
            raise KeyError("x")
        tracer.disable()
        assert len(path.read_text().splitlines()) == expected, level
        path.unlink()


def test_wrong_use(traced):
    with pytest.raises(ValueError, match=r'no layer "xyz": expected one of alt \(altitude\)'):
        tracer.span("xyz", "write")
    with pytest.raises(TypeError, match="misses the argument 'operation'"):
        tracer.span("mem")
    with pytest.raises(TypeError, match="unexpected keyword"):
        tracer.span("mem", "write", input="x")
    with pytest.raises(TypeError, match="is a str"):
        tracer.span("mem", 3)
    with pytest.raises(ValueError, match="status is"):
        tracer.event("mem", "write", status="fine")
    with pytest.raises(ValueError, match="level is"):
        tracer.event("mem", "write", level="loud")
    with pytest.raises(ValueError, match="level is one of"):
        tracer.enable(level="loud")
    with tracer.span("mem", "write") as ctx, pytest.raises(RuntimeError, match="entered once"):
        ctx.__enter__()


def test_what_fails_in_a_value_stays_there(traced):
    class Bad:
        def __repr__(self):
            raise RuntimeError("no")

        __str__ = __repr__

    with tracer.span("mem", "write", "c", Bad()) as ctx:
        ctx.set_output("\ud800 lone", bad=Bad())
    (event,) = traced()
    assert event["input_summary"] == "<RuntimeError>"
    assert event["output_summary"] == "? lone"
    assert event["metadata"] == {"bad": "<RuntimeError>"}


def test_own_layers(traced):
    tracer.register_layer("pln", "planning")
    tracer.register_layer("pln", "planning")
    with pytest.raises(ValueError, match="is there already"):
        tracer.register_layer("pln", "plans")
    with pytest.raises(ValueError, match="a layer's code"):
        tracer.register_layer("P!", "p")
    tracer.event("pln", "step")
    tracer.event("planning", "step")
    assert [(e["hrm_layer"], e["trace_id"][:4]) for e in traced()] == [("planning", "pln_")] * 2


def test_catalogue(traced):
    t = tracer
    with t.altitude.transition(4, "L2", "asked") as ctx:
        ctx.set_output("success")
        t.altitude.evaluate(3, "proceed", 0.9)
        t.altitude.plan(3, "tidy", "three steps")
        t.altitude.execute(2, "edit", component="loop.py")
        t.focus.stance_change("explore", "exploit", "WriteApprovalGate")
        t.focus.gate_check("WriteApprovalGate", "allowed", "consent")
        t.focus.lane_switch("a", "b", "idle")
        t.focus.consent_check("write", True)
        t.focus.route("signal", "bundle", ["one", "two"])
        t.reasoning.classify("question", 0.5)
        t.reasoning.route("deep", "hard")
        t.reasoning.escalate(2, 3, "stuck")
        t.learning.pattern_match("P1", 0.7)
        t.learning.pattern_add("P2", "user")
        t.learning.pattern_trim("P3", "old")
        t.learning.generalize(["P1", "P2"], "P4")
        t.memory.read("ns", "k", "hot")
        t.memory.write("ns", "k", tier="warm", tokens_saved=45)
        t.memory.promote("k", "warm", "hot")
        t.memory.demote("k", "hot", "cold")
    events = traced()
    assert len(events) == 20
    root = events[-1]
    assert (root["input_summary"], root["output_summary"]) == ("L4→L2", "success")
    assert root["metadata"] == {"from_level": 4, "to_level": "L2", "reason": "asked"}
    assert {e["parent_id"] for e in events[:-1]} == {ctx.trace_id}
    by_name = {(e["hrm_layer"], e["operation"]): e for e in events}
    assert len(by_name) == 20
    assert by_name["focus", "consent_check"]["metadata"] == {"operation": "write", "allowed": True}
    assert by_name["focus", "route"]["metadata"]["agents"] == ["one", "two"]
    assert by_name["memory", "write"]["metadata"]["tokens_saved"] == 45
    assert by_name["altitude", "execute"]["component"] == "loop.py"
    assert by_name["memory", "read"]["component"] == "test_tracer.py"


def test_a_wrong_field_is_a_type_error():
    for on in (False, True):
        if on:
            tracer.enable(None)
        try:
            with pytest.raises(TypeError):
                tracer.memory.write("ns", "k", "warm", tokens=1)
            with pytest.raises(TypeError):
                tracer.altitude.transition(1, 2)
        finally:
            tracer.disable()


@settings(max_examples=100, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=250))
def test_summaries_are_cut_between_characters(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("cut") / "trace.jsonl"
    tracer.enable(path)
    try:
        tracer.event("mem", "write", "c", text, text + "x")
    finally:
        tracer.disable()
    event = json.loads(path.read_text(encoding="utf-8"))
    assert event["input_summary"] == text[:100]
    assert event["output_summary"] == (text + "x")[:100]


def test_a_million_ids_do_not_collide():
    tracer.enable(None, "warn")
    try:
        ids = {tracer.event("mem", "write") for _ in range(1_000_000)}
    finally:
        tracer.disable()
    assert len(ids) == 1_000_000


def test_parents_in_threads_tasks_and_executors(traced):
    def leaf(name):
        with tracer.span("mem", "leaf", "c", name) as ctx:
            return ctx.trace_id

    async def main():
        async def task(name):
            with tracer.span("mem", "task", "c", name) as ctx:
                await asyncio.sleep(0.001)
                leaf("in " + name)
                return ctx.trace_id

        with tracer.span("sys", "gather") as outer:
            await asyncio.gather(task("a"), task("b"))
        await asyncio.to_thread(leaf, "to_thread")
        return outer.trace_id

    with tracer.span("sys", "root") as root:
        thread = threading.Thread(target=leaf, args=("bare thread",))
        thread.start()
        thread.join()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(tracer.wrap(leaf), [f"pool {i}" for i in range(8)]))
        outer = asyncio.run(main())
    events = {e["input_summary"]: e for e in traced() if e["operation"] in ("leaf", "task")}
    assert events["bare thread"]["parent_id"] is None
    assert all(events[f"pool {i}"]["parent_id"] == root.trace_id for i in range(8))
    assert events["a"]["parent_id"] == events["b"]["parent_id"] == outer
    assert events["in a"]["parent_id"] == events["a"]["trace_id"]
    assert events["in b"]["parent_id"] == events["b"]["trace_id"]
    assert events["to_thread"]["parent_id"] == root.trace_id


def test_a_task_outlives_the_span_it_was_started_in(traced):
    async def late(started, go):
        started.set()
        await go.wait()
        for name in ("one", "two"):
            with tracer.span("mem", name):
                await asyncio.sleep(0)

    async def main():
        started, go = asyncio.Event(), asyncio.Event()
        with tracer.span("sys", "outer") as outer:
            task = asyncio.create_task(late(started, go))
            await started.wait()
        go.set()
        await task
        return outer.trace_id

    outer = asyncio.run(main())
    assert [e["parent_id"] for e in traced()] == [None, outer, outer]


def test_spans_that_overlap_without_nesting(traced):
    def generator():
        with tracer.span("mem", "generator"):
            yield

    steps = generator()
    next(steps)
    with tracer.span("mem", "other"), pytest.raises(StopIteration):
        next(steps)
    assert tracer.current_span() is None
    traced()


def _in_another_process(name):
    with rs.tracer.span("mem", "leaf", "c", name) as ctx:
        return ctx.parent_id, ctx.w3c_trace_id


def _enable(path):
    rs.tracer.enable(path)


def test_a_process_pool_carries_the_trace(traced, tmp_path):
    import multiprocessing

    path = tmp_path / "children.jsonl"
    with (
        ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_enable, initargs=(path,)
        ) as pool,
        tracer.span("sys", "root") as root,
    ):
        assert pool.submit(tracer.wrap(_in_another_process), "x").result(60) == (
            root.trace_id, root.w3c_trace_id,
        )  # fmt: skip
    (child,) = [json.loads(line) for line in path.read_text().splitlines()]
    assert child["parent_id"] == root.trace_id
    assert child["metadata"]["w3c_trace_id"] == root.w3c_trace_id


def test_decorator(traced):
    @tracer.traced("mem", input_data=lambda a, b: f"{a}+{b}")
    def add(a, b):
        """Adds."""
        return a + b

    @tracer.traced("lrn", "learn", "model.py")
    async def learn():
        await asyncio.sleep(0)
        raise ValueError("no")

    assert (add.__name__, add.__doc__, add(1, b=2)) == ("add", "Adds.", 3)
    assert asyncio.iscoroutinefunction(learn)
    with pytest.raises(ValueError):
        asyncio.run(learn())
    first, second = traced()
    assert (first["operation"], first["component"], first["input_summary"]) == (
        "add",
        "test_tracer.py",
        "1+2",
    )
    assert (second["operation"], second["component"], second["status"]) == ("learn", "model.py", "error")
    tracer.disable()
    assert add(1, 2) == 3


def test_into_the_open_recorder(traced, tmp_path):
    with (
        rs.record(tmp_path / "runs.db", session="s") as recorder,
        recorder.episode("ep", step=4),
        tracer.span("mem", "write", "m.py", "in") as ctx,
    ):
        ctx.set_output("out", tokens_saved=3)
        tracer.event("foc", "gate_check", status="blocked")
    tracer.event("sys", "after")
    gate, write, after = traced()
    assert after["operation"] == "after"
    events = list(rs.Film(tmp_path / "runs.db").events(kind="span"))
    assert [e.name for e in events] == ["foc.gate_check", "mem.write"]
    assert events[0].outcome == "blocked"
    assert (events[1].episode_id, events[1].step) == ("ep", 4)
    assert list(_console.trace_event(events[1]).items()) == list(write.items())
    assert events[0].fields["parent_id"] == gate["parent_id"] == write["trace_id"]


def test_a_recorder_that_nobody_closes_ends_with_its_object(traced, tmp_path):
    recorder = rs.record(tmp_path / "runs.db", session="s")
    journal = recorder.journal_path
    tracer.event("mem", "read")
    del recorder
    gc.collect()
    assert not journal.exists()
    tracer.event("mem", "read")
    assert len(list(rs.Film(tmp_path / "runs.db").events(kind="span"))) == 1
    assert len(traced()) == 2


def test_trace_jsonl_as_a_target(tmp_path):
    tracer.enable(None)
    try:
        with rs.record(f"trace:{tmp_path}/t.jsonl", sinks=[tmp_path / "run.jsonl"]) as recorder:
            recorder.log({"loss": 1.0})
            tracer.event("mem", "read")
    finally:
        tracer.disable()
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 1


def test_another_file_is_left_alone(tmp_path):
    path = tmp_path / "notes.jsonl"
    path.write_text('{"mine": 1}\n')
    with pytest.raises(rs.FormatError, match="does not hold trace events"):
        tracer.enable(path)
    assert path.read_text() == '{"mine": 1}\n'
    assert not tracer.enabled()


KILLED = """
    import os, signal, sys
    import rubriscope as rs
    rs.tracer.enable(sys.argv[1])
    for i in range(20_000):
        with rs.tracer.span("mem", "write", "c", str(i)) as ctx:
            ctx.set_output("x" * (i % 150), n=i)
    print(ctx.trace_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["recover", "next start"])
def test_everything_is_there_after_a_kill(tmp_path, how):
    path = tmp_path / "trace.jsonl"
    for repetition in (1, 2):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), str(path)], capture_output=True, text=True
        )
        assert run.returncode == -signal.SIGKILL, run.stderr
        if how == "recover":
            done = subprocess.run(
                [sys.executable, "-m", "rubriscope", "recover", str(path)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
        else:
            tracer.enable(path)
            tracer.disable()
        events = [json.loads(line) for line in path.read_text().splitlines()]
        numbers = sorted(e["metadata"]["n"] for e in events)
        assert numbers == sorted(list(range(20_000)) * repetition)
        assert run.stdout.strip() == next(
            e["trace_id"] for e in reversed(events) if e["metadata"]["n"] == 19_999
        )


def test_a_forked_child_has_its_own_ids(traced):
    with tracer.span("sys", "root") as root:
        readers = []
        for _ in range(2):
            reader, writer = os.pipe()
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    os.write(writer, (tracer.event("mem", "child") or "").encode())
                    tracer.flush()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(pid, 0)[1] == 0
            readers.append(os.read(reader, 100).decode())
    events = {e["trace_id"]: e for e in traced()}
    assert len(set(readers)) == 2
    assert all(events[one]["parent_id"] == root.trace_id for one in readers)


@pytest.mark.parametrize(
    ("environment", "files", "expected"),
    [
        ({"RUBRISCOPE_TRACE": "1"}, {}, "trace.jsonl"),
        ({"DOPEJAR_TRACE": "1"}, {}, "trace.jsonl"),
        ({}, {"rubriscope.toml": '[tracing]\nenabled = true\noutput = "o.jsonl"\n'}, "o.jsonl"),
        ({}, {"rubriscope.yaml": "tracing:\n  enabled: true\n  output: y.jsonl\n  level: info\n"}, "y.jsonl"),
        ({"RUBRISCOPE_TRACE": "0"}, {"rubriscope.toml": "[tracing]\nenabled = true\n"}, None),
        ({}, {}, None),
        ({}, {"rubriscope.toml": '[tracing]\nenabled = "yes"\n'}, None),
    ],
)
def test_turned_on_from_outside(tmp_path, environment, files, expected):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    clean = {k: v for k, v in os.environ.items() if k not in ("RUBRISCOPE_TRACE", "DOPEJAR_TRACE")}
    run = subprocess.run(
        [sys.executable, "-c", "import rubriscope as rs; rs.tracer.event('mem', 'read')"],
        cwd=tmp_path, env={**clean, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    written = [path.name for path in tmp_path.glob("*.jsonl")]
    assert written == ([expected] if expected else [])
    assert ("the tracer stays off" in run.stderr) == ('"yes"' in str(files))


def test_the_trace_option(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    tracer.add_argument(parser)
    assert parser.parse_args([]).trace is None
    assert not tracer.enabled()
    try:
        parser.parse_args(["--trace", str(tmp_path / "t.jsonl")])
        with tracer.span("alt", "transition", "altitude.py", "L3→L2") as ctx:
            ctx.set_output("success")
            with tracer.focus.gate_check("WriteApprovalGate", "allowed", "consent"):
                tracer.memory.write("altitude", "session", "warm", 45)
    finally:
        tracer.disable()
    shown = re.sub(r" \([\d.]+ms\)", " (5ms)", capsys.readouterr().err)
    assert shown == textwrap.dedent("""\
        [alt] transition: L3→L2 → success (5ms)
          └─[foc] gate_check: WriteApprovalGate → allowed (5ms)
              └─[mem] write: altitude.session → written [saved 45 tokens]
        """)


def test_the_tree_shows_what_waits(capsys):
    out = io.StringIO()
    tree = _console.ConsoleTree(out)
    base = dict.fromkeys(ORDER, "") | {
        "hrm_layer": "memory",
        "operation": "read",
        "duration_ms": 0,
        "timestamp": 1,
    }
    tree._take({**base, "trace_id": "b", "parent_id": "a", "status": "error", "metadata": {"error": "x\x1b"}})
    tree._take({**base, "trace_id": "a", "parent_id": "elsewhere", "status": "success", "metadata": {}})
    assert out.getvalue() == ""
    tree.close()
    assert out.getvalue() == "[mem] read\n  └─[mem] read [error: x\\x1b]\n"


def test_settings_are_checked(tmp_path):
    with pytest.raises(ValueError, match="takes enabled"):
        tracer.configure({"enable": True})
    with pytest.raises(ValueError, match="true or false"):
        tracer.configure({"enabled": 1})
    file = tmp_path / "rubriscope.toml"
    file.write_text("tracing = 1\n")
    with pytest.raises(ValueError, match="a table called tracing"):
        tracer.configure(file)
