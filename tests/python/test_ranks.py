"""Many ranks, one session: how they agree on it, with torchrun and without, and what a killed rank leaves."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import rubriscope as rs
from engine_support import rows
from rubriscope import _ranks
from rubriscope.cli.app import run

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ddp_digits.py"
LAUNCHER_VARIABLES = (
    "RANK",
    "WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_JOB_ID",
    "SLURM_RESTART_COUNT",
)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in [*LAUNCHER_VARIABLES, *(n for n in os.environ if n.startswith("TORCHELASTIC_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_ranks, "_calls", {})


def torchrun(*arguments: object) -> list[str]:
    options = ["--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d"]
    options += ["--rdzv-endpoint", "127.0.0.1:0"]
    return [sys.executable, "-m", "torch.distributed.run", *options, *map(str, arguments)]


# ---- the example


def test_the_ddp_example_records_one_session(tmp_path, capsys):
    path = tmp_path / "runs.db"
    command = torchrun(
        EXAMPLE, "--db", path, "--session", "ddp", "--steps", 4, "--images", 4, "--json", "--quiet"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["policies_equal"] and result["ranks"] == 2
    first, second = result["recorders"]
    assert first["dropped"] == second["dropped"] == 0
    with rs.Film(path) as film:
        (session,) = film.sessions()
        assert session.uuid == result["uuid"] and session.name == "ddp"
        assert session.ranks == (0, 1) and session.writers == 2
        assert session.closed is not None
        assert session.steps + session.scalars == first["durable"] + second["durable"]
        found = [(s.step, s.rank) for s in film.snapshots()]
        assert found == sorted(found) and {rank for _, rank in found} == {0, 1}
        # Each rank answers its own images, and every answer of both is there.
        series = film.scores("root", episode="train")
        assert len(series) == 4 * 2 * 4 * 16
        assert set((series.group % 2 == series.rank).tolist()) == {True}
        heldout = film.scores("root", episode="heldout")
        assert set(heldout.group[heldout.step == 0].tolist()) == set(range(360))
        mean = dict(zip(*heldout.by_step(), strict=True))
        assert result["evaluations"] == [[s, pytest.approx(mean[s], rel=1e-6)] for s in (0, 4)]
    assert run(["verify", str(path)]) == 0
    out = capsys.readouterr().out
    assert "✓ ddp, rank 0" in out and "✓ ddp, rank 1" in out
    for command, said in (
        (["show", path], "ranks 0–1"),
        (["show", path, "--step", 2], "rank 0"),
        (["replay", path, "--speed", 0], "step 0 rank 0 "),
        (["scores", path, "root", "--ranks"], "root @ rank 1"),
        (["compare", path, "ddp", "ddp"], "all of 2 ranks"),
    ):
        assert run([*map(str, command)]) == 0
        assert said in capsys.readouterr().out


def test_a_killed_rank_leaves_a_readable_film(tmp_path):
    path = tmp_path / "runs.db"
    command = torchrun(
        EXAMPLE, "--db", path, "--session", "killed", "--steps", 10**6, "--images", 4, "--quiet"
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        victim = None
        while victim is None:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
            try:
                found = rows(
                    path,
                    "SELECT pid FROM writers w WHERE rank = 1 AND EXISTS(SELECT 1 FROM steps "
                    "WHERE step_key >> 40 = w.writer_key AND step_index > 3)",
                )
            except sqlite3.OperationalError:
                continue  # not made yet
            victim = found[0][0] if found else None
        assert psutil.Process(victim).ppid() == process.pid
        os.kill(victim, signal.SIGKILL)
        assert process.wait(120) != 0  # torchrun ends the other rank too
    finally:
        process.kill()
        process.wait()
    with rs.Film(path) as film:
        (session,) = film.sessions()
        assert session.ranks == (0, 1) and session.closed is None
        before = len(list(film.snapshots()))
    assert run(["recover", str(path)]) == 0
    with rs.Film(path) as film:
        found = [(s.step, s.rank) for s in film.snapshots()]
        assert found == sorted(found) and len(found) >= before
        for rank in (0, 1):  # none of what a rank had accepted is missing or there twice
            series = film.scores("root")
            mine = series.sequence[series.rank == rank]
            scalars = film.scores("loss")
            everything = sorted([*mine.tolist(), *scalars.sequence[scalars.rank == rank].tolist()])
            logged = film.scores("heldout_reward") if "heldout_reward" in film.scalars() else None
            if logged is not None:
                everything = sorted([*everything, *logged.sequence[logged.rank == rank].tolist()])
            assert everything == list(range(len(everything)))
    assert run(["verify", str(path)]) == 0


# ---- agreement

RECORDS = """
import os, sys
import rubriscope as rs
{before}
for name in {names!r}:
    with rs.record({target!r}, session=name) as recorder:
        recorder.log({{"rank": {rank}}})
        print(recorder.session_id, recorder.session_name, flush=True)
{after}
"""


def ranks(target, names, before="", after="", count=2, **environment) -> list[list[str]]:
    """What each of several processes printed that recorded under these names, one after the other."""
    processes = []
    for rank in range(count):
        text = textwrap.dedent(RECORDS).format(
            before=before.format(rank=rank), after=after, names=names, target=str(target), rank=rank
        )
        child = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(count), **environment}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", text],
                env=child,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * count, results
    return [out.split("\n")[:-1] for out, _ in results]


def test_an_initialised_group_agrees_by_its_store_each_time_anew(tmp_path):
    store = tmp_path / "store"
    before = (
        "import torch.distributed as dist\n"
        f"dist.init_process_group('gloo', init_method='file://{store}', rank={{rank}}, world_size=2)"
    )
    one, other = ranks(
        tmp_path / "runs.db", ["a", "a", None, "b"], before=before, after="dist.destroy_process_group()"
    )
    assert one == other
    assert len({line.split()[0] for line in one}) == 4  # a name used again is another session
    assert one[2].split()[1].startswith("run-")
    assert rows(tmp_path / "runs.db", "SELECT count(*) FROM sessions") == [(4,)]
    assert (
        rows(tmp_path / "runs.db", "SELECT count(DISTINCT rank) FROM writers GROUP BY session_id")
        == [(2,)] * 4
    )


def test_a_jobs_id_is_enough(tmp_path):
    one, other = ranks(tmp_path / "runs.db", ["a", "b"], SLURM_JOB_ID="4711", SLURM_STEP_ID="0")
    assert one == other and len(set(one)) == 2
    (again, _) = ranks(
        tmp_path / "runs.db", ["a"], SLURM_JOB_ID="4711", SLURM_STEP_ID="0", SLURM_RESTART_COUNT="1"
    )
    assert again[0] != one[0]
    (run_id, _) = ranks(tmp_path / "runs.db", ["a"], TORCHELASTIC_RUN_ID="nightly-3")
    assert run_id[0] not in (one[0], again[0])


def test_ranks_that_nothing_joins_say_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with rs.record(tmp_path / "runs.db", session="alone") as one:
        assert "pass session_id=" in capfd.readouterr().err
    with rs.record(tmp_path / "runs.db", session="alone", session_id="job 5") as two:
        assert capfd.readouterr().err == ""
    assert one.session_id != two.session_id


def test_a_store_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "9",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_ranks, "_TIMEOUT", _ranks.datetime.timedelta(seconds=1))
    with pytest.raises(ConnectionError, match="session_id="):
        rs.record(tmp_path / "runs.db", session="s")
    assert not (tmp_path / "runs.db").exists() or rows(
        tmp_path / "runs.db", "SELECT count(*) FROM sessions"
    ) == [(0,)]


def test_a_session_id_of_ones_own(tmp_path):
    path = tmp_path / "runs.db"
    given = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
    for _ in range(2):
        with rs.record(path, session="s", session_id=given) as recorder:
            assert recorder.session_id == given
            recorder.log({"x": 1.0})
    with rs.record(path, session="s", session_id="job-1") as one, rs.record(path, session_id="job-1") as two:
        assert one.session_id == two.session_id != given
    assert rows(path, "SELECT count(*) FROM sessions") == [(2,)]
    with pytest.raises(ValueError, match="no session_id"):
        rs.record(path, session="s", session_id=given, resume=True)
