"""First Light, in parts: the car and its integrator, the network, training, the contour, replayed events."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import rubriscope as rs
import torch
from rubriscope import _C
from rubriscope.demos.first_light import contour, driving, heldout, injection, model, network, training
from rubriscope.demos.first_light.driving import RADIUS_M, TICK_S, VEHICLE, plant
from rubriscope.demos.first_light.network import PhyAtteN_R32
from rubriscope.demos.first_light.replay import Replay
from rubriscope.ops.physics import single_track_derivative
from scipy.integrate import solve_ivp
from scipy.spatial.distance import directed_hausdorff


@pytest.fixture(scope="module")
def driven() -> driving.Trajectories:
    return driving.manoeuvres(24, 7)


# ---- the car ---------------------------------------------------------------------------------------------


def test_the_fine_integrator_agrees_with_scipys() -> None:
    starts, controls = driving.draw(2, 3, ticks=15)
    found = driving.drive(starts, controls).states
    for car in range(2):
        state = starts[car].numpy()
        for tick, control in enumerate(controls[car]):
            solved = solve_ivp(
                lambda _, y, held=control: plant(torch.from_numpy(y)[None], held[None])[0].numpy(),
                (0.0, TICK_S),
                state,
                method="DOP853",
                rtol=1e-11,
                atol=1e-11,
            )
            state = solved.y[:, -1]
            assert found[car, tick + 1].numpy() == pytest.approx(state, abs=1e-6)


@pytest.mark.parametrize(("step", "order"), [(driving.euler_step, 1), (driving.runge_kutta_step, 4)])
def test_an_integrator_has_its_order(step: Any, order: int) -> None:
    def swing(state: torch.Tensor, control: torch.Tensor) -> torch.Tensor:
        return torch.stack([state[:, 1], -state[:, 0]], 1)

    errors = []
    for count in (20, 40):
        state = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        for _ in range(count):
            state = step(swing, state, state, 1.0 / count)
        errors.append(abs(float(state[0, 0]) - math.cos(1.0)))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.2)


def test_manoeuvres_are_the_seeds(driven: driving.Trajectories) -> None:
    starts, controls = driving.draw(24, 7)
    assert torch.equal(driven.states[:, 0], starts)
    assert torch.equal(driven.controls, controls)
    assert not torch.equal(driving.draw(24, 8)[1], controls)
    assert driven.states.isfinite().all()
    # Rolling straight on at the start; the driver never asks for more than the tyres have.
    assert (starts[:, 6:] * RADIUS_M).sub(starts[:, 3:4]).abs().max() < 1e-12
    assert (plant(starts, torch.zeros(24, 3, dtype=torch.float64))[:, 3:].abs() < 1e-9).all()
    across = driven.states[..., 3] * driven.states[..., 5]
    assert 3.0 < across.abs().max() < 1.1 * 9.81
    before, control, after = driven.transitions()
    assert torch.equal(driving.tick(before[100:110], control[100:110]), after[100:110])


def test_one_manoeuvre_may_be_asked_for() -> None:
    changes = driving.draw(16, 5, manoeuvre="lane change", hardness=(0.8, 1.0))[1][..., 0]
    # One way, then the other by as much.
    assert (changes.amax(1) > 0).all()
    assert changes.amin(1).numpy() == pytest.approx(-changes.amax(1).numpy(), rel=0.02)


def test_less_grip_is_less_force() -> None:
    state, control = driving.draw(8, 2)
    control = control[:, 60]
    dry, icy = plant(state, control), driving.slippery(0.2)(state, control)
    assert (icy[:, 4].abs() < dry[:, 4].abs()).all()
    roads = injection.roads("drift")
    assert roads[injection.DRIFT_TICK - 1] is plant and roads[injection.DRIFT_TICK] is not plant
    assert set(injection.roads(None)) == {plant}


# ---- the network -----------------------------------------------------------------------------------------


def test_slips_are_those_of_the_tyre_model(driven: driving.Trajectories) -> None:
    """The magic formula at our slips gives the wheels' accelerations that the operator gives."""
    before, control, _ = driven.transitions()
    angle, ratio, _ = network.slips(before, control)
    along, across = ratio.numpy(), np.tan(angle.numpy())
    slip = np.sqrt(along**2 + across**2 + 1e-8)
    tyre = driving.TYRE
    bend = tyre.bx * slip - np.arctan(tyre.bx * slip)
    grip = tyre.mux * np.sin(tyre.cx * np.arctan(tyre.bx * slip - tyre.ex * bend))
    wheelbase = VEHICLE.front + VEHICLE.rear
    loads = VEHICLE.mass * 9.81 * np.array([VEHICLE.rear, VEHICLE.front]) / wheelbase
    force = loads * grip * along / slip
    expected = (control[:, 1:].numpy() - RADIUS_M * force) / VEHICLE.wheel_inertia
    assert single_track_derivative(before, control)[:, 6:].numpy() == pytest.approx(expected, abs=1e-6)


def test_wheel_speeds_are_the_inverse_of_slip_ratios(driven: driving.Trajectories) -> None:
    before, control, _ = driven.transitions()
    _, ratio, _ = network.slips(before, control)
    found = network.wheel_speeds(before[:, :6], control, ratio)
    assert found.numpy() == pytest.approx(before[:, 6:].numpy(), abs=1e-10)


def test_what_the_network_does_not_learn_is_right(driven: driving.Trajectories) -> None:
    """With the tick's true mean accelerations and slips, the state that follows is the integrator's."""
    before, control, after = driven.transitions()
    turned = TICK_S / 2 * (before[:, 5] + after[:, 5])
    sine, cosine = torch.sin(turned), torch.cos(turned)
    along = after[:, 3] * cosine - after[:, 4] * sine - before[:, 3]
    across = after[:, 3] * sine + after[:, 4] * cosine - before[:, 4]
    means = torch.stack([along, across, after[:, 5] - before[:, 5]], 1) / TICK_S
    _, ratio, _ = network.slips(after, control)
    learned = torch.cat([means / torch.tensor(network.ACCELERATION), ratio / network.SLIP_CHANGE], 1)
    found = network.advance(before, control, learned)
    assert found[:, 3:].numpy() == pytest.approx(after[:, 3:].numpy(), abs=1e-9)
    assert found[:, :3].numpy() == pytest.approx(after[:, :3].numpy(), abs=2e-5)


def test_where_the_car_is_and_heads_does_not_matter(driven: driving.Trajectories) -> None:
    torch.manual_seed(1)
    net = PhyAtteN_R32().double()
    before, control, _ = driven.transitions()
    moved = before.clone()
    moved[:, :2] += torch.tensor([3.0, -4.0])
    moved[:, 2] += 0.7
    with torch.inference_mode():
        here, there = net(before, control), net(moved, control)
    step, other = (here - before)[:, :2], (there - moved)[:, :2]
    turn = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]]).double()
    assert other.numpy() == pytest.approx((step @ turn.T).numpy(), abs=1e-7)
    assert (there - moved)[:, 2:].numpy() == pytest.approx((here - before)[:, 2:].numpy(), abs=1e-10)
    # But speed does, and so does each axle's torque: nothing is left unread.
    for column in range(3):
        other_control = control.clone()
        other_control[:, column] *= 1.1
        assert not torch.equal(net(before, other_control), here)


# ---- training --------------------------------------------------------------------------------------------


def test_the_residual_knows_the_truth(driven: driving.Trajectories) -> None:
    before, control, after = driven.transitions()
    true = training.scaled_residual(before, control, after)[:, 3:6].square().mean()
    still = training.scaled_residual(before, control, before)[:, 3:6].square().mean()
    assert 0 < true < 0.01 * still


def test_collocation_points_are_where_nothing_was_driven(driven: driving.Trajectories) -> None:
    state, control = training.collocation(4000, torch.Generator().manual_seed(0))
    lateral = state[:, 3] * state[:, 5]
    assert state[:, 3].min() < driving.SPEEDS_M_S[0] / 2 + 1 and state[:, 3].max() > driving.SPEEDS_M_S[1] + 2
    assert lateral.abs().max() > driving.LATERAL_M_S2
    # Nearly in equilibrium: the accelerations there are those a tyre can give, not a wheel's shock.
    slope = plant(state.double(), control.double())
    assert slope[:, 3:5].abs().median() < 10.0
    assert slope.isfinite().all()


def test_training_is_the_seeds_and_lowers_both_losses() -> None:
    short = training.Settings(trajectories=4, steps=60, batch=64)
    losses: list[tuple[float, float]] = []
    one = training.train(short, 3, lambda step, data, physics: losses.append((data, physics)))
    again = training.train(short, 3)
    other = training.train(training.Settings(trajectories=4, steps=2, batch=64, physics_weight=0.0), 4)
    for name, values in one.network.state_dict().items():
        assert torch.equal(values, again.network.state_dict()[name])
    assert len(losses) == 60
    for kind in range(2):
        assert losses[-1][kind] < 0.2 * losses[0][kind]
    assert other.physics_loss == 0.0 and other.cpu_s > 0
    with pytest.raises(ValueError, match="expected 0 to"):
        training.training_data(short, training.HELDOUT_SEED)


def test_the_physics_term_holds_where_nothing_was_driven() -> None:
    settings = training.Settings(trajectories=2, steps=150, batch=64)
    state, control = training.collocation(2000, torch.Generator().manual_seed(99))
    residuals = []
    for weight in (training.PHYSICS_WEIGHT, 0.0):
        net = training.train(replace(settings, physics_weight=weight), 1).network
        residuals.append(training.scaled_residual(state, control, net(state, control))[:, 3:].square().mean())
    assert residuals[0] < 0.3 * residuals[1]


def test_a_network_is_kept_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made, settings = PhyAtteN_R32(), training.Settings(steps=3)
    model.keep(tmp_path / "kept" / "model", made, settings, 5)
    found, its_settings, seed = model.load(tmp_path / "kept" / "model")
    assert (its_settings, seed) == (settings, 5)
    assert torch.equal(found.read.weight, made.read.weight)
    torch.save({"other": 1}, tmp_path / "other")
    with pytest.raises(ValueError, match="no network of First Light"):
        model.load(tmp_path / "other")


# ---- the contour -----------------------------------------------------------------------------------------


def test_the_outline_is_a_car() -> None:
    even = torch.arange(contour.POINTS, dtype=torch.float64) / contour.POINTS
    points = contour.outline(even)
    gaps = (points - points.roll(1, 0)).norm(dim=1)
    assert gaps.max() - gaps.min() < 1e-4  # chords of arcs are a little shorter
    size = points.amax(0) - points.amin(0)
    assert size.tolist() == pytest.approx([contour.LENGTH_M, contour.WIDTH_M], abs=1e-3)
    round_trip = 2 * (size.sum() - 4 * contour.CORNER_M) + 2 * math.pi * contour.CORNER_M
    assert gaps.sum() == pytest.approx(float(round_trip), abs=1e-3)
    # Half a way round is the opposite point.
    middle = torch.tensor([contour.MIDDLE_M, 0.0], dtype=torch.float64)
    opposite = points.roll(contour.POINTS // 2, 0) - middle
    assert opposite.numpy() == pytest.approx(-(points - middle).numpy(), abs=1e-9)


def test_distances_of_contours() -> None:
    state = torch.tensor([[5.0, -3.0, 0.4, 20, 0, 0, 0, 0], [1.0, 2.0, -2.0, 20, 0, 0, 0, 0]]).double()
    moved = state.clone()
    moved[0, 1] += 0.05
    moved[1, 2] += 0.02
    found = contour.apart(contour.contour(state), contour.contour(moved))
    for car in range(2):
        x, y = contour.contour(state)[car].numpy(), contour.contour(moved)[car].numpy()
        assert found[car] == pytest.approx(max(directed_hausdorff(x, y)[0], directed_hausdorff(y, x)[0]))
    seen = contour.scan(state, torch.Generator().manual_seed(0))
    assert seen.shape == (2, contour.POINTS, 2)
    floor = contour.apart(seen, contour.contour(state))
    assert (floor > 0).all() and (floor < contour.LIMIT_M / 3).all()


def test_a_twin_that_leaves_the_numbers_is_infinitely_far(driven: driving.Trajectories) -> None:
    states = driven.states.clone()
    states[3, 45:] = torch.nan
    found = heldout.distances(driven, states)
    assert found.shape == (24, 10)
    assert found[3, 3] < contour.LIMIT_M and found[3, 4:].isinf().all()
    assert heldout.ninetieth(torch.arange(1.0, 42.0)) == 37.0


# ---- the replay ------------------------------------------------------------------------------------------


def test_a_replayed_event_is_the_same_and_counts_once(tmp_path: Path) -> None:
    carried: list[bytes] = []

    def carry(tick: int, event: bytes) -> bytes:
        carried.append(event)
        return event[:-1] + bytes([event[-1] ^ 1]) if tick == 2 else event

    path = tmp_path / "runs.db"
    with rs.record(path, session="replayed") as recorder:
        schema = recorder._native.define_event("estimate", '{"modality":"simulation"}', ["x"], ["note"])
        replay: Replay | None = None
        for tick in range(4):
            recorder._native.emit_event(
                "observation", schema, values=[0.1 * tick], fields={0: "é" * tick}, duration_ns=7, step=tick
            )
            recorder.flush()
            replay = replay or Replay(recorder, path, carry)
            found = replay.latest("estimate", tick)
            assert (found.identical, found.counted_twice) == (tick != 2, 0)
            assert found.size == len(carried[-1])
            # An encoder of other people's agrees about what is canonical.
            assert cbor2.dumps(cbor2.loads(carried[-1]), canonical=True) == carried[-1]
            assert cbor2.loads(carried[-1])[4] == _C.recode_record(carried[-1])[1]
        assert replay is not None
        replay.close()
        session = recorder.session_id
    assert rs.Ledger(path, session).verify().problem == ""
    with rs.Film(path) as film:
        assert [event.step for event in film.events(session)] == [0, 1, 2, 3]
    with pytest.raises(rs.FormatError):
        _C.recode_record(carried[0][:-3])
