"""First Light, run: every printed number is computed again from the database, and injected violations are
found."""

from __future__ import annotations

import json
import math
import re
import sqlite3
import statistics
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import rubriscope as rs
from rubriscope.cli import main as rubriscope_command
from rubriscope.demos.first_light import contour, driving, injection, model, training
from rubriscope.demos.first_light.options import main as first_light

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "first_light.py"


@dataclass(frozen=True)
class Run:
    code: int
    printed: str
    db: Path
    session: str


def once(folder: Path, capsys: Any, name: str, *options: str) -> Run:
    db = folder / f"{name}.db"
    code = first_light(["--db", str(db), "--model", str(folder / "model"), "--steps", "1200", *options])
    with rs.Film(db) as film:
        sessions = film.sessions()
    return Run(code, capsys.readouterr().out, db, sessions[0].uuid)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("first_light")


@dataclass
class Recorded:
    """A session's observations by plain SQL."""

    durations_ms: dict[str, list[float]]  #: by modality
    metrics: dict[str, list[tuple[int, float]]]  #: by name: (tick, value)
    heldout_m: list[float]
    cpu_s: list[float]
    names: set[str]

    @classmethod
    def of(cls, run: Run) -> Recorded:
        durations, metrics, names = defaultdict(list), defaultdict(list), set()
        db = sqlite3.connect(run.db)
        for kind, name, duration, definition in db.execute(
            "SELECT events.kind, name, duration_ns, definition FROM events JOIN schemas USING(schema_key) "
            "ORDER BY event_key"
        ):
            attributes = json.loads(definition)["attributes"]
            attributes = json.loads(attributes) if isinstance(attributes, str) else attributes
            durations[attributes["modality"]].append(duration / 1e6)
            names.add(name)
            assert kind == "observation"
        for name, tick, value in db.execute(
            "SELECT name, step_index, value FROM event_values ORDER BY sequence"
        ):
            metrics[name].append((tick, value))
        scalars = defaultdict(list)
        for name, value in db.execute("SELECT name, value FROM scalar_values ORDER BY sequence"):
            scalars[name].append(value)
        db.close()
        return cls(durations, metrics, scalars["heldout/hausdorff_m"], scalars["train/cpu_s"], names)


def expected_summary(run: Run, chain_problem: str = "") -> list[str]:
    """The lines a run has to print, from its database."""
    found = Recorded.of(run)
    latency = [value for _, value in found.metrics["latency_ms"]]
    residual = [value for _, value in found.metrics["physics_residual"]]
    scans = [value for _, value in found.metrics["hausdorff_m"]]
    identical = sum(int(value) for _, value in found.metrics["identical"])
    twice = sum(int(value) for _, value in found.metrics["counted_twice"])
    violations = sorted(
        [
            (t, 0, f"state estimation took {v:.3f}ms, limit 1.2ms")
            for t, v in found.metrics["latency_ms"]
            if v > 1.2
        ]
        + [(t, 1, "an event's bytes changed on their way") for t, v in found.metrics["identical"] if v != 1]
        + [
            (t, 2, f"the car is {v:.4f}m from its twin, limit 0.045m")
            for t, v in found.metrics["hausdorff_m"]
            if v > 0.045
        ]
    )
    problems = [f"  tick {tick}: {text}" for tick, _, text in violations]
    if chain_problem:
        problems.append(f"  ledger: {chain_problem}")
    training_line = [f"  training: {found.cpu_s[-1]:.1f}s of CPU time"] if found.cpu_s else []
    p90 = sorted(found.heldout_m)[math.ceil(0.9 * (len(found.heldout_m) - 1))]
    return [
        "Observability Summary:",
        f"  Total Observations: {sum(map(len, found.durations_ms.values()))}",
        f"  Merkle Chain Valid: {not chain_problem}",
        f"  Active Sight Points: {len(found.names)}",
        "",
        "[OBSERVATIONS BY MODALITY]",
        *(
            f"  {modality}: {len(found.durations_ms[modality])} observations "
            f"(avg latency: {statistics.fmean(found.durations_ms[modality]):.3f}ms)"
            for modality in ("simulation", "vision_processing", "inference")
        ),
        "",
        "[CALIBRATION]",
        *training_line,
        f"  held out: {len(found.heldout_m)} trajectories, 90th percentile of their largest Hausdorff "
        f"distances {p90:.4f}m (limit 0.045m)",
        f"  state estimation: median {statistics.median(latency):.3f}ms, largest {max(latency):.3f}ms "
        "(limit 1.2ms)",
        f"  physics residual: mean {statistics.fmean(residual):.3e}, largest {max(residual):.3e}",
        f"  Hausdorff distance: largest of {len(scans)} scans {max(scans):.4f}m (limit 0.045m)",
        f"  idempotency: {identical} of {len(found.metrics['identical'])} replayed events byte for byte "
        f"the same, {twice} counted twice",
        "",
        f"[VIOLATIONS] {len(problems) or 'none'}",
        *problems,
    ]


def summary_of(run: Run) -> list[str]:
    lines = run.printed.splitlines()
    return lines[lines.index("Observability Summary:") :]


def violated(run: Run, what: str) -> list[int]:
    """The ticks at which something was printed as violated."""
    return [int(tick) for tick in re.findall(rf"^  tick (\d+): {what}", run.printed, re.MULTILINE)]


@pytest.fixture(scope="module")
def trained(folder: Path) -> Run:
    """A whole run, training included, as a program of its own."""
    options = ["--db", str(folder / "trained.db"), "--model", str(folder / "model"), "--steps", "1200"]
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), *options], capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 1), done.stderr
    with rs.Film(folder / "trained.db") as film:
        return Run(done.returncode, done.stdout, folder / "trained.db", film.session().uuid)


def test_every_printed_number_is_in_the_film(trained: Run) -> None:
    assert summary_of(trained) == expected_summary(trained)
    assert trained.code == (0 if summary_of(trained)[-1] == "[VIOLATIONS] none" else 1)


def test_the_origins_summary(trained: Run) -> None:
    for line in (
        "Total Observations: 130",
        "Merkle Chain Valid: True",
        "Active Sight Points: 3",
    ):
        assert f"  {line}\n" in trained.printed
    for modality, count in (("simulation", 100), ("vision_processing", 10), ("inference", 20)):
        assert re.search(
            rf"^  {modality}: {count} observations \(avg latency: \d+\.\d+ms\)$", trained.printed, re.M
        )


def test_the_twin_keeps_its_limits(trained: Run) -> None:
    found = Recorded.of(trained)
    assert len(found.heldout_m) == 40
    assert sorted(found.heldout_m)[36] <= contour.LIMIT_M
    assert max(value for _, value in found.metrics["hausdorff_m"]) <= contour.LIMIT_M
    assert [tick for tick, _ in found.metrics["hausdorff_m"]] == list(range(9, 100, 10))
    assert [tick for tick, _ in found.metrics["identical"]] == list(range(4, 100, 5))
    assert {value for _, value in found.metrics["identical"]} == {1.0}
    assert [tick for tick, _ in found.metrics["latency_ms"]] == list(range(100))
    assert found.cpu_s[0] < training.BUDGET_CPU_S


def test_residuals_and_distances_are_computed(trained: Run, folder: Path) -> None:
    """The film's numbers are those of the kept network on the seed's trajectory, not drawn from somewhere."""
    net, _, _ = model.load(folder / "model")
    starts, controls = driving.draw(
        1, training.HELDOUT_SEED + 1, manoeuvre="lane change", hardness=(0.8, 1.0)
    )
    car = driving.drive(starts, controls)
    found = Recorded.of(trained)
    state = starts.float()
    for tick in range(100):
        after = net(state, controls[:, tick].float())
        residual = (
            training.scaled_residual(state, controls[:, tick].float(), after)[:, 3:].square().mean().sqrt()
        )
        assert found.metrics["physics_residual"][tick][1] == pytest.approx(float(residual), rel=1e-3)
        if tick % 10 == 9:
            # Up to the scanner's noise and the spacing of its points.
            still = contour.apart(
                contour.contour(car.states[0, tick + 1]), contour.contour(after[0].double())
            )
            measured = found.metrics["hausdorff_m"][tick // 10][1]
            assert measured == pytest.approx(float(still), abs=0.012)
        state = after


def test_seeds_differ(trained: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [trained, *(once(folder, capsys, f"seed{n}", "--seed", str(n)) for n in (1, 2))]
    residuals = {tuple(value for _, value in Recorded.of(run).metrics["physics_residual"]) for run in runs}
    assert len(residuals) == 3
    for run in runs[1:]:
        assert summary_of(run) == expected_summary(run)


def test_drift_is_found(trained: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = once(folder, capsys, "drift", "--inject", "drift")
    assert run.code == 1
    assert 99 in violated(run, "the car is") and not violated(run, "an event's bytes")
    assert "[INJECTED] drift: from tick 5 on the road had 0.2 of its friction" in run.printed
    assert "Merkle Chain Valid: True" in run.printed
    assert summary_of(run) == expected_summary(run)


def test_a_slow_tick_is_found(trained: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = once(folder, capsys, "latency", "--inject", "latency")
    assert run.code == 1
    assert injection.SLOW_TICK in violated(run, "state estimation took")
    assert not violated(run, "the car is") and not violated(run, "an event's bytes")
    assert summary_of(run) == expected_summary(run)


def test_corruption_is_found(trained: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = once(folder, capsys, "corruption", "--inject", "corruption")
    assert run.code == 1
    assert violated(run, "an event's bytes changed on their way") == [injection.CORRUPT_TICK]
    assert "Merkle Chain Valid: False" in run.printed
    problem = rs.Ledger(run.db, run.session).verify().problem
    assert re.fullmatch(r"record \d+ was changed: its bytes are not those in the log", problem)
    assert summary_of(run) == expected_summary(run, problem)
    assert rubriscope_command(["verify", str(run.db)]) == 1


def test_stress_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = folder / "stress.db"
    assert rubriscope_command(
        ["demo", "first-light", "--mode", "stress", "--db", str(db), "--observations", "200"]
    ) in (0, 1)
    printed = capsys.readouterr().out
    connection = sqlite3.connect(db)
    (count,) = connection.execute("SELECT count(*) FROM events WHERE name LIKE 'stress_%'").fetchone()
    values = defaultdict(list)
    for name, value in connection.execute("SELECT name, value FROM scalar_values"):
        values[name.split("/")[1]].append(value / 1e6)
    connection.close()
    assert count == 7 * 200 and len(values) == 7
    assert f"[STRESS] {count} observations of 7 modalities" in printed
    for modality, overheads in values.items():
        assert f"  {modality}: overhead {statistics.median(overheads):.5f}ms per observation" in printed
    assert "Merkle Chain Valid: True" in printed


def test_json_and_wrong_usage(trained: Run, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db, kept = folder / "json.db", folder / "model"
    rubriscope_command(["demo", "first-light", "--json", "--db", str(db), "--model", str(kept)])
    found = json.loads(capsys.readouterr().out)["first_light"]
    assert (found["observations"], found["chain_valid"], found["sight_points"]) == (130, True, 3)
    assert [m["observations"] for m in found["modalities"]] == [100, 10, 20]
    assert rubriscope_command(["demo", "first-light", "--seed", "-1"]) == 2
    assert rubriscope_command(["demo"]) == 2
    assert rubriscope_command(["demo", "first-light", "--inject", "gremlins"]) == 2
    (folder / "bad").write_bytes(b"no network")
    assert rubriscope_command(["demo", "first-light", "--db", str(db), "--model", str(folder / "bad")]) == 2
    assert "holds no network of First Light" in capsys.readouterr().err
