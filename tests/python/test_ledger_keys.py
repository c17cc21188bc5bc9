"""Who signs a ledger, where its keys are, and how it leaves the machine: bundles and witnesses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rubriscope as rs
from ledger_support import Half, Target, change, copy, record_run, recorded, second, state, target
from rubriscope import _C, cli, ledger

__all__ = ["copy", "recorded", "second", "state", "target"]  # fixtures

NINTH = "WHERE step_key = (SELECT min(step_key) FROM steps) + 9"


# ---- who signs, and who does not


def test_another_key_is_not_trusted(
    recorded: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = _C.LedgerKey.make(tmp_path / "stranger.key", "stranger").public
    (verdict,) = ledger.verify(recorded, keys=[stranger])
    assert "not signed by a key that is trusted" in verdict.problem
    assert cli.main(["verify", str(recorded), "--key", stranger]) == 1


def test_verify_prints_the_fingerprint(
    recorded: Target, ledger_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(recorded)]) == 0
    out = capsys.readouterr().out
    assert ledger.fingerprint(ledger_key) in out
    assert "728 records" in out


def test_keys_new_show_list(tmp_path: Path, capsys: pytest.CaptureFixture[str], ledger_key: str) -> None:
    path = tmp_path / "own.key"
    assert cli.main(["keys", "new", "--name", "lab/one", str(path)]) == 0
    public = capsys.readouterr().out.strip()
    assert public.startswith("lab/one+")
    assert path.stat().st_mode & 0o777 == 0o600
    assert cli.main(["keys", "new", str(path)]) == 2  # never overwrites
    capsys.readouterr()
    assert cli.main(["keys", "show", str(path)]) == 0
    assert capsys.readouterr().out.strip() == public
    assert cli.main(["keys", "list"]) == 0
    assert ledger_key in capsys.readouterr().out
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        _C.LedgerKey.read(path)


def in_a_process(code: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)


RECORD = """
import rubriscope as rs
class Half(rs.Rubric):
    def forward(self, action, observation): return 0.5
half = Half()
with rs.record("runs.db", session="run") as recorder:
    recorder.observe(half)
    for _ in range(10): half("a", "b")
"""


def test_the_first_ledger_makes_a_key_and_says_so_once(tmp_path: Path) -> None:
    config = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    first = in_a_process(RECORD, tmp_path, **config)
    assert first.returncode == 0, first.stderr
    assert "made the key that signs ledgers" in first.stderr
    assert "PRIVATE" not in first.stderr
    key = tmp_path / "config" / "rubriscope" / "ledger.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert in_a_process(RECORD, tmp_path, **config).stderr == ""


def test_a_key_from_the_environment(tmp_path: Path) -> None:
    public = _C.LedgerKey.make(tmp_path / "own.key", "lab/two").public
    text = (tmp_path / "own.key").read_text()
    done = in_a_process(RECORD, tmp_path, RUBRISCOPE_LEDGER_KEY=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert ledger.verify(tmp_path / "runs.db", keys=[public])[0].signed_by == "lab/two"


def test_a_key_from_a_file_that_the_environment_names(tmp_path: Path) -> None:
    public = _C.LedgerKey.make(tmp_path / "own.key", "lab/three").public
    named = {"RUBRISCOPE_LEDGER_KEY_FILE": str(tmp_path / "own.key")}
    assert in_a_process(RECORD, tmp_path, **named).stderr == ""
    assert ledger.verify(tmp_path / "runs.db", keys=[public])[0].signed_by == "lab/three"
    (tmp_path / "own.key").chmod(0o640)
    assert "chmod 600" in in_a_process(RECORD, tmp_path, **named).stderr


def test_without_a_key_the_ledger_is_kept_and_counted_as_unsigned(tmp_path: Path) -> None:
    done = in_a_process(RECORD, tmp_path, RUBRISCOPE_LEDGER_KEY="nonsense")
    assert done.returncode == 0
    assert "not signed" in done.stderr
    (verdict,) = ledger.verify(tmp_path / "runs.db")
    assert (verdict.problem, verdict.signed_by, verdict.unsigned_tail) == ("", "", verdict.size)
    assert cli.main(["verify", str(tmp_path / "runs.db")]) == 0
    assert cli.main(["verify", str(tmp_path / "runs.db"), "--strict"]) == 1


def test_ledger_off(target: Target) -> None:
    record_run(target, calls=10, ledger=False)
    with pytest.raises(ValueError, match="ledger=False"):
        rs.Ledger(target)
    assert cli.main(["verify", str(target)]) == 0
    assert cli.main(["verify", str(target), "--strict"]) == 1


def test_a_writer_without_a_log_among_others_is_no_success(target: Target) -> None:
    record_run(target, calls=10, session="run")
    with rs.record(target, session="run", resume=True, ledger=False) as recorder:
        recorder.log({"unproved": 1.0}, step=1)
    assert [("in no log" in v.problem, v.size) for v in ledger.verify(target)] == [(True, 0), (False, 16)]
    assert cli.main(["verify", str(target)]) == 1


def test_ranks_of_one_session_have_logs_of_their_own(target: Target) -> None:
    for rank in range(2):
        with rs.record(target, session="run", session_id="a job", metadata={"rank": rank}) as recorder:
            recorder.log({"loss": 1.0}, step=rank)
    assert [verdict.problem for verdict in ledger.verify(target)] == ["", ""]
    change(target, "UPDATE sessions SET created_ns = created_ns + 1")
    assert [bool(verdict.problem) for verdict in ledger.verify(target)] == [True, False]


def test_lines_have_no_ledger(tmp_path: Path) -> None:
    record_run(tmp_path / "run.jsonl", calls=10)
    with pytest.raises(ValueError, match="databases only"):
        rs.Ledger(tmp_path / "run.jsonl")
    assert cli.main(["verify", str(tmp_path / "run.jsonl")]) == 2


def test_sessions_and_writers_of_one_file_have_logs_of_their_own(target: Target) -> None:
    path = target
    record_run(path, calls=30, session="one")
    record_run(path, calls=40, session="two")
    with rs.record(path, session="two", resume=True) as recorder:
        recorder.log({"late": 1.0}, step=1)
    assert [len(ledger.verify(path, name)) for name in ("one", "two")] == [1, 2]
    assert all(v.problem == "" for name in ("one", "two") for v in ledger.verify(path, name))
    with pytest.raises(KeyError, match="several writers"):
        rs.Ledger(path, "two")
    assert cli.main(["verify", str(path)]) == 0


KILLED = """
import os, signal
import rubriscope as rs
class Half(rs.Rubric):
    def forward(self, action, observation): return 0.5
half = Half()
recorder = rs.record(TARGET, session="run")
recorder.observe(half)
for _ in range(3000): half("a", "b")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("with_key", [True, False])
def test_a_killed_run_is_recovered_into_its_ledger(target: Target, tmp_path: Path, with_key: bool) -> None:
    done = in_a_process(KILLED.replace("TARGET", repr(str(target))), tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    environment = {} if with_key else {"RUBRISCOPE_LEDGER_KEY": "nonsense"}
    code = 'import sys; from rubriscope.cli import main; sys.exit(main(["recover", TARGET]))'
    recovered = in_a_process(code.replace("TARGET", repr(str(target))), tmp_path, **environment)
    assert recovered.returncode == 0, recovered.stderr
    (verdict,) = ledger.verify(target)
    assert (verdict.problem, verdict.records) == ("", 3000)
    if with_key:
        assert verdict.unsigned_tail == 0
    else:
        assert cli.main(["verify", str(target)]) == 0


def test_progress_is_reported(recorded: Target) -> None:
    seen: list[tuple[int, int]] = []
    add: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    ledger.verify(recorded, progress=add)
    assert seen[0] == (0, 732)


# ---- bundles and witnesses

VERIFIER = Path(__file__).parents[2] / "examples" / "verify_film.py"


def verify_bundle(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The verifier, in a process that cannot import rubriscope or torch."""
    code = f"""
import runpy, sys
sys.modules["rubriscope"] = sys.modules["torch"] = None
sys.argv = {[str(VERIFIER), str(folder), *options]!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.fixture(scope="module")
def bundled(recorded: Target, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "out"
    assert cli.main(["export", str(recorded), str(folder), "--bundle"]) == 0
    return folder


def test_a_bundle_is_verified_without_rubriscope(bundled: Path, ledger_key: str) -> None:
    done = verify_bundle(bundled, "--key", ledger_key, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "728 records in 732 entries hold, signed by rubriscope/tests" in done.stdout
    files = {
        str(path.relative_to(bundled)).partition("/")[2] for path in bundled.rglob("*") if path.is_file()
    }
    assert {"checkpoint", "tile/0/000", "tile/0/002.p/220", "tile/entries/000", "tile/1/000.p/2"} <= files


def test_damage_to_any_file_of_a_bundle_shows(bundled: Path, tmp_path: Path, ledger_key: str) -> None:
    for path in sorted(
        p for p in bundled.rglob("*") if p.is_file() and p.name not in ("bundle.json", "public.keys")
    ):
        if "tile/1" in str(path):
            continue  # upper tiles are made from the lower ones anew
        folder = Path(shutil.copytree(bundled, tmp_path / path.name / "copy"))
        damaged = folder / path.relative_to(bundled)
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2] ^= 1
        damaged.write_bytes(content)
        done = verify_bundle(folder, "--key", ledger_key)
        assert done.returncode == 1, f"{path}: {done.stdout}"
        shutil.rmtree(tmp_path / path.name)


def test_a_bundle_of_another_key_is_refused(bundled: Path, tmp_path: Path) -> None:
    stranger = _C.LedgerKey.make(tmp_path / "stranger.key", "stranger").public
    assert verify_bundle(bundled, "--key", stranger).returncode == 1


def test_large_entries_are_files_of_their_own(target: Target, tmp_path: Path, ledger_key: str) -> None:
    rubric = Half()
    with rs.record(target) as recorder:
        recorder.observe(rubric)
        recorder.annotate(note="x" * 70_000)
        rubric("a", "b")
    assert cli.main(["export", str(target), str(tmp_path / "out"), "--bundle"]) == 0
    assert len(list((tmp_path / "out").rglob("large/*"))) == 1
    assert verify_bundle(tmp_path / "out", "--key", ledger_key).returncode == 0


def test_an_existing_folder_is_not_touched(recorded: Target, bundled: Path) -> None:
    assert cli.main(["export", str(recorded), str(bundled), "--bundle"]) == 1


def test_a_witness_signs_what_holds(copy: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "--name", "auditor", str(tmp_path / "auditor.key")]) == 0
    auditor = capsys.readouterr().out.strip()
    assert cli.main(["witness", str(copy), "--key", str(tmp_path / "auditor.key")]) == 0
    note = capsys.readouterr().out
    assert [line.split()[1] for line in note.splitlines()[-2:]] == ["rubriscope/tests", "auditor"]
    (verdict,) = ledger.verify(copy, keys=[auditor])
    assert (verdict.problem, verdict.signed_by) == ("", "auditor")
    (tmp_path / "kept.note").write_text(note)
    assert cli.main(["verify", str(copy), "--key", auditor, "--against", str(tmp_path / "kept.note")]) == 0
    change(copy, f"UPDATE steps SET reward = 1.0 {NINTH}")
    assert cli.main(["witness", str(copy), "--key", str(tmp_path / "auditor.key")]) == 1


def test_a_fingerprint_of_a_key_with_a_plus_in_it() -> None:
    key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    with_plus = "a+00000000+AQ+/" + "A" * 40
    assert ledger.fingerprint(key).startswith("SHA256:")
    assert len(ledger.fingerprint(with_plus)) == len(ledger.fingerprint(key)) == 50
