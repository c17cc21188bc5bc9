"""`rubriscope doctor`: what it reports, and that looking changes nothing."""

from __future__ import annotations

import ctypes.util
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rubriscope import doctor
from rubriscope._torch_check import Torch

HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
TRY_LOCK = """
import fcntl, sys
try:
    fcntl.lockf(open(sys.argv[1], "r+b"), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("locked")
else:
    print("free")
"""


@pytest.fixture(autouse=True)
def clean_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No journals of this machine's user in the report."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def checks(*targets: str) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.collect(targets)}


def make_journal(folder: Path) -> Path:
    """A writer's journal folder as a dead process leaves it; returns its lock file."""
    folder.mkdir(parents=True)
    lock = folder / "owner.lock"
    lock.touch()
    return lock


@pytest.fixture
def living_owner(tmp_path: Path) -> Iterator[Path]:
    """The lock file of a journal that another process owns."""
    lock = make_journal(tmp_path / "live.db.rubriscope/writer")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        yield lock
        owner.communicate()


def test_reports_versions_and_places() -> None:
    import sqlite3

    import torch

    found = checks()
    assert found["torch"].status == "ok"
    assert (
        torch.__version__ in found["torch"].value and str(Path(torch.__file__).parent) in found["torch"].value
    )
    assert "torch>=2.10" in found["torch"].value
    assert sqlite3.sqlite_version in found["SQLite of Python"].value
    assert found["extension"].status == "ok"
    assert str(doctor.state_folder()) in found["journals"].value
    assert not [check for check in found.values() if check.status == "problem"]
    assert all(bool(check.remedy) == (check.status in ("warning", "problem")) for check in found.values())


@pytest.mark.parametrize(
    ("torch", "remedy"),
    [
        (None, "pip install 'torch>=2.10'"),
        (Torch(Path("/x/torch"), "2.9.1", None), "pip install --upgrade 'torch>=2.10'"),
    ],
)
def test_torch_problems_have_remedies(
    torch: Torch | None, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_torch", lambda: torch)
    found = checks()["torch"]
    assert (found.status, found.remedy) == ("problem", remedy)
    assert doctor.main([]) == 1


def test_says_whether_there_are_cuda_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, reason in ((None, "CPU build"), ("13.0", "built for CUDA 13.0")):
        torch = Torch(Path("/x/torch"), "2.13.0", cuda)
        monkeypatch.setattr(doctor, "find_torch", lambda torch=torch: torch)
        assert reason in checks()["CUDA operators"].value


def test_extension_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rubriscope._C", None)
    found = checks()["extension"]
    assert found.status == "problem" and "force-reinstall" in found.remedy


def test_second_sqlite_in_the_process_is_reported(tmp_path: Path) -> None:
    import _sqlite3

    holder, version = doctor.sqlite_of(_sqlite3.__file__)
    if version is None or "libsqlite3" not in holder:
        pytest.skip("this Python carries its SQLite inside, which is a second copy already")
    assert checks()["SQLite copies"].status == "ok"
    shutil.copy(holder, tmp_path / "libsqlite3-second.so")
    program = (
        "import ctypes, sys, rubriscope.doctor as d; ctypes.CDLL(sys.argv[1]);"
        "print(*[c.status + ' ' + c.value for c in d.collect() if c.name == 'SQLite copies'])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "libsqlite3-second.so")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("warning 2 in this process")
    assert "libsqlite3-second.so" in run.stdout


def test_sqlite_of_names_the_library_that_is_called() -> None:
    import _sqlite3
    import sqlite3

    holder, version = doctor.sqlite_of(_sqlite3.__file__)
    assert version in (sqlite3.sqlite_version, None)
    assert Path(holder).is_file()
    # A library without SQLite holds "its own": there is no other it could call.
    libm = ctypes.util.find_library("m")
    assert doctor.sqlite_of(libm) == (libm, None)


def test_ownerless_journal_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = make_journal(tmp_path / "cwd/runs.db.rubriscope/writer")
    found = checks()["waiting journals"]
    assert found.status == "problem"
    assert str(lock.parent) in found.value
    assert found.remedy.endswith(f"rubriscope recover {lock.parent.parent}")
    assert doctor.main(["--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == 1
    assert {"name": "waiting journals", "status": "problem"}.items() <= {
        key: value
        for check in report["checks"]
        if check["name"] == "waiting journals"
        for key, value in check.items()
    }.items()


@pytest.mark.parametrize("form", ["target", "folder", "state"])
def test_journals_are_looked_for_where_they_live(form: str, tmp_path: Path) -> None:
    if form == "state":
        make_journal(doctor.state_folder() / "hash/writer")
        assert checks()["waiting journals"].status == "problem"
        return
    make_journal(tmp_path / "elsewhere/runs.db.rubriscope/writer")
    assert checks()["waiting journals"].status == "ok"
    target = tmp_path / ("elsewhere/runs.db" if form == "target" else "elsewhere/runs.db.rubriscope")
    assert checks(str(target))["waiting journals"].status == "problem"


def test_journal_of_a_living_process_is_left_alone(living_owner: Path) -> None:
    target = living_owner.parent.parent.with_suffix("")
    found = checks(str(target))
    assert found["waiting journals"].status == "ok"
    assert str(living_owner.parent) in found["live journals"].value


def test_damaged_journal_is_kept_apart_from_waiting_ones(tmp_path: Path) -> None:
    lock = make_journal(tmp_path / "cwd/runs.db.rubriscope/writer.damaged")
    found = checks()
    assert found["waiting journals"].status == "ok"
    assert found["damaged journals"].status == "warning"
    assert str(lock.parent) in found["damaged journals"].value


def test_journal_that_goes_away_while_we_look_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = make_journal(tmp_path / "cwd/runs.db.rubriscope/writer")
    monkeypatch.setattr(doctor, "_LOCK_PROBE", f"import os; os.unlink({str(lock)!r})\n" + doctor._LOCK_PROBE)
    assert checks()["waiting journals"] == doctor.Check("waiting journals", "ok", "none")


def test_looking_does_not_drop_our_own_lock(tmp_path: Path) -> None:
    lock = make_journal(tmp_path / "cwd/runs.db.rubriscope/writer")
    with lock.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert checks()["waiting journals"].status == "ok"
        probe = subprocess.run(
            [sys.executable, "-c", TRY_LOCK, str(lock)], capture_output=True, text=True, check=True
        )
        assert probe.stdout == "locked\n"


def test_missing_extra_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "httpx" else find(name)
    )
    found = checks()["extra [judge]"]
    assert found.status == "info"
    assert "pip install 'rubriscope[judge]'" in found.value


def test_extras_are_those_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"]) - {"test", "bench", "dev", "oracles"}


def test_printed_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    output = capsys.readouterr().out
    assert "torch" in output and "0 problems" in output
