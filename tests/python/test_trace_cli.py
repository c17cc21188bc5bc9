"""rubriscope trace: views, statistics and exports of trace files and recordings."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time

import pytest
import rubriscope as rs
from rubriscope.cli.app import run

ORIGIN = """\
{"trace_id":"mem_1705180802_c8d2","parent_id":"foc_1705180801_b7c1","timestamp":"2026-01-13T14:00:02","hrm_layer":"memory","operation":"write","component":"manager.py","input_summary":"altitude.session","output_summary":"written","duration_ms":3,"status":"success","metadata":{"tokens_saved":45,"tier":"warm"}}
{"trace_id":"foc_1705180801_b7c1","parent_id":"alt_1705180800_a3f2","timestamp":"2026-01-13T14:00:01","hrm_layer":"focus","operation":"gate_check","component":"gates.py","input_summary":"WriteApprovalGate","output_summary":"allowed","duration_ms":2,"status":"success","metadata":{"user_consent":true}}
{"trace_id":"alt_1705180800_a3f2","parent_id":null,"timestamp":"2026-01-13T14:00:00","hrm_layer":"altitude","operation":"transition","component":"altitude.py","input_summary":"L3→L2","output_summary":"success","duration_ms":5,"status":"success","metadata":{"reason":"user requested tactical"}}
"""  # noqa: E501

TREE = """\
[alt] transition: L3→L2 → success (5ms)
  └─[foc] gate_check: WriteApprovalGate → allowed (2ms)
      └─[mem] write: altitude.session → written (3ms) [saved 45 tokens]
"""


@pytest.fixture
def origin(tmp_path, monkeypatch):
    """The origin's own example as ./trace.jsonl."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.jsonl").write_text(ORIGIN, encoding="utf-8")
    return tmp_path / "trace.jsonl"


def out(capsys, *arguments, code=0):
    assert run(["trace", *map(str, arguments)]) == code
    return capsys.readouterr().out


def test_the_origins_tree(origin, capsys):
    assert out(capsys, "view") == TREE
    for one in ("alt_1705180800_a3f2", "foc_1705180801_b7c1", "mem_1705180802_c8d2"):
        assert out(capsys, "view", "--trace-id", one) == TREE
    assert out(capsys, "view", "--trace-id", "alt_1_a", code=2) == ""


def test_filters(origin, capsys):
    with origin.open("a") as file:
        file.write(ORIGIN.splitlines()[0].replace("success", "error").replace("c8d2", "c8d3") + "\n")
    assert [json.loads(x)["trace_id"][-4:] for x in out(capsys, "view", "--json").splitlines()] == [
        "c8d2", "b7c1", "a3f2", "c8d3",
    ]  # fmt: skip
    for arguments, expected in (
        (["--last", 2], ["a3f2", "c8d3"]),
        (["--last", 0], ["c8d2", "b7c1", "a3f2", "c8d3"]),
        (["--hrm", "mem"], ["c8d2", "c8d3"]),
        (["--hrm", "memory", "--last", 1], ["c8d3"]),
        (["--status", "error"], ["c8d3"]),
        (["--since", "2026-01-13T14:00:02"], ["c8d2", "c8d3"]),
        (["--since", "2026-01-13T15:00:01+01:00", "--last", 0], ["c8d2", "b7c1", "c8d3"]),
        (["--since", "10m"], []),
    ):
        lines = out(capsys, "view", "--json", *arguments).splitlines()
        assert [json.loads(x)["trace_id"][-4:] for x in lines] == expected, arguments
    assert run(["trace", "view", "--since", "soon"]) == 2
    assert run(["trace", "view", "nothing.jsonl"]) == 2


def test_stats_layout(origin, capsys):
    assert (
        out(capsys, "stats", "--slowest", 2)
        == """\
HRM Layer Stats (3 events):
- altitude: 1 ops, avg 5ms, p95 5ms, 0 errors
- focus: 1 ops, avg 2ms, p95 2ms, 0 errors
- memory: 1 ops, avg 3ms, p95 3ms, 0 errors

Slowest operations:
1. alt_transition: 5ms (L3→L2)
2. mem_write: 3ms (altitude.session)
"""
    )
    assert out(capsys, "stats", "--last", 1).splitlines()[:2] == [
        "HRM Layer Stats (last 1 event):",
        "- altitude: 1 ops, avg 5ms, p95 5ms, 0 errors",
    ]


def test_stats_against_python(tmp_path, capsys):
    dice, path = random.Random(3), tmp_path / "t.jsonl"
    durations: dict[str, list[float]] = {"memory": [], "focus": []}
    with path.open("w") as file:
        for number in range(5000):
            layer = dice.choice(list(durations))
            took = round(dice.lognormvariate(0, 2), 6)
            durations[layer].append(took)
            status = "error" if number % 50 == 0 else "blocked" if number % 70 == 0 else "success"
            event = {"trace_id": f"x_{number}", "hrm_layer": layer, "status": status, "duration_ms": took}
            file.write(json.dumps(event, indent=None) + "\n")
    found = json.loads(out(capsys, "stats", path, "--json"))
    assert (found["events"], found["corrupt"]) == (5000, 0)
    for layer, all_ in durations.items():
        of_layer = found["layers"][layer]
        assert of_layer["operations"] == len(all_)
        assert of_layer["average_ms"] == pytest.approx(statistics.fmean(all_))
        assert of_layer["p95_ms"] == pytest.approx(sorted(all_)[int(0.95 * len(all_))], rel=0.02)
    assert sum(one["errors"] for one in found["layers"].values()) == 100
    longest = sorted((one for some in durations.values() for one in some), reverse=True)[:10]
    assert [one["duration_ms"] for one in found["slowest"]] == longest


def test_corrupt_lines_are_counted(origin, capsys):
    good = ORIGIN.splitlines()
    bad = [
        good[0][:-20],
        "not json",
        '{"trace_id":1}',
        "[]",
        "",
        good[0] + "x",
        good[1].replace("true", "tru"),
    ]
    origin.write_text("\n".join([*bad[:4], good[0], *bad[4:], good[1], good[2]]) + "\n" + good[0][:40])
    assert run(["trace", "view"]) == 0
    shown = capsys.readouterr()
    assert shown.out == TREE
    assert "7 lines could not be read and were passed over" in shown.err
    found = json.loads(out(capsys, "stats", "--json"))
    assert (found["events"], found["corrupt"]) == (3, 6)  # a last line without its end is still being written


def test_lines_across_blocks(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    dice = random.Random(5)
    ids = []
    with path.open("w") as file:
        for number in range(3000):
            ids.append(f"x_{number}")
            event = {"trace_id": ids[-1], "hrm_layer": "memory", "status": "success", "duration_ms": 1}
            file.write(json.dumps({**event, "metadata": {"x": "y" * dice.randrange(3000)}}) + "\n")
    for last in (0, 3000, 2999, 1):
        lines = out(capsys, "view", path, "--json", "--last", last).splitlines()
        assert [json.loads(x)["trace_id"] for x in lines] == ids[-last:]


def test_a_tree_across_files_of_processes(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    rs.tracer.enable(path)
    try:
        headers = {}
        with rs.tracer.span("alt", "plan") as root:
            rs.tracer.inject(headers)
        del headers["tracestate"]  # a proxy dropped it: the W3C span id is all there is
        with rs.tracer.extract(headers), rs.tracer.span("foc", "route"):
            rs.tracer.memory.read("ns", "k", "hot")
        rs.tracer.event("sys", "elsewhere")
    finally:
        rs.tracer.disable()
    lines = out(capsys, "view", path, "--trace-id", root.trace_id).splitlines()
    assert [line.split("]")[0] for line in lines] == ["[alt", "  └─[foc", "      └─[mem"]


def test_a_ring_of_parents_ends(tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    base = {"hrm_layer": "memory", "status": "success", "operation": "read"}
    ring = [{"trace_id": "a", "parent_id": "b", **base}, {"trace_id": "b", "parent_id": "a", **base}]
    path.write_text("\n".join(map(json.dumps, ring)) + "\n")
    assert out(capsys, "view", path, "--trace-id", "a") == "[mem] read\n[mem] read\n"


def test_of_a_recording(tmp_path, capsys):
    rs.tracer.enable(tmp_path / "t.jsonl")
    try:
        with rs.record(tmp_path / "runs.db", session="s"), rs.tracer.altitude.transition(3, 2, "x") as root:
            rs.tracer.memory.write("ns", "k", "warm", 45)
            with rs.tracer.memory.read("ns", "k", "warm") as ctx:
                ctx.fail("gone")
    finally:
        rs.tracer.disable()
    for arguments in (
        ["view"],
        ["view", "--json"],
        ["view", "--trace-id", root.trace_id],
        ["stats", "--json"],
    ):
        of_file = out(capsys, *arguments, tmp_path / "t.jsonl")
        of_film = out(capsys, *arguments, f"{tmp_path}/runs.db:s")
        assert of_file == of_film
    assert "[error: gone]" in out(capsys, "view", tmp_path / "runs.db", "--status", "error")


def test_perfetto(origin, capsys, tmp_path):
    path = tmp_path / "out.json"
    assert "3 events" in out(capsys, "export", "--perfetto", path)
    document = json.loads(path.read_text())
    spans = [event for event in document["traceEvents"] if event["ph"] == "X"]
    assert [(span["name"], span["dur"], span["cat"]) for span in spans] == [
        ("write", 3000, "memory"), ("gate_check", 2000, "focus"), ("transition", 5000, "altitude"),
    ]  # fmt: skip
    assert spans[2]["ts"] == 1768312800 * 1e6
    names = {event["tid"]: event["args"]["name"] for event in document["traceEvents"] if event["ph"] == "M"}
    assert all(names[span["tid"]] == span["cat"] for span in spans)


def test_follow(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(ORIGIN, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "rubriscope",
        "trace",
        "view",
        str(path),
        "--last",
        "1",
        "--follow",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        time.sleep(0.3)
        with path.open("a", encoding="utf-8") as file:
            file.write(ORIGIN.splitlines()[0] + "\n")
        second = json.loads(process.stdout.readline())
        path.write_text(ORIGIN.splitlines()[1] + "\n", encoding="utf-8")  # truncated
        third = json.loads(process.stdout.readline())
        process.terminate()
    assert [one["trace_id"][-4:] for one in (first, second, third)] == ["a3f2", "c8d2", "b7c1"]


def test_viewing_starts_without_what_it_does_not_need(origin):
    """Starting is most of the time of a view over a small file."""
    code = (
        "import sys; from rubriscope.cli import main; main(['trace', 'view', '--json']);"
        "print([m for m in ('numpy', 'torch', 'rich', 'importlib.metadata', 'multiprocessing',"
        " 'rubriscope.recorder', 'rubriscope.cli.compare') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


def test_three_processes_show_one_tree(tmp_path):
    from pathlib import Path

    example = Path(__file__).parents[2] / "examples/trace_processes.py"
    shown = subprocess.run(
        [sys.executable, str(example), str(tmp_path / "t.jsonl")], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [line.split(":")[0] for line in shown] == [
        "[alt] transition", "  └─[foc] gate_check", "      └─[mem] write",
    ]  # fmt: skip
