"""The command line: what it prints, its JSON and its exit codes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_fixture import SessionSpec, make_session, write_jsonl, write_sqlite
from rubriscope import _C
from rubriscope._version import __version__
from rubriscope.cli import main, replay
from rubriscope.cli.common import split_target
from rubriscope.cli.sessions import took
from rubriscope.film import Film

COMMANDS = ["sessions", "show", "replay", "scores", "compare", "export", "recover", "doctor"]


@pytest.fixture
def two() -> list[SessionSpec]:
    return [make_session(1, "sft", samples=2), make_session(2, "grpo", shift=-0.2, samples=2, ranks=2)]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, two: list[SessionSpec], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs.db (two sessions), one.db and one.jsonl (the first), and the process in it."""
    write_sqlite(tmp_path / "runs.db", two)
    write_sqlite(tmp_path / "one.db", two[:1])
    write_jsonl(tmp_path / "one.jsonl", two[:1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


Cli = Callable[..., tuple[int, str, str]]


# ---- usage -------------------------------------------------------------------------------------------------


def test_help_has_examples_and_exit_codes(cli: Cli) -> None:
    code, out, _ = cli("--help")
    assert code == 0
    for command in COMMANDS:
        assert f"\n    {command} " in out
    assert "examples:" in out
    assert "exit codes:" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_helps(cli: Cli, command: str) -> None:
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert "usage: rubriscope " + command in out
    assert "--json" in out


def test_version(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, f"rubriscope {__version__}\n")


def test_usage_errors(cli: Cli) -> None:
    assert cli()[0] == 2
    assert cli("frobnicate")[0] == 2
    assert cli("show")[0] == 2
    assert cli("show", "one.db", "--nope")[0] == 2
    assert cli("replay", "one.db", "--speed", "-1")[0] == 2
    assert cli("compare", "one.db")[0] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["sessions", "nope.db"], "nope.db"),
        (["show", "runs.db"], "2 sessions; say which: 'sft', 'grpo'"),
        (["show", "runs.db", "dpo"], "no session 'dpo'; it holds 'sft', 'grpo'"),
        (["show", "one.db", "--step", "99"], "has no step 99"),
        (["show", "one.db", "--episode", "x"], "no episode 'x'"),
        (["scores", "one.db", "rot"], "no rubric or scalar 'rot'; rubrics: root, "),
        (["replay", "one.db", "--from", "50"], "no snapshots there"),
        (["export", "one.db", "x.xls"], "the suffix must be one of"),
        (["compare", "runs.db", "sft", "dpo"], "no session 'dpo'"),
        (["recover", "nowhere"], "no such target or folder"),
        (["sessions", "postgresql://u:p@h/d#x"], "percent-encode"),
    ],
)
def test_no_such_thing_is_2_and_one_line(cli: Cli, argv: list[str], message: str) -> None:
    code, out, err = cli(*argv)
    assert code == 2
    assert message in err
    assert err.startswith("rubriscope: ")
    assert err.count("\n") == 1
    assert out == ""


def test_a_file_that_is_not_ours(cli: Cli, runs: Path) -> None:
    (runs / "other.db").write_bytes(b"not a database" * 99)
    code, _, err = cli("show", "other.db")
    assert code == 1
    assert err.startswith("rubriscope: ")
    assert "other.db" in err


def test_targets_with_a_session(runs: Path) -> None:
    assert split_target("runs.db:grpo") == ("runs.db", "grpo")
    assert split_target("runs.db") == ("runs.db", None)
    assert split_target(f"sqlite://{runs}/runs.db:grpo") == (f"sqlite://{runs}/runs.db", "grpo")
    assert split_target("jsonl:one.jsonl") == ("jsonl:one.jsonl", None)
    assert split_target("nope.db:x") == ("nope.db:x", None)
    (runs / "a:b.db").write_bytes(b"")
    assert split_target("a:b.db") == ("a:b.db", None)
    assert split_target("a:b.db:c") == ("a:b.db", "c")


# ---- sessions, show ----------------------------------------------------------------------------------------


def test_sessions(cli: Cli, two: list[SessionSpec]) -> None:
    code, out, _ = cli("sessions", "runs.db")
    assert code == 0
    assert "sft" in out
    assert "grpo" in out
    code, out, _ = cli("sessions", "runs.db", "--json")
    found = json.loads(out)
    assert [s["uuid"] for s in found] == [spec.uuid for spec in two]
    assert found[1]["ranks"] == [0, 1]


def test_length_of_a_session(two: list[SessionSpec]) -> None:
    session = Film("one.db").session()
    start = session.created_ns

    def length(closed_s: float | None, last_s: float | None = None) -> str:
        ends = [None if s is None else start + round(s * 1e9) for s in (closed_s, last_s)]
        return took(dataclasses.replace(session, closed_ns=ends[0], last_ns=ends[1]))

    assert length(12.34) == "12.3 s"
    assert length(61) == "1:01 min"
    assert length(3 * 3600 + 5) == "3:00:05 h"
    assert length(None, 12) == ">12.0 s"
    assert length(None, None) == ""


def test_show(cli: Cli, two: list[SessionSpec]) -> None:
    code, out, _ = cli("show", "runs.db", "grpo")
    assert code == 0
    for text in (two[1].uuid, "machine.host", "quality.exact", "loss", "2 episodes: 0, ep-1", "▁"):
        assert text in out
    code, out, _ = cli("show", "runs.db:grpo", "--json")
    found = json.loads(out)
    assert found["episodes"] == ["0", "ep-1"]
    root = next(entry for entry in found["rubrics"] if entry["path"] == "root")
    rewards = [s.reward for s in two[1].snapshots if s.reward is not None]
    assert root["mean"] == pytest.approx(np.mean(rewards))
    assert root["std"] == pytest.approx(np.std(rewards, ddof=1))
    assert root["failed"] == sum(s.statuses["root"] == "failed" for s in two[1].snapshots)
    assert {entry["path"] for entry in found["scalars"]} == {"loss", "kl"}


def test_show_is_the_same_for_jsonl(cli: Cli) -> None:
    from_database, from_lines = (json.loads(cli("show", t, "--json")[1]) for t in ("one.db", "one.jsonl"))
    order = {entry["path"]: entry for entry in from_lines["rubrics"]}
    for entry in from_database["rubrics"]:
        assert order[entry["path"]].pop("curve") == pytest.approx(entry.pop("curve"))
        assert order[entry["path"]] == pytest.approx(entry)


def test_show_step(cli: Cli, two: list[SessionSpec]) -> None:
    code, out, _ = cli("show", "one.db", "--step", "3")
    assert code == 0
    assert out.count("root  ") == 2
    assert "├── " in out
    code, out, _ = cli("show", "one.db", "--step", "3", "--limit", "1")
    assert out.count("root  ") == 1
    assert "1 more at step 3" in out
    code, out, _ = cli("show", "one.db", "--step", "3", "--json")
    assert [s["id"] for s in json.loads(out)] == [s.id for s in two[0].snapshots if s.step == 3]


def test_show_without_block_characters(cli: Cli) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run(
        [sys.executable, "-m", "rubriscope.cli", "show", "one.db"], capture_output=True, env=environment
    )
    assert found.returncode == 0, found.stderr.decode()
    assert found.stdout.isascii()


# ---- replay ------------------------------------------------------------------------------------------------


def test_replay_without_waiting(cli: Cli, two: list[SessionSpec]) -> None:
    code, out, _ = cli("replay", "one.db", "--speed", "inf", "--from", "2", "--to", "4")
    assert code == 0
    assert len(out.splitlines()) == 4
    code, out, _ = cli("replay", "one.db", "--speed", "0", "--json", "--episode", "ep-1")
    expected = [s.id for s in two[0].snapshots if s.episode_id == "ep-1"]
    assert [json.loads(line)["id"] for line in out.splitlines()] == expected
    assert cli("replay", "one.db", "--speed", "0", "--tree", "--to", "1")[1].count("root  ") == 2


def test_replay_waits_as_recorded_times_the_factor(
    cli: Cli, two: list[SessionSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(replay.time, "sleep", pauses.append)
    cli("replay", "one.db", "--speed", "0.5", "--to", "4")
    times = [s.time_ns for s in two[0].snapshots if s.step < 4]
    assert pauses == pytest.approx([(b - a) / 1e9 / 0.5 for a, b in itertools.pairwise(times)])
    pauses.clear()
    cli("replay", "one.db", "--speed", "1e-9", "--to", "1", "--max-wait", "2")
    assert pauses == [2.0]


# ---- scores ------------------------------------------------------------------------------------------------


def test_scores(cli: Cli, two: list[SessionSpec]) -> None:
    code, out, _ = cli("scores", "one.db", "root", "loss", "--rows", "4")
    assert code == 0
    assert "15–19" in out
    code, out, _ = cli("scores", "one.db", "root", "loss", "--json", "--from", "5")
    found = json.loads(out)["series"]
    assert found["root"]["step"] == [s.step for s in two[0].snapshots if s.step >= 5]
    assert found["root"]["score"] == [s.reward for s in two[0].snapshots if s.step >= 5]
    assert found["root"]["status"] == [s.statuses["root"] for s in two[0].snapshots if s.step >= 5]
    assert found["loss"]["kind"] == "scalar"


def test_scores_of_every_rubric(cli: Cli, two: list[SessionSpec]) -> None:
    found = json.loads(cli("scores", "one.db", "--json")[1])["series"]
    assert set(found) == set(two[0].paths)


def test_scores_plot(cli: Cli, runs: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = cli("scores", "runs.db", "-s", "grpo", "--plot", "curves.png")
    assert code == 0
    assert "curves.png" in out
    assert (runs / "curves.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = cli("scores", "one.db", "--plot", "curves.txt")
    assert code == 2
    assert "txt" in err


# ---- compare -----------------------------------------------------------------------------------------------


def test_compare_forms(cli: Cli) -> None:
    first = json.loads(cli("compare", "runs.db", "sft", "grpo", "--json")[1])
    second = json.loads(cli("compare", "runs.db:sft", "runs.db:grpo", "--json")[1])
    assert first == second
    by_path = {entry["path"]: entry for entry in first["differences"]}
    assert by_path["quality.exact"]["verdict"] == "lower"
    assert by_path["quality.exact"]["pairs"] == 20
    code, out, _ = cli("compare", "one.db", "one.jsonl")
    assert code == 0
    assert "one.db:sft" in out
    assert "95 %" in out


def test_compare_exit_code_for_scripts(cli: Cli) -> None:
    assert cli("compare", "runs.db", "sft", "grpo")[0] == 0
    code, out, _ = cli("compare", "runs.db", "sft", "grpo", "--max-drop", "0.01")
    assert code == 1
    assert "root fell by" in out
    assert cli("compare", "runs.db", "grpo", "sft", "--max-drop", "0.01")[0] == 0
    code, out, _ = cli(
        "compare",
        "runs.db",
        "sft",
        "grpo",
        "--max-drop",
        "0.01",
        "--path",
        "format",
        "--path",
        "quality",
        "--json",
    )
    assert code == 1
    assert json.loads(out)["dropped"] == ["quality"]
    assert cli("compare", "runs.db", "sft", "grpo", "--max-drop", "0", "--path", "nope")[0] == 2


# ---- export ------------------------------------------------------------------------------------------------


def test_export(cli: Cli, runs: Path, two: list[SessionSpec]) -> None:
    code, out, err = cli("export", "runs.db:grpo", "results.json")
    assert (code, err) == (0, "")
    assert "wrote 120 records of grpo to results.json" in out
    assert len(json.loads((runs / "results.json").read_text())["snapshots"]) == len(two[1].snapshots)
    code, out, _ = cli("export", "runs.db", "copy.jsonl", "--session", "sft", "--json")
    assert json.loads(out) == {"output": "copy.jsonl", "session": two[0].uuid, "records": 60}
    assert json.loads(cli("show", "copy.jsonl", "--json")[1])["session"]["steps"] == 40


def test_export_to_a_folder_that_does_not_exist(cli: Cli) -> None:
    code, _, err = cli("export", "one.db", "nowhere/results.json")
    assert code == 2
    assert "nowhere" in err


# ---- recover -----------------------------------------------------------------------------------------------


def test_recover_nothing(cli: Cli) -> None:
    assert cli("recover", "one.db")[:2] == (0, "nothing to recover\n")
    assert json.loads(cli("recover", "one.db", "--json")[1])["delivered"] == 0


@pytest.fixture
def native(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Stands in for the extension's recovery: the command's part is to ask for it and to report."""
    (runs / "one.db.rubriscope").mkdir()

    def returning(**changes: Any) -> list[str]:
        asked: list[str] = []
        result: dict[str, Any] = {"journals": 2, "delivered": 12345, "torn": 0, "damaged": 0}
        result |= {"set_aside": [], "kept": [], "left_alone": [], "messages": [], **changes}

        def recover(base_dir: str, sinks: object, progress: Callable[..., None]) -> dict[str, Any]:
            asked.append(base_dir)
            progress(Path("w1"), 1, 2)
            return result

        monkeypatch.setattr(_C, "recover", recover)
        return asked

    return returning


@pytest.mark.parametrize("target", ["one.db", "one.db.rubriscope", "sqlite:one.db"])
def test_recover_reports(cli: Cli, native: Callable[..., list[str]], target: str) -> None:
    asked = native(left_alone=[Path("w3")])
    code, out, _ = cli("recover", target)
    assert code == 0
    assert asked == ["one.db.rubriscope"]
    assert "recovered 12,345 records from 2 journals" in out
    assert "left alone: its process lives: w3" in out


def test_recover_with_damage_is_1(cli: Cli, native: Callable[..., list[str]]) -> None:
    native(damaged=1, set_aside=[Path("w1.damaged")], messages=["segment-0: a record's checksum is wrong"])
    code, out, _ = cli("recover", "one.db")
    assert code == 1
    assert "1 record damaged" in out
    assert "w1.damaged" in out
    assert "segment-0: a record's checksum is wrong" in out
    code, out, _ = cli("recover", "one.db", "--json")
    assert code == 1
    assert json.loads(out)["damaged"] == 1
    assert json.loads(out)["set_aside"] == ["w1.damaged"]


def test_recover_that_could_not_deliver_is_1(cli: Cli, native: Callable[..., list[str]]) -> None:
    native(kept=[Path("w1")], messages=["disk full"])
    code, out, _ = cli("recover", "one.db")
    assert code == 1
    assert "not delivered, kept: w1" in out


KILLED = """
import os, signal, sys
import rubriscope as rs

class Half(rs.Rubric):
    def forward(self, action, observation):
        return 0.5

recorder = rs.record(sys.argv[1], session="killed", flush_interval_ms=600_000)
rubric = Half()
recorder.observe(rubric)
for i in range(20):
    rubric("flushed", i)
recorder.flush()
for i in range(30):
    rubric("accepted", i)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_recover_after_a_kill(cli: Cli, runs: Path) -> None:
    died = subprocess.run([sys.executable, "-c", KILLED, "killed.db"])
    assert died.returncode == -9
    code, out, err = cli("sessions", "killed.db", "--json")
    assert json.loads(out)[0]["steps"] == 20
    assert "30 records wait" in err
    code, out, _ = cli("recover", "killed.db", "--json")
    assert (code, json.loads(out)["delivered"]) == (0, 30)
    code, out, err = cli("sessions", "killed.db", "--json")
    assert json.loads(out)[0]["steps"] == 50
    assert err == ""
    assert cli("recover", "killed.db")[1] == "nothing to recover\n"


def test_records_that_wait_are_mentioned(cli: Cli, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "one.db.rubriscope").mkdir()
    journals = [
        {"owner_alive": False, "set_aside": False, "pending_records": 120},
        {"owner_alive": True, "set_aside": False, "pending_records": 7},
    ]
    monkeypatch.setattr(_C, "list_journals", lambda folder: journals)
    code, out, err = cli("show", "one.db", "--json")
    assert code == 0
    assert "120 records wait" in err
    assert "rubriscope recover one.db" in err
    json.loads(out)


# ---- the process -------------------------------------------------------------------------------------------


def test_a_closed_pipe_gives_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rubriscope.cli", "replay", "one.db", "--speed", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert errors == b""


def test_a_closed_pipe_in_a_table_gives_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "rubriscope.cli", "show", "one.db"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 141
    assert errors == b""


def test_start_up_imports_neither_torch_nor_what_it_does_not_need() -> None:
    code = (
        "import sys; from rubriscope.cli import main; main(['sessions', 'one.db', '--json']);"
        "print([m for m in ('torch', 'pandas', 'pyarrow', 'matplotlib', 'httpx') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "[]"


def test_on_a_terminal_there_is_colour_and_progress_goes_to_stderr(runs: Path) -> None:
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "rubriscope.cli", "export", "one.db", "x.csv", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=child, env=environment) as process:
        os.close(child)
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["records"] == 60
        drawn = b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                piece = os.read(parent, 4096)
            except OSError:  # the far end is closed: Linux's end of file for a pty
                break
            if not piece:
                break
            drawn += piece
    os.close(parent)
    assert process.returncode == 0
    assert b"exporting sft" in drawn
