"""Checkpoints of models: what is recorded, listed and found changed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest
import rubriscope as rs
import torch
from engine_support import Collect
from rubriscope import checkpoints
from rubriscope.cli.app import run


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(params=["runs.db", "run.jsonl", "postgresql"])
def target(request, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return str(tmp_path / request.param)


def test_files_folders_and_names(target, tmp_path):
    model = tmp_path / "model.pt"
    torch.save({"weight": torch.ones(100)}, model)
    shards = tmp_path / "sharded"
    (shards / "sub").mkdir(parents=True)
    for name, content in {"a.bin": b"one", "b.bin": b"", "sub/c.bin": b"three" * 1000}.items():
        (shards / name).write_bytes(content)
    with rs.record(target, session="s") as recorder:
        recorder.step = 7
        one = recorder.checkpoint(model, loss=0.25, tags=["best"])
        two = recorder.checkpoint(str(shards), step=9)
        three = recorder.checkpoint("registry-name")
        assert (one.sha256, one.size, one.step) == (sha256(model), model.stat().st_size, 7)
    with rs.Film(target) as film:
        found = film.checkpoints("s")
        assert [one.step for one in found] == [7, 9, 7]
        assert (found[0].path, found[0].sha256, found[0].size) == (str(model), one.sha256, one.size)
        assert found[0].info == {"loss": 0.25, "tags": ["best"]} and found[0].files == ()
        assert found[1].sha256 == two.sha256 and found[1].size == 5003 and found[1].name == str(shards)
        assert {shard.path: (shard.sha256, shard.size) for shard in found[1].files} == {
            name: (sha256(shards / name), (shards / name).stat().st_size)
            for name in ("a.bin", "b.bin", "sub/c.bin")
        }
        # What coreutils say.
        listed = subprocess.run(
            "LC_ALL=C find . -type f | sed 's|^./||' | LC_ALL=C sort | xargs sha256sum | sha256sum",
            shell=True, cwd=shards, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert found[1].sha256 == listed.stdout.split()[0]
        assert (found[2].name, found[2].path, found[2].sha256, found[2].size) == (
            "registry-name",
            None,
            None,
            None,
        )
        assert three.path is None
        assert film.session("s").events == 3


def test_a_big_file_is_hashed_like_anybody_elses(tmp_path):
    path = tmp_path / "big"
    content = os.urandom(1 << 20) * 65 + b"tail"
    path.write_bytes(content)
    from rubriscope import _C

    seen: list[int] = []
    assert _C.file_sha256(path, seen.append) == (hashlib.sha256(content).hexdigest(), len(content))
    assert seen == [64 << 20]

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _C.file_sha256(path, stop)


def test_what_is_not_there_is_an_error(tmp_path):
    with rs.record(sinks=[Collect()], journal_dir=tmp_path / "j") as recorder:
        for path in (tmp_path / "no.pt", str(tmp_path / "no.pt"), "folder/no.pt"):
            with pytest.raises(FileNotFoundError):
                recorder.checkpoint(path)
        (tmp_path / "empty").mkdir()
        with pytest.raises(FileNotFoundError, match="empty"):
            recorder.checkpoint(tmp_path / "empty")
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match="no file"):
            recorder.checkpoint(tmp_path / "pipe")
        assert recorder.stats().accepted == 0


def test_verify_names_what_changed(tmp_path, capsys):
    path, folder = tmp_path / "runs.db", tmp_path / "models"
    folder.mkdir()
    with rs.record(path, session="s") as recorder:
        for step in range(3):
            (folder / f"{step}.pt").write_bytes(b"weights %d" % step)
            recorder.checkpoint(folder / f"{step}.pt", step=step)
            (folder / "last.pt").write_bytes(b"weights %d" % step)
            recorder.checkpoint(folder / "last.pt", step=step)
        (folder / "shards").mkdir()
        for shard in "ab":
            (folder / "shards" / shard).write_bytes(shard.encode())
        recorder.checkpoint(folder / "shards", step=3)
        recorder.checkpoint("a-name")

    def verify(*options: str) -> tuple[int, str]:
        code = run(["verify", str(path), *options])
        return code, capsys.readouterr().out

    code, out = verify()
    assert code == 0
    assert "5 checkpoints of the model hold, 2 replaced by a later one, 1 without a file" in out
    moved = tmp_path / "moved"
    folder.rename(moved)
    code, out = verify("--checkpoints", str(moved))
    assert code == 0 and "5 checkpoints" in out
    code, out = verify()
    assert code == 1 and f"s, step 1, rank 0: the checkpoint is missing: {folder / '1.pt'}" in out
    assert verify("--no-checkpoints")[0] == 0
    moved.rename(folder)

    (folder / "0.pt").write_bytes(b"Weights 0")
    code, out = verify()
    assert code == 1 and f"step 0, rank 0: the checkpoint is changed: {folder / '0.pt'}" in out
    (folder / "0.pt").write_bytes(b"weights 00")
    assert "has 10 bytes, had 9" in verify()[1]
    (folder / "0.pt").write_bytes(b"weights 0")
    for change, said in (
        (lambda: (folder / "shards" / "b").write_bytes(b"B"), f"is changed: {folder / 'shards' / 'b'}"),
        (lambda: (folder / "shards" / "b").unlink(), f"is missing: {folder / 'shards' / 'b'}"),
        (lambda: (folder / "shards" / "c").write_bytes(b"c"), f"{folder / 'shards' / 'c'} was not there"),
    ):
        change()
        code, out = verify()
        assert code == 1 and said in out, out
        (folder / "shards" / "b").write_bytes(b"b")
        (folder / "shards" / "c").unlink(missing_ok=True)
    assert verify()[0] == 0
    # A later session that writes to the same path replaces it.
    with rs.record(path, session="later") as recorder:
        (folder / "2.pt").write_bytes(b"weights of another run")
        recorder.checkpoint(folder / "2.pt", step=0)
    code, out = verify("--session", "s", "--json")
    assert code == 0
    states = [one["state"] for one in json.loads(out)["sessions"][0]["checkpoints"]]
    assert sorted(states) == ["holds"] * 4 + ["no file"] + ["replaced"] * 3
    (folder / "2.pt").unlink()
    assert verify("--session", "s")[0] == 0 and verify("--session", "later")[0] == 1


def test_a_changed_record_is_found_by_the_ledger(tmp_path, capsys):
    """Who changes the file and the row's digest with it does not get away."""
    import sqlite3

    path = tmp_path / "runs.db"
    (tmp_path / "m.pt").write_bytes(b"true")
    with rs.record(path, session="s") as recorder:
        recorder.checkpoint(tmp_path / "m.pt")
    (tmp_path / "m.pt").write_bytes(b"fals")
    old, new = hashlib.sha256(b"true").hexdigest(), hashlib.sha256(b"fals").hexdigest()
    with sqlite3.connect(path) as database:
        ((record,),) = database.execute("SELECT record FROM events").fetchall()
        database.execute(
            "UPDATE events SET fields = replace(fields, ?, ?), record = ?",
            (old, new, record.replace(old.encode(), new.encode())),
        )
    database.close()
    assert rs.Film(path).checkpoints()[0].sha256 == new
    assert run(["verify", str(path)]) == 1
    assert "✗ s, rank 0" in capsys.readouterr().out


def test_show_lists_them(tmp_path, capsys):
    path = tmp_path / "runs.db"
    (tmp_path / "m.pt").write_bytes(b"x" * 1234)
    with rs.record(path, session="s") as recorder:
        recorder.checkpoint(tmp_path / "m.pt", step=12, loss=0.5)
    assert run(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "m.pt" in out and "1,234" in out and sha256(tmp_path / "m.pt")[:16] in out and "loss=0.5" in out
    assert "nothing recorded" not in out
    assert run(["show", str(path), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["checkpoints"]
    assert (one["step"], one["size"], one["info"]) == (12, 1234, {"loss": 0.5})


def test_checkpoints_survive_a_fork_and_a_pickle(tmp_path):
    import pickle

    path = tmp_path / "runs.db"
    (tmp_path / "m.pt").write_bytes(b"x")
    with rs.record(path, session="s") as recorder:
        recorder.checkpoint(tmp_path / "m.pt", step=0)
        text = pickle.dumps(recorder)
        pid = os.fork()
        if pid == 0:
            recorder.checkpoint(tmp_path / "m.pt", step=1)
            recorder.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
    with pickle.loads(text) as again:
        again.checkpoint(tmp_path / "m.pt", step=2)
    with rs.Film(path) as film:
        assert sorted(one.step for one in film.checkpoints("s")) == [0, 1, 2]
        states = [finding.state for finding in checkpoints.check(film.checkpoints("s"))]
        assert sorted(states) == ["holds", "replaced", "replaced"]
