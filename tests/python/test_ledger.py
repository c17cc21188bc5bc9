"""The ledger of a recorded session: what it proves, and what it finds."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from pathlib import Path

import cbor2
import pytest
import rubriscope as rs
from ledger_support import Half, Target, change, copy, record_run, recorded, rows, second, state, target
from rubriscope import _C, cli, ledger

__all__ = ["copy", "recorded", "second", "state", "target"]  # fixtures


# ---- what it proves


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1, with hashlib."""
    if len(leaves) == 1:
        return leaves[0]
    k = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def test_the_tree_is_over_the_stored_bytes(recorded: Target) -> None:
    log = rs.Ledger(recorded)
    entries = [log.entry(i) for i in range(log.size)]
    leaves = [hashlib.sha256(b"\0" + entry).digest() for entry in entries]
    for size in (1, 2, 3, 255, 256, 257, 512, 700, log.size):
        assert log.root(size) == naive_root(leaves[:size])
    stored = {
        row[0] for row in rows(recorded, "SELECT record FROM steps UNION ALL SELECT record FROM scalars")
    }
    records = [entry for entry in entries if cbor2.loads(entry)[1] in (1, 2)]
    assert set(records) == stored
    assert len(records) == len(stored) == 700 + 14 + 14
    definitions = [cbor2.loads(entry) for entry in entries if cbor2.loads(entry)[1] > 2]
    assert [d[1] for d in definitions] == [3, 4, 4, 4]  # the writer, two trees, one set of scalars
    assert definitions[0][24] == "run"
    assert all(cbor2.dumps(cbor2.loads(entry), canonical=True) == entry for entry in entries)


def test_proofs_of_the_stored_log_verify(recorded: Target) -> None:
    log = rs.Ledger(recorded)
    root = log.root()
    for index in (0, 1, 5, 255, 256, 300, log.size - 1):
        proof = log.inclusion_proof(index)
        assert rs.verify_inclusion(log.entry(index), index, log.size, proof, root)
        assert not rs.verify_inclusion(log.entry(index) + b"x", index, log.size, proof, root)
        assert rs.verify_inclusion(
            log.entry(index), index, index + 1, log.inclusion_proof(index, index + 1), log.root(index + 1)
        )
    for size in (1, 255, 256, 257, 600, log.size):
        assert rs.verify_consistency(size, log.size, log.root(size), root, log.consistency_proof(size))
    with pytest.raises(ValueError, match="no leaf"):
        log.inclusion_proof(log.size)
    with pytest.raises(ValueError, match="entries"):
        log.root(log.size + 1)
    for index in (log.size, -1):
        with pytest.raises(ValueError, match="entr"):
            log.entry(index)


def test_a_checkpoint_is_signed_and_current(recorded: Target, ledger_key: str) -> None:
    log = rs.Ledger(recorded)
    checkpoint = log.checkpoint()
    assert checkpoint is not None
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (log.origin, log.size, log.root())
    assert _C.open_checkpoint(checkpoint.note, [ledger_key])["signed_by"] == ["rubriscope/tests"]


def test_flush_leaves_nothing_unsigned(target: Target) -> None:
    rubric = Half()
    with rs.record(target) as recorder:
        recorder.observe(rubric)
        for count in (1, 2, 5):
            for _ in range(count):
                rubric("a", "b")
            recorder.flush()
            checkpoint = recorder.ledger.checkpoint()
            assert checkpoint is not None
            assert checkpoint.size == recorder.ledger.size


def test_the_bare_tree() -> None:
    tree = ledger.MerkleTree()
    entries = [bytes([i]) * i for i in range(20)]
    assert [tree.append(entry) for entry in entries] == list(range(20))
    assert len(tree) == tree.size == 20
    assert tree.root() == naive_root([hashlib.sha256(b"\0" + entry).digest() for entry in entries])
    assert tree.root(0) == hashlib.sha256(b"").digest()
    assert rs.verify_inclusion(entries[7], 7, 15, tree.inclusion_proof(7, 15), tree.root(15))
    assert rs.verify_consistency(9, 20, tree.root(9), tree.root(), tree.consistency_proof(9))
    with pytest.raises(ValueError, match="32"):
        rs.verify_inclusion(b"", 0, 1, [b"short"], tree.root())


# ---- what it finds


def test_an_untouched_recording_holds(recorded: Target) -> None:
    (verdict,) = ledger.verify(recorded)
    assert verdict.problem == ""
    assert verdict.records == 728
    assert verdict.unsigned_tail == 0
    assert verdict.signed_by == "rubriscope/tests"


FIRST = "(SELECT min(step_key) FROM steps)"
NINTH = f"WHERE step_key = {FIRST} + 9"
# In three moves through a key that is free; no foreign key points at a step.
SWAP = [
    f"UPDATE steps SET step_key = step_key + 9999 WHERE step_key = {FIRST} + 20",
    f"UPDATE steps SET step_key = step_key - 1 WHERE step_key = {FIRST} + 21",
    f"UPDATE steps SET step_key = step_key - 9998 WHERE step_key = {FIRST} + 20 + 9999",
]
ADD = """INSERT INTO steps SELECT step_key + 1, session_id, episode_id, step_index, time_ns, reward, action,
    observation, metadata, group_id, sample_index, schema_key, scores, statuses, record FROM steps
    ORDER BY step_key DESC LIMIT 1"""
TILE = "WHERE tile_key = (SELECT {} FROM ledger_tiles)"
BLANK = "UPDATE ledger_tiles SET hashes = zeroblob(length(hashes)) " + TILE
RESIZE = """UPDATE ledgers SET checkpoint =
    replace(checkpoint, char(10) || size || char(10), char(10) || (size - 1) || char(10))"""
LAST_ENTRY = "(SELECT max(entry_key) FROM ledger_entries)"

#: What is done → the SQL, and words of the verdict.
FORGERIES: dict[str, tuple[list[str], str]] = {
    "changed record": ([f"UPDATE steps SET record = zeroblob(40) {NINTH}"], "record 9 was changed"),
    "removed record": ([f"DELETE FROM steps {NINTH}"], "record 9 is missing"),
    "removed scalars": (["DELETE FROM scalars WHERE step_index = 50"], "is missing"),
    "truncated log": ([f"DELETE FROM steps WHERE step_key > {FIRST} + 600"], "is missing"),
    "added record": ([ADD], "was added"),
    "swapped records": (SWAP, "record 20 was changed"),
    "changed reward": ([f"UPDATE steps SET reward = 1.0 {NINTH}"], "record 9: its column reward"),
    "changed scores": ([f"UPDATE steps SET scores = '[1,1,1]' {NINTH}"], "its column scores"),
    "another step": ([f"UPDATE steps SET step_index = 4711 {NINTH}"], "its column step_index"),
    "another time": ([f"UPDATE steps SET time_ns = 0 {NINTH}"], "its column time_ns"),
    "another episode": ([f"UPDATE steps SET episode_id = 'x' {NINTH}"], "its column episode_id"),
    "another action": ([f"UPDATE steps SET action = 'x' {NINTH}"], "its column action"),
    "removed action": ([f"UPDATE steps SET action = NULL {NINTH}"], "its column action"),
    "number as text": ([f"UPDATE steps SET observation = '9' {NINTH}"], "its column observation"),
    "statuses": ([f"UPDATE steps SET statuses = 'fss' {NINTH}"], "its column statuses"),
    "another value": (["UPDATE scalars SET \"values\" = '[0]' WHERE step_index = 50"], "its column values"),
    "another tree": (["UPDATE schemas SET definition = replace(definition, 'Half', 'Full')"], "schema"),
    "renamed rubric": (["UPDATE rubrics SET rubric_path = 'x' WHERE rubric_path = 'rubric_0'"], "rubrics"),
    "renamed session": (["UPDATE sessions SET name = 'better'"], "session"),
    "other metadata": (["UPDATE sessions SET metadata = '{}'"], "metadata"),
    "another rank": (["UPDATE writers SET rank = 7"], "writer"),
    "changed leaves": ([BLANK.format("min(tile_key) + 1")], "was changed"),
    "changed upper tile": ([BLANK.format("max(tile_key)")], "tile 1/0"),
    "removed tile": (["DELETE FROM ledger_tiles " + TILE.format("min(tile_key)")], "tile 0/0"),
    "changed definition": (["UPDATE ledger_entries SET entry = zeroblob(9)"], "was changed"),
    "removed definition": ([f"DELETE FROM ledger_entries WHERE entry_key = {LAST_ENTRY}"], "was changed"),
    "smaller log": (["UPDATE ledgers SET size = size - 5"], "rewound"),
    "forged checkpoint": ([RESIZE], "not signed"),
    "removed log": (["DELETE FROM ledgers"], "in no log"),
    "no signature": (["UPDATE ledgers SET checkpoint = 'nothing'"], "not a signed note"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_finds(name: str, copy: Target) -> None:
    statements, words = FORGERIES[name]
    if name == "number as text" and isinstance(copy, str):
        statements = [statements[0].replace("'9'", "'09'")]  # every capture is a text there
    change(copy, *statements)
    (verdict,) = ledger.verify(copy)
    assert words in verdict.problem
    assert verdict.problem
    if isinstance(copy, Path):
        assert cli.main(["verify", str(copy)]) == 1


def test_a_changed_database_is_no_success(copy: Target) -> None:
    change(copy, f"UPDATE steps SET reward = 1.0 {NINTH}")
    assert cli.main(["verify", str(copy)]) == 1


def test_a_recording_holds_while_it_is_written(target: Target) -> None:
    rubric, written = Half(), threading.Event()
    with rs.record(target, session="run", flush_interval_ms=5) as recorder:
        recorder.observe(rubric)

        def write() -> None:
            while not written.is_set():
                rubric("a", "b")
                time.sleep(0.0005)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            recorder.flush()
            sizes: set[int] = set()
            deadline = time.monotonic() + 30
            while len(sizes) < 5 and time.monotonic() < deadline:
                (verdict,) = ledger.verify(target)
                assert (verdict.problem, verdict.unsigned_tail) == ("", 0)
                sizes.add(verdict.size)
        finally:
            written.set()
            thread.join()
    assert len(sizes) == 5


def test_every_byte_of_a_record_counts(tmp_path: Path) -> None:
    copy = tmp_path / "runs.db"
    record_run(copy, calls=40)
    with sqlite3.connect(copy) as database:
        key, record = database.execute("SELECT step_key, record FROM steps LIMIT 1 OFFSET 30").fetchone()
        for place in range(len(record)):
            changed = bytearray(record)
            changed[place] ^= 1 << (place % 8)
            database.execute("UPDATE steps SET record = ? WHERE step_key = ?", (bytes(changed), key))
            database.commit()
            assert ledger.verify(copy)[0].problem.startswith(f"record {key & 0xFFFFFFFFFF} was changed")
    database.close()


def test_a_rewound_database_is_found_by_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    path, rubric = tmp_path / "runs.db", Half()
    with rs.record(path, session="run") as recorder:
        recorder.observe(rubric)
        for _ in range(10):
            rubric("a", "b")
        recorder.flush()
        with sqlite3.connect(path) as database:
            database.execute("VACUUM INTO ?", (str(tmp_path / "early.db"),))
        database.close()
        for _ in range(300):
            rubric("a", "b")
        recorder.flush()
        kept = recorder.ledger.checkpoint()
    assert kept is not None
    # By itself the early copy is in order: its own key signed it.
    assert ledger.verify(tmp_path / "early.db")[0].problem == ""
    (verdict,) = ledger.verify(tmp_path / "early.db", against=[kept])
    assert "rewound" in verdict.problem
    assert ledger.verify(path, against=[kept])[0].problem == ""
    (tmp_path / "kept.note").write_text(kept.note)
    assert cli.main(["verify", str(tmp_path / "early.db"), "--against", str(tmp_path / "kept.note")]) == 1
    assert cli.main(["verify", str(path), "--against", str(tmp_path / "kept.note")]) == 0
    (tmp_path / "forged.note").write_text(kept.note.replace(f"\n{kept.size}\n", "\n12\n"))
    assert cli.main(["verify", str(path), "--against", str(tmp_path / "forged.note")]) == 2


def test_a_log_that_was_rewritten_with_the_key_is_found_by_a_checkpoint_kept_elsewhere(
    tmp_path: Path,
) -> None:
    """The holder of the key can make a new log of the same name; only what left the machine shows it."""
    first = record_run(tmp_path / "a.db", calls=20)
    kept = rs.Ledger(tmp_path / "a.db").checkpoint()
    assert kept is not None
    again = record_run(tmp_path / "b.db", calls=25)
    forged = kept.note.replace(first.session_id, again.session_id).replace(first.writer_id, again.writer_id)
    with pytest.raises(ValueError, match="not signed by a trusted key"):
        ledger.verify(tmp_path / "b.db", against=[ledger.Checkpoint.parse(forged)])
    with pytest.raises(ValueError, match="no log"):
        ledger.verify(tmp_path / "b.db", against=[kept])
