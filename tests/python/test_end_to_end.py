"""Everything at once: a process with sight points, spans, an observed rubric and a ledger is killed; what it
accepted is recovered, verified and viewed from the command line."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap

import rubriscope as rs

STEPS = 200


def run(*arguments, folder, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "rubriscope", *arguments], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_what_a_killed_process_accepted_is_recovered_verified_and_viewed(tmp_path):
    program = f"""
        import os, signal
        import rubriscope as rs

        class Brief(rs.Rubric):
            def forward(self, action, observation):
                return 1.0 / len(action)

        @rs.sight_point(name="plan", modality="planning", metrics=["cost"])
        def plan(step):
            rs.metric("cost", step / 10)
            return f"route {{step}}"

        rs.tracer.enable(output="trace.jsonl")
        recorder = rs.record("runs.db", session="killed", flush_interval_ms=60_000)
        rubric = rs.Gate(Brief(), threshold=0.01)
        recorder.observe(rubric)
        for step in range({STEPS}):
            recorder.step = step
            with rs.tracer.span("mem", "write", "test.py", f"step {{step}}") as span:
                rubric(plan(step), "an observation")
                span.set_output("written")
            recorder.log({{"loss": 1.0 / (step + 1)}}, step=step)
        assert recorder.stats().accepted == 4 * {STEPS}
        os.kill(os.getpid(), signal.SIGKILL)
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path)
    assert ended.returncode == -signal.SIGKILL

    run("recover", "runs.db", folder=tmp_path)
    run("recover", "trace.jsonl", folder=tmp_path)

    with rs.Film(tmp_path / "runs.db") as film:
        session = film.session("killed")
        assert (session.steps, session.scalars, session.events) == (STEPS, STEPS, 2 * STEPS)
        assert [s.action for s in film.snapshots()] == [f"route {step}" for step in range(STEPS)]
        plans = list(film.events(kind="observation", name="plan"))
        assert [event.values["cost"] for event in plans] == [step / 10 for step in range(STEPS)]
        assert {event.attributes["modality"] for event in plans} == {"planning"}
        spans = list(film.events(kind="span"))
        assert [event.step for event in spans] == list(range(STEPS))

    assert f"{4 * STEPS:,} records" in run("verify", "runs.db", folder=tmp_path)
    found = json.loads(run("show", "runs.db", "--json", folder=tmp_path))
    assert found["session"]["name"] == "killed"
    lines = (tmp_path / "trace.jsonl").read_text().splitlines()
    assert [json.loads(line)["input_summary"] for line in lines] == [f"step {step}" for step in range(STEPS)]
    from_file = run("trace", "view", "trace.jsonl", "--last", "3", "--json", folder=tmp_path)
    assert f"step {STEPS - 1}" in from_file
    assert f"step {STEPS - 1}" in run("trace", "view", "runs.db", "--last", "3", folder=tmp_path)
    assert "memory" in run("trace", "stats", "runs.db", folder=tmp_path)

    # A record that somebody changes afterwards is named.
    with sqlite3.connect(tmp_path / "runs.db") as database:
        database.execute("UPDATE events SET outcome = 'error' WHERE kind = 'span' AND step_index = 7")
    done = subprocess.run(
        [sys.executable, "-m", "rubriscope", "verify", "runs.db"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 1 and "outcome" in done.stdout + done.stderr
