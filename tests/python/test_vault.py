"""The vault: what an encrypted recording shows, to whom, and what becomes of changes. The oracle is another
implementation of AES-GCM (cryptography), which opens the records by what docs/formats.md says."""

from __future__ import annotations

import base64
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cbor2
import pytest
import rubriscope as rs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rubriscope import vault
from rubriscope.cli import main

KEY = bytes(range(32))
CANARY = "CANARY7f3a"


class Explained(rs.Rubric):
    def forward(self, action, observation):
        return rs.Score(0.5, explanation=f"{CANARY}-explanation", note=f"{CANARY}-score-metadata")


class CanaryClass7f3a(rs.Rubric):
    def forward(self, action, observation):
        raise ValueError(f"{CANARY}-reason")


def tree():
    return rs.RubricDict({f"{CANARY}path": Explained(), "bad": CanaryClass7f3a()})


class Root(rs.Rubric):
    def __init__(self):
        super().__init__()
        self.parts = tree()

    def forward(self, action, observation):
        for part in self.parts.values():
            try:
                part(action, observation)
            except ValueError:
                return 0.25
        return 1.0


def record_canaries(recorder, steps=20):
    root = Root()
    recorder.observe(root)
    for step in range(steps):
        with recorder.episode(f"{CANARY}-episode", step=step, group_id=4):
            recorder.annotate(note=f"{CANARY}-metadata")
            root(f"{CANARY}-action", f"{CANARY}-observation")
    recorder.log({f"{CANARY}loss": 1.5}, step=3)
    schema = recorder._native.define_event(f"{CANARY}event", f'{{"a": "{CANARY}"}}', [f"{CANARY}v"], ["f"])
    recorder._native.emit_event("span", schema, values=[2.5], fields={0: f"{CANARY}-field"}, outcome="error")


def make(path, steps=20, session="sealed", **options):
    sink = rs.EncryptedDatabaseSink(path, key=KEY)
    with rs.record(sink, session=session, metadata={"secret": f"{CANARY}-session"}, **options) as recorder:
        record_canaries(recorder, steps)
    return path


def canaries_in(folder):
    found = []
    for path in Path(folder).rglob("*"):
        if path.is_file() and CANARY.encode() in path.read_bytes():
            found.append(path.name)
    return found


# ---- reading


def test_opens_with_the_key(tmp_path):
    film = rs.Film(make(tmp_path / "runs.db"), key=KEY)
    session = film.session()
    assert session.metadata["secret"] == f"{CANARY}-session"
    assert (session.steps, session.scalars, session.events) == (20, 1, 1)
    assert film.paths() == ["root", "parts", f"parts.{CANARY}path", "parts.bad"]
    assert film.episodes() == [f"{CANARY}-episode"]
    snapshots = list(film.snapshots(episode=f"{CANARY}-episode", start=5, stop=8))
    assert [s.step for s in snapshots] == [5, 6, 7]
    one = snapshots[0]
    assert one.action == f"{CANARY}-action" and one.metadata == {"note": f"{CANARY}-metadata"}
    assert one.reward == 0.25 and one.statuses["parts.bad"] == "failed" and one.group_id == 4
    assert one.explanations == {f"parts.{CANARY}path": f"{CANARY}-explanation"}
    assert film.scores(f"parts.{CANARY}path").score.tolist() == [0.5] * 20
    assert film.scores(f"{CANARY}loss").score.tolist() == [1.5]
    assert {s.path: s.failed for s in film.summaries()}["parts.bad"] == 20
    (event,) = film.events(name=f"{CANARY}event")
    assert event.fields == {"f": f"{CANARY}-field"} and event.outcome == "error"
    assert event.attributes == {"a": CANARY} and event.values == {f"{CANARY}v": 2.5}


def test_the_same_as_a_plain_recording(tmp_path):
    make(tmp_path / "sealed.db")
    with rs.record(tmp_path / "plain.db", session="plain") as recorder:
        record_canaries(recorder)
    with rs.Film(tmp_path / "sealed.db", key=KEY) as sealed, rs.Film(tmp_path / "plain.db") as plain:
        for one, other in zip(sealed.snapshots(), plain.snapshots(), strict=True):
            left, right = one.to_dict(), other.to_dict()
            for name in ("id", "session_id", "session_name", "time_ns", "timestamp", "durations_ns"):
                left.pop(name), right.pop(name)
            assert left == right


def test_without_the_key(tmp_path, capsys):
    path = make(tmp_path / "runs.db")
    film = rs.Film(path)
    (session,) = film.sessions()
    assert (session.name, session.steps, session.metadata) == ("sealed", 20, {"encrypted": True})
    for ask in (
        film.paths,
        film.scalars,
        lambda: list(film.snapshots()),
        lambda: film.scores("root"),
        lambda: list(film.events()),
        film.summaries,
        film.episodes,
    ):
        with pytest.raises(rs.SealedError, match="key_file"):
            ask()
    assert main(["verify", str(path)]) == 0
    assert main(["sessions", str(path)]) == 0
    assert CANARY not in capsys.readouterr().out
    assert main(["show", str(path)]) != 0
    assert "--key-file" in capsys.readouterr().err


def test_wrong_and_missing_keys(tmp_path, monkeypatch):
    path = make(tmp_path / "runs.db")
    for wrong in (b"0" * 32, "f" * 64):
        with pytest.raises(rs.SealedError, match="the key given is"):
            rs.Film(path, key=wrong)
        with pytest.raises(rs.SealedError, match=r"runs\.db"):
            rs.EncryptedDatabaseSink(path, key=wrong)
    with pytest.raises(ValueError, match="64 hex digits"):
        rs.Film(path, key=b"short")
    with pytest.raises(ValueError, match="exactly one"):
        rs.EncryptedDatabaseSink(path)
    with pytest.raises(ValueError, match="exactly one"):
        rs.EncryptedDatabaseSink(path, key=KEY, key_env="X")
    with pytest.raises(KeyError, match="NO_SUCH"):
        rs.EncryptedDatabaseSink(path, key_env="NO_SUCH")
    with pytest.raises(FileNotFoundError):
        rs.EncryptedDatabaseSink(path, key_file=tmp_path / "none")
    with pytest.raises(TypeError, match="int"):
        rs.EncryptedDatabaseSink(path, key=lambda: 7)


def test_every_source_of_a_key(tmp_path, monkeypatch):
    path = make(tmp_path / "runs.db")
    (tmp_path / "raw").write_bytes(KEY)
    (tmp_path / "hex").write_text(KEY.hex().upper() + "\n")
    monkeypatch.setenv("MY_KEY", KEY.hex())
    for given in (
        {"key_file": tmp_path / "raw"},
        {"key_file": str(tmp_path / "hex")},
        {"key_env": "MY_KEY"},
        {"key": lambda: KEY},
        {"key": KEY.hex()},
    ):
        assert rs.Film(path, **given).paths()[0] == "root"
        rs.EncryptedDatabaseSink(path, **given)
    monkeypatch.setenv("RUBRISCOPE_KEY_FILE", str(tmp_path / "raw"))
    assert rs.Film(path).paths()[0] == "root"
    with rs.record(tmp_path / "plain.db") as recorder:
        recorder.log({"x": 1})
    assert rs.Film(tmp_path / "plain.db").scalars() == ["x"]  # a key where none is needed does no harm


# ---- what is in the files


def test_no_canary_in_database_wal_or_journal(tmp_path):
    program = f"""
        import os, signal, sys
        import rubriscope as rs
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from test_vault import KEY, record_canaries
        sink = rs.EncryptedDatabaseSink({str(tmp_path / "run" / "runs.db")!r}, key=KEY)
        recorder = rs.record(sink, session="killed", metadata={{"secret": "{CANARY}-session"}})
        record_canaries(recorder)
        recorder.flush()
        record_canaries(recorder, 300)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    (tmp_path / "run").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert ended.returncode == -signal.SIGKILL
    names = {path.name for path in (tmp_path / "run").rglob("*")}
    assert {"runs.db-wal", "definitions", "definitions.copy", "owner.lock"} <= names
    assert canaries_in(tmp_path) == []
    # Who recovers needs no key; what was sealed is there once.
    assert main(["recover", str(tmp_path / "run" / "runs.db")]) == 0
    assert canaries_in(tmp_path) == []
    with rs.Film(tmp_path / "run" / "runs.db", key=KEY) as film:
        assert film.session().steps == 320
        assert all(s.action == f"{CANARY}-action" for s in film.snapshots())
    # The search has teeth: an unencrypted recording is found.
    with rs.record(tmp_path / "plain.db") as recorder:
        record_canaries(recorder, 1)
    assert canaries_in(tmp_path) == ["plain.db"]


def test_paths_are_tokens_that_can_be_searched(tmp_path):
    path = make(tmp_path / "runs.db")
    make(path, session="again")
    token = rs.EncryptedDatabaseSink(path, key=KEY).vault.token(f"parts.{CANARY}path")
    with sqlite3.connect(path) as database:
        found = database.execute(
            "SELECT count(DISTINCT session_id), count(*) FROM trajectory WHERE rubric_path = ?", (token,)
        ).fetchone()
        assert found == (2, 40)
        assert database.execute("SELECT count(score), count(status) FROM trajectory").fetchone() == (0, 0)
        rows = database.execute("SELECT action, observation, metadata, reward, episode_id FROM steps")
        assert set(rows) == {(None,) * 5}


def unwrap(wrapped, session, writer, key=KEY):
    purpose = f"rubriscope data key of {session}/{writer}".encode()
    return AESGCM(key).decrypt(wrapped[9:21], wrapped[21:], wrapped[:9] + purpose)


def open_record(record, data_key):
    fields = cbor2.loads(record)
    header = struct.pack(
        "<HIQqqqqiI", fields[1], fields[5], fields[4], fields[6], fields[7], fields[10],
        fields.get(11, -(2**63)), fields.get(12, -1), fields[8],
    )  # fmt: skip
    nonce = struct.pack(">IQ", 0, fields[4])
    additional = struct.pack("<I", 0) + fields[2] + fields[3] + header
    return AESGCM(data_key).decrypt(nonce, fields[39], additional)


def keys_and_records(path, after=0):
    """(writer key, sequence) -> (data key, record) of later writers, by another implementation."""
    with sqlite3.connect(path) as database:
        keys = {
            row[0]: unwrap(row[1], row[2], row[3])
            for row in database.execute(
                "SELECT k.writer_key, k.wrapped_key, s.uuid, w.writer_id FROM vault_keys k "
                "JOIN writers w USING(writer_key) JOIN sessions s USING(session_id)"
            )
        }
        rows = database.execute(
            "SELECT step_key AS key, record FROM steps WHERE key >= ?1 "
            "UNION ALL SELECT scalar_key AS key, record FROM scalars WHERE key >= ?1 "
            "UNION ALL SELECT event_key AS key, record FROM events WHERE key >= ?1",
            ((after + 1) << 40,),
        ).fetchall()
    return keys, {(key >> 40, key & (1 << 40) - 1): (keys[key >> 40], record) for key, record in rows}


def test_another_implementation_opens_what_the_page_of_formats_says(tmp_path):
    path = make(tmp_path / "runs.db")
    keys, records = keys_and_records(path)
    assert len(keys) == 1 and len(records) == 22
    for key, record in records.values():
        plain = open_record(record, key)
        extras_bytes, outcome, slots, _ = struct.unpack_from("<IHHQ", plain)
        assert len(plain) == 16 + slots * 16 + (slots + 7 & ~7) + extras_bytes and outcome < 3
    plain = open_record(records[1, 0][1], records[1, 0][0])
    assert struct.unpack_from("<d", plain, 16) == (0.25,) and f"{CANARY}-action".encode() in plain
    with sqlite3.connect(path) as database:
        (metadata,) = database.execute("SELECT metadata FROM sessions").fetchone()
        session, writer = database.execute(
            "SELECT s.uuid, writer_id FROM sessions s JOIN writers USING(session_id)"
        ).fetchone()
    sealed_by, _, text = json.loads(metadata)["sealed"].partition(":")
    ids = bytes.fromhex(session.replace("-", "")) + bytes.fromhex(writer.replace("-", ""))
    opened = AESGCM(keys[1]).decrypt(
        struct.pack(">IQ", 2, 0), base64.b64decode(text), struct.pack("<I", 2) + ids + struct.pack("<Q", 0)
    )
    assert sealed_by == writer and json.loads(opened)["secret"] == f"{CANARY}-session"


# ---- changes


def changed(path, tmp_path, *statements):
    copy = tmp_path / f"changed-{random.getrandbits(32)}.db"
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as database:
        for statement, *values in statements:
            assert database.execute(statement, values).rowcount != 0
    return copy


def test_rows_cannot_be_swapped_moved_or_changed(tmp_path):
    path = make(tmp_path / "runs.db")
    make(path, session="other")
    with sqlite3.connect(path) as database:
        first, second = (
            row[0]
            for row in database.execute("SELECT record FROM steps ORDER BY step_key LIMIT 2").fetchall()
        )
        elsewhere = database.execute("SELECT record FROM steps WHERE session_id = 2 LIMIT 1").fetchone()[0]
        first_key = database.execute("SELECT min(step_key) FROM steps").fetchone()[0]
    swap = "UPDATE steps SET record = ? WHERE step_key = ?"
    fields = cbor2.loads(first)
    relabelled = cbor2.dumps({**fields, 10: fields[10] + 1}, canonical=True)
    reused = cbor2.dumps({**fields, 39: cbor2.loads(second)[39]}, canonical=True)
    foreign = cbor2.dumps({**fields, 39: cbor2.loads(elsewhere)[39]}, canonical=True)
    for record in (relabelled, reused, foreign):
        copy = changed(path, tmp_path, (swap, record, first_key))
        with pytest.raises(rs.SealedError, match=r"does not open"):
            list(rs.Film(copy, key=KEY).snapshots("sealed"))
        assert main(["verify", str(copy)]) == 1
    for bit in random.Random(1).sample(range(len(first) * 8), 40):
        flipped = bytearray(first)
        flipped[bit // 8] ^= 1 << bit % 8
        copy = changed(path, tmp_path, (swap, bytes(flipped), first_key))
        with pytest.raises((rs.SealedError, rs.FormatError)):
            list(rs.Film(copy, key=KEY).snapshots("sealed"))


def test_keys_cannot_be_swapped(tmp_path):
    path = make(tmp_path / "runs.db")
    make(path, session="other")
    copy = changed(
        path,
        tmp_path,
        ("UPDATE vault_keys SET wrapped_key = (SELECT wrapped_key FROM vault_keys WHERE writer_key = 2) "
         "WHERE writer_key = 1",),
    )  # fmt: skip
    with pytest.raises(rs.SealedError, match="changed, or belongs elsewhere"):
        rs.Film(copy, key=KEY).paths("sealed")
    assert rs.Film(copy, key=KEY).paths("other")[0] == "root"


# ---- recorders


def test_plain_and_encrypted_are_never_mixed(tmp_path):
    sink = rs.EncryptedDatabaseSink(tmp_path / "runs.db", key=KEY)
    with pytest.raises(ValueError, match=r"run\.jsonl.*in the clear"):
        rs.record(sink, sinks=[tmp_path / "run.jsonl"])
    with pytest.raises(ValueError, match="in the clear"):
        rs.record(sink, sinks=[rs.EncryptedDatabaseSink(tmp_path / "two.db", key=KEY)])
    make(tmp_path / "runs.db")
    with pytest.raises(ValueError, match="EncryptedDatabaseSink"):
        rs.record(tmp_path / "runs.db")
    assert not (tmp_path / "run.jsonl").exists()


def test_resume_and_ledger(tmp_path):
    path = make(tmp_path / "runs.db")
    with rs.record(rs.EncryptedDatabaseSink(path, key=KEY), session="sealed", resume=True) as recorder:
        record_canaries(recorder, 5)
        recorder.flush()
        assert recorder.ledger.size > 5
    film = rs.Film(path, key=KEY)
    assert film.session().steps == 25 and film.session().metadata["secret"] == f"{CANARY}-session"
    assert main(["verify", str(path)]) == 0


def scores_in_a_worker(pickled):
    recorder = pickle.loads(pickled)
    recorder.log({f"{CANARY}worker": 1.0}, step=1)
    recorder.flush()
    return recorder.writer_id


def test_spawned_and_forked_writers_have_keys_of_their_own(tmp_path):
    path = tmp_path / "runs.db"
    recorder = rs.record(rs.EncryptedDatabaseSink(path, key=KEY), session="sealed")
    record_canaries(recorder, 3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.apply(scores_in_a_worker, (pickle.dumps(recorder),))
    child = os.fork()
    if child == 0:
        recorder.log({f"{CANARY}forked": 2.0}, step=2)
        recorder.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    recorder.close()
    assert spawned != recorder.writer_id and canaries_in(tmp_path) == []
    keys, records = keys_and_records(path)
    assert len(set(keys.values())) == len(keys) == 3
    assert all(open_record(record, key) for key, record in records.values())
    assert set(rs.Film(path, key=KEY).scalars()) == {f"{CANARY}{n}" for n in ("loss", "worker", "forked")}


def test_no_nonce_is_used_twice(tmp_path):
    """Processes that record from threads, fork, and are killed at random times; VAULT_KILLS of them."""
    rounds = int(os.environ.get("VAULT_KILLS", "3"))
    path = tmp_path / "runs.db"
    program = textwrap.dedent(f"""
        import os, sys, threading
        import rubriscope as rs
        sink = rs.EncryptedDatabaseSink({str(path)!r}, key={KEY!r})
        recorder = rs.record(sink, session="n", flush_interval_ms=5)
        def run(name):
            for step in range(10**9):
                recorder.log({{name: step}}, step=step)
        threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in "abc"]
        for thread in threads: thread.start()
        print("recording", flush=True)
        for _ in range(3):
            if os.fork() == 0:
                run("forked")
        run("main")
    """)
    seen, last_writer = {}, 0
    for seed in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout.readline() == b"recording\n"
        time.sleep(random.Random(seed).random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for _ in range(100):  # a dying process may hold its journal's lock a little longer
            if subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True).returncode != 0:
                break
            time.sleep(0.05)
        assert main(["recover", str(path)]) == 0
        _, records = keys_and_records(path, last_writer)
        for (writer, sequence), (key, record) in records.items():
            assert (key, sequence) not in seen
            seen[key, sequence] = record
            last_writer = max(last_writer, writer)
    keys, records = keys_and_records(path)
    assert len(set(keys.values())) == len(keys) >= rounds
    assert len(seen) == len(records) > 100
    sample = random.Random(0).sample(sorted(records), 200)
    assert all(open_record(records[place][1], records[place][0]) for place in sample)
    assert main(["verify", str(path)]) == 0


# ---- changing and destroying keys


def test_rotation(tmp_path, capsys):
    path = make(tmp_path / "runs.db")
    old, new = tmp_path / "old.key", tmp_path / "new.key"
    old.write_bytes(KEY)
    assert main(["keys", "new", "--vault", str(new)]) == 0
    assert new.stat().st_mode & 0o777 == 0o600 and len(new.read_text().strip()) == 64
    assert main(["keys", "new", "--vault", str(new)]) == 2
    with sqlite3.connect(path) as database:
        before = database.execute("SELECT record FROM steps").fetchall()
    rotate = ["keys", "rotate", str(path), "--key-file", str(old), "--new-key-file", str(new)]
    assert main(rotate) == 0
    assert "2 keys are wrapped" in capsys.readouterr().out
    assert main(rotate) == 0
    assert "0 keys" in capsys.readouterr().out
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT record FROM steps").fetchall() == before
    with pytest.raises(rs.SealedError):
        rs.Film(path, key_file=old)
    assert rs.Film(path, key_file=new).paths()[0] == "root"
    with rs.record(rs.EncryptedDatabaseSink(path, key_file=new), session="after") as recorder:
        record_canaries(recorder, 2)
    assert main(["verify", str(path)]) == 0
    other = tmp_path / "other.key"
    other.write_bytes(b"x" * 32)
    assert main(["keys", "rotate", str(path), "--key-file", str(other), "--new-key-file", str(old)]) != 0
    assert rs.Film(path, key_file=new).paths("after")[0] == "root"


def test_an_interrupted_rotation_leaves_all_keys_old_or_all_new(tmp_path):
    path = make(tmp_path / "runs.db", steps=2)
    with sqlite3.connect(path) as database:  # many writers' keys, each wrapped for its own
        session = database.execute("SELECT uuid FROM sessions").fetchone()[0]
        for number in range(2, 1500):
            writer = f"00000000-0000-4000-8000-{number:012}"
            database.execute("INSERT INTO writers VALUES(?,1,?,0,1,'h',1,1,1)", (number, writer))
            purpose = f"rubriscope data key of {session}/{writer}".encode()
            head = b"\x01" + bytes.fromhex(vault.load_key(key=KEY).id)
            nonce = os.urandom(12)
            wrapped = head + nonce + AESGCM(KEY).encrypt(nonce, os.urandom(32), head + purpose)
            database.execute("INSERT INTO vault_keys VALUES(?, ?)", (number, wrapped))
    names = [tmp_path / f"key-{n}" for n in range(2)]
    names[0].write_bytes(KEY)
    names[1].write_bytes(b"n" * 32)
    now, following = names
    ids = {vault.load_key(key_file=name).id: name for name in names}
    chance = random.Random(5)
    killed = 0
    for _ in range(12):
        command = [sys.executable, "-m", "rubriscope", "keys", "rotate", str(path)]
        process = subprocess.Popen(
            [*command, "--key-file", str(now), "--new-key-file", str(following)], stdout=subprocess.DEVNULL
        )
        wal = Path(f"{path}-wal")
        begin = time.monotonic()
        while process.poll() is None and not (wal.exists() and wal.stat().st_size > 0):
            if time.monotonic() - begin > 20:
                break
            time.sleep(0.0005)
        time.sleep(chance.random() * 0.004)
        process.kill()
        killed += process.wait() != 0
        with sqlite3.connect(path) as database:
            wrapped = [row[0] for row in database.execute("SELECT wrapped_key FROM vault_keys")]
            wrapped += [row[0] for row in database.execute("SELECT search_key FROM vault")]
        by = {key[1:9].hex() for key in wrapped}
        assert len(by) == 1, "some keys are old and some new"
        now = ids[by.pop()]
        following = names[1 - names.index(now)]
        assert rs.Film(path, key_file=now).paths()[0] == "root"
    assert killed > 0


def test_shredding(tmp_path, capsys):
    path = make(tmp_path / "runs.db")
    make(path, session="kept")
    with sqlite3.connect(path) as database:
        (wrapped,) = database.execute("SELECT wrapped_key FROM vault_keys WHERE writer_key = 1").fetchone()
    assert wrapped in path.read_bytes()
    assert main(["shred", str(path), "sealed"]) == 2
    assert "--yes" in capsys.readouterr().err
    assert main(["shred", f"{path}:sealed", "--yes"]) == 0
    for file in tmp_path.iterdir():
        assert wrapped not in file.read_bytes(), file
    film = rs.Film(path, key=KEY)
    assert [s.name for s in film.sessions()] == ["sealed", "kept"]
    with pytest.raises(rs.SealedError, match="shredded"):
        film.paths("sealed")
    with pytest.raises(rs.SealedError, match="shredded"):
        list(film.snapshots("sealed"))
    assert len(list(film.snapshots("kept"))) == 20
    assert main(["verify", str(path)]) == 0
    assert main(["shred", str(path), "sealed", "--yes"]) == 2
    with sqlite3.connect(path) as database, pytest.raises(InvalidTag):
        record = database.execute("SELECT record FROM steps LIMIT 1").fetchone()[0]
        open_record(record, bytes(32))


def test_a_session_that_is_recorded_is_not_shredded(tmp_path):
    path = tmp_path / "runs.db"
    with rs.record(rs.EncryptedDatabaseSink(path, key=KEY), session="now") as recorder:
        record_canaries(recorder, 2)
        recorder.flush()
        with pytest.raises(ValueError, match="recording"):
            vault.shred(path, "now")
    assert vault.shred(path, "now") == 1


def test_what_is_not_encrypted_has_no_keys(tmp_path):
    with rs.record(tmp_path / "plain.db") as recorder:
        recorder.log({"x": 1})
    key = vault.load_key(key=KEY)
    with pytest.raises(rs.FormatError, match="not encrypted"):
        vault.rotate(tmp_path / "plain.db", key, key)
    with rs.record(tmp_path / "run.jsonl") as recorder:
        recorder.log({"x": 1})
    with pytest.raises(rs.FormatError, match="not encrypted"):
        vault.rotate(tmp_path / "run.jsonl", key, key)
