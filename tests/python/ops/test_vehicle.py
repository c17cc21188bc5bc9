"""The single-track car against analytic cases and an independent implementation in torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rubriscope.ops.physics.vehicle import (
    Tyre,
    Vehicle,
    single_track_derivative,
    single_track_residual,
)
from torch import Tensor

REAR = Tyre(bx=10.0, cx=1.9, ex=0.97, mux=1.0, by=9.0, cy=1.4, ey=-0.5, muy=0.95)


def motion(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=make, dtype=torch.float64)

    vx = uniform(-3, 40)
    state = torch.stack(
        [
            uniform(-100, 100),
            uniform(-100, 100),
            uniform(-7, 7),
            vx,
            uniform(-4, 4),
            uniform(-1, 1),
            vx / 0.344 * uniform(0.7, 1.3),
            vx / 0.344 * uniform(0.7, 1.3),
        ],
        1,
    )
    control = torch.stack([uniform(-0.6, 0.6), uniform(-2000, 1000), uniform(-1500, 1500)], 1)
    return state, control


def magic(slip: Tensor, b: Any, c: Any, e: Any, mu: Any) -> Tensor:
    return mu * torch.sin(c * torch.atan(b * slip - e * (b * slip - torch.atan(b * slip))))


def by_complex_numbers(state: Tensor, control: Tensor, vehicle: Vehicle, tyres: tuple[Tyre, Tyre]) -> Tensor:
    """The same car written with complex numbers for the plane, wheel by wheel."""
    yaw, vx, vy, rate, *spins = state[:, 2:].unbind(1)
    steering, *torques = control.unbind(1)
    m, inertia, a, b, radius, wheel = vehicle
    velocity = torch.complex(vx, vy)
    force: Any = 0
    moment: Any = 0
    wheels = []
    for tyre, arm, load_arm, angle, spin, torque in zip(
        tyres, (a, -b), (b, a), (steering, torch.zeros_like(steering)), spins, torques, strict=True
    ):
        heading = torch.polar(torch.ones_like(angle), angle)
        at_wheel = (velocity + 1j * arm * rate) * heading.conj()
        guard = (at_wheel.real**2 + 0.25).sqrt()
        slip_x, slip_y = (spin * radius - at_wheel.real) / guard, -at_wheel.imag / guard
        slip = (slip_x**2 + slip_y**2 + 1e-8).sqrt()
        load = m * 9.81 * load_arm / (a + b)
        along = load * slip_x / slip * magic(slip, *tyre[:4])
        across = load * slip_y / slip * magic(slip, *tyre[4:])
        in_car = torch.complex(along, across) * heading
        force, moment = force + in_car, moment + arm * in_car.imag
        wheels.append((torque - radius * along) / wheel)
    acceleration = force / m - 1j * rate * velocity
    in_plane = velocity * torch.polar(torch.ones_like(yaw), yaw)
    return torch.stack(
        [in_plane.real, in_plane.imag, rate, acceleration.real, acceleration.imag, moment / inertia, *wheels],
        1,
    )


def tensors(values: Any, device: torch.device, dtype: torch.dtype = torch.float64) -> Any:
    return type(values)(*(torch.tensor(v, device=device, dtype=dtype, requires_grad=True) for v in values))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_agrees_with_an_independent_implementation(dtype: torch.dtype, device: torch.device) -> None:
    state, control = motion(5000)
    expected = by_complex_numbers(state, control, Vehicle(), (Tyre(), REAR))
    found = single_track_derivative(
        state.to(device, dtype), control.to(device, dtype), Vehicle(), (Tyre(), REAR)
    )
    assert found.dtype == dtype
    scale = expected.abs().max(0).values
    error = ((found.cpu().double() - expected).abs() / scale).max()
    assert error < (1e-13 if dtype == torch.float64 else 2e-5)


def test_straight_ahead_at_rolling_speed_nothing_changes(device: torch.device) -> None:
    state = torch.zeros(1, 8, dtype=torch.float64, device=device)
    state[0, 3] = 20.0
    state[0, 6:] = 20.0 / 0.344
    found = single_track_derivative(state, torch.zeros(1, 3, dtype=torch.float64, device=device))
    expected = torch.zeros_like(found)
    expected[0, 0] = 20.0
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_a_locked_wheel_brakes_with_the_friction_of_full_slip(device: torch.device) -> None:
    state = torch.zeros(1, 8, dtype=torch.float64, device=device)
    state[0, 3] = 30.0
    found = single_track_derivative(state, torch.zeros(1, 3, dtype=torch.float64, device=device))
    slip = torch.tensor((1.0 / (1 + (0.5 / 30) ** 2) + 1e-8) ** 0.5, dtype=torch.float64)
    expected = -9.81 * magic(slip, *Tyre()[:4])
    assert abs(found[0, 3].item() - expected.item()) < 1e-5


def test_standing_still_is_finite_and_smooth(device: torch.device) -> None:
    state = torch.zeros(3, 8, dtype=torch.float64, device=device)
    state[1, 3], state[2, 3] = 1e-9, -1e-9
    state.requires_grad_()
    found = single_track_derivative(state, torch.zeros(3, 3, dtype=torch.float64, device=device))
    (gradient,) = torch.autograd.grad(found[:, 3].sum(), state)
    assert found.isfinite().all() and gradient.isfinite().all()
    torch.testing.assert_close(gradient[1], gradient[2], rtol=1e-4, atol=1e-4)


def test_steady_cornering_follows_the_understeer_gradient(device: torch.device) -> None:
    """Small angles: δ = L/ρ + K v²/ρ with K = (m/L)(b/Cf − a/Cr)."""
    car = Vehicle()
    a, b = float(car.front), float(car.rear)
    base, speed, radius_of_turn = a + b, 25.0, 2000.0
    rate = speed / radius_of_turn
    stiffness = [float(t.by * t.cy * t.muy) for t in (Tyre(), REAR)]  # per load
    load = [float(car.mass) * 9.81 * arm / base for arm in (b, a)]
    c_front, c_rear = (s * w for s, w in zip(stiffness, load, strict=True))
    k = float(car.mass) / base * (b / c_front - a / c_rear)
    steering = (base + k * speed**2) / radius_of_turn
    # The rear tyre's lateral force gives its slip angle, and that the sideways velocity.
    sideways = b * rate - speed * (float(car.mass) * a / base * speed * rate / c_rear)
    state = torch.tensor(
        [[0, 0, 0, speed, sideways, rate, speed / 0.344, speed / 0.344]], dtype=torch.float64
    )
    control = torch.tensor([[steering, 0.0, 0.0]], dtype=torch.float64)
    found = single_track_derivative(state.to(device), control.to(device), car, (Tyre(), REAR)).cpu()
    centripetal = speed * rate
    assert abs(found[0, 4].item()) < 0.01 * centripetal
    assert abs(found[0, 5].item()) < 0.01 * rate


def test_tyres_and_torque_balance_energy(device: torch.device) -> None:
    """d/dt of the kinetic energy is the torques' power less what slips dissipate, never more than it."""
    state, control = motion(2000, seed=3)
    car = Vehicle()
    f = single_track_derivative(state.to(device), control.to(device)).cpu()
    m, inertia, _, _, _, wheel = (float(v) for v in car)
    _, _, _, vx, vy, r, *spins = state.unbind(1)
    change = m * (vx * f[:, 3] + vy * f[:, 4]) + inertia * r * f[:, 5]
    change = change + wheel * (spins[0] * f[:, 6] + spins[1] * f[:, 7])
    power = control[:, 1] * spins[0] + control[:, 2] * spins[1]
    assert (change <= power + 1e-6 * power.abs().clamp_min(1)).all()


@pytest.mark.parametrize(("theta", "order"), [(0.5, 2), (0.0, 1), (1.0, 1)])
def test_the_residual_of_an_exact_step_has_the_rules_order(
    theta: float, order: int, device: torch.device
) -> None:
    start = torch.tensor([[0, 0, 0.3, 20.0, 0.1, 0.05, 58.5, 58.6]], dtype=torch.float64, device=device)
    control = torch.tensor([[0.03, 100.0, 200.0]], dtype=torch.float64, device=device)

    def advance(state: Tensor, duration: float) -> Tensor:
        steps = 200
        h = duration / steps
        for _ in range(steps):
            k1 = single_track_derivative(state, control)
            k2 = single_track_derivative(state + h / 2 * k1, control)
            k3 = single_track_derivative(state + h / 2 * k2, control)
            k4 = single_track_derivative(state + h * k3, control)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state

    norms = []
    for dt in (4e-4, 2e-4):
        residual = single_track_residual(start, control, advance(start, dt), dt, theta=theta)
        norms.append(residual.norm().item())
    assert abs(torch.log2(torch.tensor(norms[0] / norms[1])).item() - order) < 0.15


@pytest.mark.parametrize("shared", [True, False])
def test_gradcheck(shared: bool, device: torch.device) -> None:
    state, control = (t.to(device).requires_grad_() for t in motion(4, seed=5))
    following = (state.detach() + 0.01 * torch.randn_like(state)).requires_grad_()
    dt = torch.tensor(0.02, dtype=torch.float64, device=device)
    values = [float(v) for v in (*Vehicle(), *Tyre(), *REAR)]
    parameters = torch.tensor(values, dtype=torch.float64, device=device)
    if not shared:
        dt, parameters = dt.repeat(4), parameters.repeat(4, 1)

    def residual(state: Tensor, control: Tensor, following: Tensor, dt: Tensor, parameters: Tensor) -> Tensor:
        each = parameters.unbind(-1)
        tyres = Tyre(*each[6:14]), Tyre(*each[14:])
        return single_track_residual(state, control, following, dt, Vehicle(*each[:6]), tyres)

    inputs = (state, control, following, dt.requires_grad_(), parameters.requires_grad_())
    # Slips of the order 1 with B of 15: second derivatives are large, and the torque's scale is thousands.
    assert torch.autograd.gradcheck(residual, inputs, eps=1e-6, atol=1e-4, rtol=1e-5)

    def derivative(state: Tensor, control: Tensor, parameters: Tensor) -> Tensor:
        each = parameters.unbind(-1)
        return single_track_derivative(
            state, control, Vehicle(*each[:6]), (Tyre(*each[6:14]), Tyre(*each[14:]))
        )

    assert torch.autograd.gradcheck(derivative, (state, control, parameters), eps=1e-6, atol=1e-4, rtol=1e-5)


def test_gradients_are_those_of_the_independent_implementation(device: torch.device) -> None:
    state, control = motion(5000, seed=6)
    state.requires_grad_()
    control.requires_grad_()
    seeds = torch.randn(5000, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    car, tyre = tensors(Vehicle(), torch.device("cpu")), tensors(Tyre(), torch.device("cpu"))
    expected = torch.autograd.grad(
        (by_complex_numbers(state, control, car, (tyre, tyre)) * seeds).sum(), [state, control, *car, *tyre]
    )
    ours = [state.detach().to(device).requires_grad_(), control.detach().to(device).requires_grad_()]
    car, tyre = tensors(Vehicle(), device), tensors(Tyre(), device)
    found = torch.autograd.grad(
        (single_track_derivative(ours[0], ours[1], car, tyre) * seeds.to(device)).sum(), [*ours, *car, *tyre]
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-9, atol=1e-9)


def op_arguments(device: torch.device) -> tuple[Any, ...]:
    state, control = (t.to(device).requires_grad_() for t in motion(6, seed=8))
    following = (state.detach() + 0.1).requires_grad_()
    dt = torch.tensor(0.01, dtype=torch.float64, device=device, requires_grad=True)
    values = [float(v) for v in (*Vehicle(), *Tyre(), *REAR)]
    parameters = torch.tensor(values, dtype=torch.float64, device=device, requires_grad=True)
    return state, control, following, dt, parameters


def test_opcheck(device: torch.device) -> None:
    state, control, following, dt, parameters = op_arguments(device)
    ops = torch.ops.rubriscope
    torch.library.opcheck(ops.single_track_derivative.default, (state, control, parameters))
    torch.library.opcheck(ops.single_track_residual.default, (state, control, following, dt, parameters, 0.5))
    plain = [t.detach() for t in (state, control, following, dt, parameters)]
    grad = torch.ones_like(plain[0])
    torch.library.opcheck(ops.single_track_derivative.plain, (plain[0], plain[1], plain[4]))
    torch.library.opcheck(ops.single_track_residual.plain, (*plain, 0.5))
    torch.library.opcheck(ops.single_track_derivative_backward.default, (grad, plain[0], plain[1], plain[4]))
    torch.library.opcheck(ops.single_track_residual_backward.default, (grad, *plain, 0.5))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_graph_breaks(backend: str, device: torch.device) -> None:
    state, control, following, _, _ = op_arguments(device)
    mu = torch.tensor(0.9, dtype=torch.float64, device=device, requires_grad=True)

    def loss(state: Tensor, mu: Tensor) -> Tensor:
        tyre = Tyre()._replace(muy=mu)
        return single_track_residual(state, control, following, 0.01, Vehicle(), tyre).square().mean()

    expected = torch.autograd.grad(loss(state, mu), [state, mu])
    found = torch.autograd.grad(torch.compile(loss, fullgraph=True, backend=backend)(state, mu), [state, mu])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    state, control = motion(9000, seed=9)
    before = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            car = tensors(Vehicle(), torch.device("cpu"))
            dt = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
            residual = single_track_residual(state, control, state + 0.1, dt, car)
            results.append([residual, *torch.autograd.grad(residual.sum(), [*car, dt])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_half_types_compute_in_float32(device: torch.device) -> None:
    state, control = (t.to(device, torch.bfloat16) for t in motion(20))
    found = single_track_derivative(state, control)
    wide = single_track_derivative(state.float(), control.float())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, wide.to(torch.bfloat16))


def test_no_samples(device: torch.device) -> None:
    state = torch.zeros(0, 8, device=device, requires_grad=True)
    found = single_track_residual(state, torch.zeros(0, 3, device=device), state.detach(), 0.1)
    assert found.shape == (0, 8)
    found.sum().backward()


def test_double_backward_raises(device: torch.device) -> None:
    state, control, *_ = op_arguments(device)
    (first,) = torch.autograd.grad(single_track_derivative(state, control).sum(), state, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of its gradient"):
        torch.autograd.grad(first.sum(), control)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"state": torch.zeros(3, 7)}, ValueError, r"state has shape \(3, 7\), expected \(N, 8\)"),
        ({"state": torch.zeros(3, 8, dtype=torch.int32)}, TypeError, "state has dtype torch.int32"),
        ({"control": torch.zeros(4, 3)}, ValueError, r"control has shape \(4, 3\), expected \(3, 3\)"),
        ({"control": torch.zeros(3, 3).double()}, TypeError, "control has dtype torch.float64"),
        ({"next_state": torch.zeros(2, 8)}, ValueError, r"next_state has shape \(2, 8\), expected \(3, 8\)"),
        ({"dt": 0.0}, ValueError, "dt is 0.0, expected a positive number"),
        ({"dt": torch.ones(2)}, ValueError, r"dt has shape \(2,\), expected \(\) or \(3,\)"),
        ({"dt": "1"}, TypeError, "dt is a str"),
        ({"vehicle": 3}, TypeError, "vehicle is a int, expected a Vehicle"),
        ({"vehicle": Vehicle(mass="1")}, TypeError, "vehicle.mass is a str"),
        ({"vehicle": Vehicle(mass=torch.ones(2))}, ValueError, r"vehicle.mass has shape \(2,\)"),
        ({"tyre": (Tyre(),)}, TypeError, "tyre is a tuple"),
        ({"theta": 1.5}, ValueError, "theta is 1.5, expected 0 to 1"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {
        "state": torch.zeros(3, 8),
        "control": torch.zeros(3, 3),
        "next_state": torch.zeros(3, 8),
        "dt": 0.1,
    }
    with pytest.raises(error, match=message):
        single_track_residual(**{**good, **change})


def test_the_operator_itself_stays_inside_memory() -> None:
    state, control, following, dt, parameters = (t.detach() for t in op_arguments(torch.device("cpu")))
    ops = torch.ops.rubriscope
    with pytest.raises(RuntimeError, match="control does not have the shape"):
        ops.single_track_derivative(state, control[:3], parameters)
    with pytest.raises(RuntimeError, match="parameters has 21 entries"):
        ops.single_track_derivative(state, control, parameters[:21])
    with pytest.raises(RuntimeError, match="next_state does not have the shape"):
        ops.single_track_residual(state, control, following[:2], dt, parameters, 0.5)
    with pytest.raises(RuntimeError, match="dt does not have the shape"):
        ops.single_track_residual(state, control, following, dt.repeat(2), parameters, 0.5)
