"""Steering of a running process over its socket, in this process and from the command line."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rubriscope as rs
from rubriscope.cli.app import run as main
from rubriscope.code_sight import _control

PROGRAM = """\
import time
import rubriscope as rs

def work(size):
    time.sleep(0.001)
    return size * 2.0

with rs.record("steered.db", session="steered"):
    print("ready", flush=True)
    for step in range(1_000_000):
        work(step % 7)
"""

sight = rs.get_code_sight()


def target(size: int) -> int:
    return size + 1


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # A socket's path is at most 107 bytes long, and pytest's folders are deep.
    folder = Path(os.path.realpath(f"/tmp/rs-{os.getpid()}"))
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder
    sight.stop_listening()
    for one in sight.injections():
        sight.remove(one.id)
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def run(*arguments: str) -> int:
    return main(["sight", *arguments])


def test_a_process_is_steered_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "RUBRISCOPE_SIGHT": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "ready\n"
            pid = str(child.pid)
            assert run("list") == 0 and pid in capsys.readouterr().out.split()
            assert (
                run("inject", "--pid", pid, "__main__:work", "--metric", "result", "--threshold", "11") == 0
            )
            metric = capsys.readouterr().out.strip()
            message = (
                "--condition",
                "args.size == 3 and execution_time_ms > 0",
                "--message",
                "three: {result}",
            )
            assert run("inject", "--pid", pid, "work", *message, "--action", "metric", "--json") == 0
            log = json.loads(capsys.readouterr().out)["id"]
            for _ in range(500):
                assert run("list", "--pid", pid, "--json") == 0
                status = json.loads(capsys.readouterr().out)
                if all(one["hits"] > 2 for one in status["injections"]):
                    break
                time.sleep(0.02)
            assert {one["id"]: one["target"] for one in status["injections"]} == {
                metric: "__main__:work",
                log: "__main__:work",
            }
            assert status["points"]["__main__:work"]["count"] > 14
            assert run("list", "--pid", pid) == 0
            shown = capsys.readouterr().out
            assert "2 injections" in shown and "result > 11" in shown and "three: {result}" in shown
            assert run("disable", "--pid", pid, log) == 0 and run("remove", "--pid", pid, metric) == 0
            assert run("remove", "--pid", pid, metric) == 2
            assert f"no injection '{metric}'" in capsys.readouterr().err
            assert run("inject", "--pid", pid, "absent:f", "--metric", "result") == 2
            assert "no module 'absent' is loaded" in capsys.readouterr().err
            assert run("inject", "--pid", pid, "work", "--message", "x", "--condition", "args.no > 1") == 2
            assert "no argument no (the function has size)" in capsys.readouterr().err
        finally:
            child.kill()
    assert run("list", "--pid", pid) == 2
    assert "RUBRISCOPE_SIGHT=1" in capsys.readouterr().err
    assert run("list") == 0 and "no process listens" in capsys.readouterr().out
    assert main(["recover", str(tmp_path / "steered.db")]) == 0
    events = list(rs.Film(tmp_path / "steered.db").events(kind="observation"))
    assert {event.name for event in events} == {"__main__:work"}
    assert any(event.fields.get("message") == "three: 6" for event in events)
    assert any(event.fields.get("violation") == "result 12 > 11" for event in events)


def test_the_socket_is_this_users_alone(runtime: Path) -> None:
    path = Path(sight.listen())
    assert sight.listen() == str(path) and path.parent.parent == runtime
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    sight.stop_listening()
    assert not path.exists()
    path.parent.chmod(0o755)
    with pytest.raises(PermissionError, match="only this user can enter"):
        sight.listen()
    with pytest.raises(PermissionError):
        _control.ask(os.getpid(), "list")


def test_another_user_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    sight.listen()
    ours = os.geteuid()
    monkeypatch.setattr(_control, "_check_folder", lambda folder: None)
    monkeypatch.setattr(_control, "socket_folder", lambda: os.path.dirname(str(_control._server.path)))
    # The kernel says who the peer is; the process is made to believe that it is somebody else itself.
    real = socket.socket.getsockopt
    monkeypatch.setattr(
        _control.struct, "unpack", lambda form, data: (1, ours + 1, 1) if form == "3i" else None
    )
    assert real is socket.socket.getsockopt
    with pytest.raises(RuntimeError, match=f"the user {ours + 1} may not steer"):
        _control.ask(os.getpid(), "list")


def test_what_is_no_request_is_answered_and_the_server_goes_on() -> None:
    path = sight.listen()

    def raw(data: bytes) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            with contextlib.suppress(BrokenPipeError):  # it does not read all of what is too long
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
            return dict(json.loads(peer.makefile().readline()))

    for data in (b"", b"\n", b"{\n", b"[]\n", b'{"op": "explode"}\n', b'{"op": "remove"}\n', b"\xff\xfe\n"):
        assert "message" in raw(data), data
    assert raw(b"x" * 2_000_000)["error"] == "ValueError"
    assert raw(b'{"op": "list"}\n')["result"]["injections"] == []


def test_errors_arrive_as_what_they_were() -> None:
    sight.listen()
    pid = os.getpid()
    id = _control.ask(pid, "inject_metric", target=f"{__name__}:target", metric_name="result")
    assert target(1) == 2 and [one.id for one in sight.injections()] == [id]
    with pytest.raises(ValueError, match="no metric"):
        _control.ask(pid, "inject_metric", target=f"{__name__}:target", metric_name="args.size + 1")
    with pytest.raises(KeyError, match="no injection 'x'"):
        _control.ask(pid, "remove", id="x")
    with pytest.raises(TypeError):
        _control.ask(pid, "inject_metric", target=3, metric_name="result")
    _control.ask(pid, "remove", id=id)
    assert sight.injections() == []


def test_a_forked_child_does_not_listen_and_leaves_the_parents_socket() -> None:
    path = sight.listen()
    child = os.fork()
    if child == 0:
        quiet = _control._server is None
        sight.stop_listening()
        os._exit(0 if quiet and os.path.exists(path) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _control.ask(os.getpid(), "list")["injections"] == []


def test_a_program_told_to_listen_where_it_cannot_goes_on(runtime: Path) -> None:
    (runtime / "rubriscope").mkdir(mode=0o755)
    (runtime / "rubriscope").chmod(0o755)
    ran = subprocess.run(
        [sys.executable, "-c", "import rubriscope; print('went on')"],
        env={**os.environ, "RUBRISCOPE_SIGHT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "went on\n" and "cannot be steered" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("inject", "--pid", "1", "f"),
        ("inject", "f", "--metric", "result"),
        ("inject", "--pid", "1", "f", "--metric", "result", "--condition", "True"),
        ("inject", "--pid", "1", "f", "--message", "m", "--threshold", "1"),
        ("remove", "--pid", "1"),
    ],
)
def test_wrong_usage_is_2(arguments: tuple[str, ...]) -> None:
    try:
        code = run(*arguments)
    except SystemExit as exit:
        code = int(exit.code or 0)
    assert code == 2
