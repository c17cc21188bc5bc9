"""A car as a single-track model with Pacejka's magic formula: its right side and its residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _load as _load
from .._check import compute_dtype, floating, same_place

_OP = torch.ops.rubriscope

STATES = ("x", "y", "yaw", "vx", "vy", "yaw_rate", "front_wheel", "rear_wheel")
CONTROLS = ("steering", "front_torque", "rear_torque")
_PARAMETERS = 22

Number = float | Tensor


class Vehicle(NamedTuple):
    """A car's parameters: numbers or tensors, 0-dim or ``(N,)``.

    The defaults are vehicle 2 (a BMW 320i) of the CommonRoad vehicle models (M. Althoff, M. Koschi,
    S. Manzinger, IV 2017), rounded; an axle has two of its wheels.

    Attributes:
        mass: m, kg.
        inertia: I about the vertical axis, kg m².
        front: a, from the centre of gravity to the front axle, m.
        rear: b, to the rear axle, m.
        wheel_radius: R, effective, m.
        wheel_inertia: J of an axle's wheels about their axis, kg m².
    """

    mass: Number = 1093.3
    inertia: Number = 1791.6
    front: Number = 1.1562
    rear: Number = 1.4227
    wheel_radius: Number = 0.344
    wheel_inertia: Number = 3.4


class Tyre(NamedTuple):
    """Magic-formula coefficients, longitudinal (x) and lateral (y): numbers or tensors, 0-dim or ``(N,)``.

    The force per load at a slip s is μ sin(C atan(B s − E (B s − atan(B s)))). The defaults are CommonRoad's
    tyre (there p_cx1 = C, p_dx1 = μ, p_ex1 = E and B = p_kx1 / (C μ); its shifts are left out).
    """

    bx: Number = 22.303 / (1.6411 * 1.1739)
    cx: Number = 1.6411
    ex: Number = 0.46403
    mux: Number = 1.1739
    by: Number = 21.92 / (1.3507 * 1.0489)
    cy: Number = 1.3507
    ey: Number = -0.0074722
    muy: Number = 1.0489


# ---- the operators' fake kernels and autograd


def _fake_derivative(state: Tensor, control: Tensor, parameters: Tensor) -> Tensor:
    return state.new_empty(state.shape)


def _fake_derivative_backward(
    grad: Tensor, state: Tensor, control: Tensor, parameters: Tensor
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (state, control, parameters))


def _fake_residual(
    state: Tensor, control: Tensor, next_state: Tensor, dt: Tensor, parameters: Tensor, theta: float
) -> Tensor:
    return state.new_empty(state.shape)


def _fake_residual_backward(
    grad: Tensor,
    state: Tensor,
    control: Tensor,
    next_state: Tensor,
    dt: Tensor,
    parameters: Tensor,
    theta: float,
) -> tuple[Tensor, ...]:
    return tuple(t.new_empty(t.shape) for t in (state, control, next_state, dt, parameters))


def _save_derivative(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _derivative_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found: tuple[Any, ...] = tuple(_OP.single_track_derivative_backward(grad, *ctx.saved_tensors))
    return found


def _save_residual(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.theta = inputs[5]


def _residual_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    found = _OP.single_track_residual_backward(grad, *ctx.saved_tensors, ctx.theta)
    return (*found, None)


def _no_double_backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    raise RuntimeError("single_track: the gradient of its gradient is not available")


for _name, _fake in (
    ("derivative", _fake_derivative),
    ("derivative.plain", _fake_derivative),
    ("derivative_backward", _fake_derivative_backward),
    ("residual", _fake_residual),
    ("residual.plain", _fake_residual),
    ("residual_backward", _fake_residual_backward),
):
    torch.library.register_fake(f"rubriscope::single_track_{_name}", _fake)

for _name, _backward, _save in (
    ("derivative", _derivative_backward, _save_derivative),
    ("residual", _residual_backward, _save_residual),
):
    torch.library.register_autograd(f"rubriscope::single_track_{_name}", _backward, setup_context=_save)
    torch.library.register_autograd(f"rubriscope::single_track_{_name}_backward", _no_double_backward)


# ---- arguments


def _rows(given: Any, name: str, columns: int, like: Tensor | None = None) -> Tensor:
    tensor = floating(given, name)
    if like is not None:
        same_place(like, "state", tensor, name)
    count = tensor.shape[0] if tensor.ndim and like is None else like.shape[0] if like is not None else 0
    if tensor.ndim != 2 or tuple(tensor.shape) != (count, columns):
        wanted = f"({'N' if like is None else count}, {columns})"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {wanted}")
    return tensor


def _scalars(values: Sequence[Any], names: Sequence[str], state: Tensor) -> list[Tensor]:
    """Numbers and tensors as tensors in the dtype of the computation, 0-dim or (N,)."""
    dtype = compute_dtype(state.dtype)
    found = []
    for value, name in zip(values, names, strict=True):
        if isinstance(value, Tensor):
            same_place(state, "state", floating(value, name), name)
            if tuple(value.shape) not in ((), (state.shape[0],)):
                raise ValueError(f"{name} has shape {tuple(value.shape)}, expected () or ({state.shape[0]},)")
            found.append(value.to(dtype))
        elif isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} is a {type(value).__name__}, expected a number or a torch.Tensor")
        else:
            found.append(torch.tensor(value, dtype=dtype, device=state.device))
    return found


def _parameters(vehicle: Vehicle, tyre: Tyre | tuple[Tyre, Tyre], state: Tensor) -> Tensor:
    if not isinstance(vehicle, Vehicle):
        raise TypeError(f"vehicle is a {type(vehicle).__name__}, expected a Vehicle")
    front, rear = (tyre, tyre) if isinstance(tyre, Tyre) else tyre if len(tyre) == 2 else (None, None)
    if not isinstance(front, Tyre) or not isinstance(rear, Tyre):
        raise TypeError(f"tyre is a {type(tyre).__name__}, expected a Tyre or a pair of them, front and rear")
    values = (*vehicle, *front, *rear)
    if all(not isinstance(value, Tensor) for value in values):
        for value, name in zip(values, _NAMES, strict=True):
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} is a {type(value).__name__}, expected a number or a torch.Tensor")
        dtype = compute_dtype(state.dtype)
        return torch.tensor([float(value) for value in values], dtype=dtype, device=state.device)
    scalars = _scalars(values, _NAMES, state)
    if any(scalar.ndim for scalar in scalars):
        return torch.stack([scalar.expand(state.shape[0]) for scalar in scalars], 1)
    return torch.stack(scalars)


_NAMES = (
    *(f"vehicle.{name}" for name in Vehicle._fields),
    *(f"{axle}tyre.{name}" for axle in ("front ", "rear ") for name in Tyre._fields),
)


def _wanted(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def single_track_derivative(
    state: Tensor,
    control: Tensor,
    vehicle: Vehicle = Vehicle(),  # noqa: B008 (immutable)
    tyre: Tyre | tuple[Tyre, Tyre] = Tyre(),  # noqa: B008
) -> Tensor:
    r"""The right side f of a single-track car's equations, d state/dt = f(state, control).

    With δ the steering angle, F the tyre forces along (x) and across (y) each axle's wheels, front f and
    rear r::

        ẋ  = vx cos ψ − vy sin ψ         v̇x = (Fxf cos δ − Fyf sin δ + Fxr)/m + vy r
        ẏ  = vx sin ψ + vy cos ψ         v̇y = (Fxf sin δ + Fyf cos δ + Fyr)/m − vx r
        ψ̇  = r                           ṙ  = (a (Fxf sin δ + Fyf cos δ) − b Fyr)/I
        ω̇f = (Tf − R Fxf)/J              ω̇r = (Tr − R Fxr)/J

    An axle whose wheel moves with u along and w across itself has the slips sx = (R ω − u)/q and sy = −w/q
    with q = √(u² + (0.5 m/s)²), which bounds them at standstill, and the combined slip
    s = √(sx² + sy² + 10⁻⁸). Its forces are Fx = Fz (sx/s) X(s) and Fy = Fz (sy/s) Y(s), X and Y the magic
    formulas of :class:`Tyre`: along the slip's direction, each with its own curve (similarity method), so
    that a pure slip gives the pure force. Loads are static: Fzf = m g b/(a + b), Fzr = m g a/(a + b),
    g = 9.81 m/s². There is no drag, roll or pitch.

    Sources: H. B. Pacejka, Tire and Vehicle Dynamics, 3rd ed. 2012, §1.3 (single track), §4.2 (similarity
    method), §4.3 (magic formula); M. Althoff, M. Koschi, S. Manzinger, CommonRoad, IV 2017, and its vehicle
    models' document.

    Args:
        state: ``(N, 8)``: position x, y (m), yaw ψ (rad), velocity of the centre of gravity along and across
            the car vx, vy (m/s), yaw rate r (rad/s), angular speed of the front and rear wheels ωf, ωr
            (rad/s).
        control: ``(N, 3)``: steering angle δ of the front wheels (rad), torque on the front and on the rear
            axle Tf, Tr (N m, positive drives, negative brakes).
        vehicle: The car.
        tyre: The tyre of both axles, or of the front and of the rear.

    Returns:
        ``(N, 8)`` in state's dtype; float16 and bfloat16 compute in float32. Differentiable in state, control
        and every parameter given as a tensor.

    Raises:
        TypeError: an argument of a wrong type or dtype.
        ValueError: a shape or device that does not fit.
        RuntimeError: on a second backward through the first (it is not available).
    """
    state = _rows(state, "state", len(STATES))
    control = _rows(control, "control", len(CONTROLS), state)
    parameters = _parameters(vehicle, tyre, state)
    dtype = compute_dtype(state.dtype)
    args = [tensor.to(dtype) for tensor in (state, control, parameters)]
    op = _OP.single_track_derivative
    found: Tensor = op.default(*args) if _wanted(*args) else op.plain(*args)
    return found.to(state.dtype)


def single_track_residual(
    state: Tensor,
    control: Tensor,
    next_state: Tensor,
    dt: float | Tensor,
    vehicle: Vehicle = Vehicle(),  # noqa: B008 (immutable)
    tyre: Tyre | tuple[Tyre, Tyre] = Tyre(),  # noqa: B008
    *,
    theta: float = 0.5,
) -> Tensor:
    """The residual of a step of a single-track car, (next_state − state)/dt − f(state_θ, control).

    f is :func:`single_track_derivative`'s, taken at state_θ = (1 − θ) state + θ next_state: the implicit
    midpoint rule with θ = ½, of second order in dt; explicit Euler with 0, implicit Euler with 1. The
    control holds during the step. The yaw is not wrapped: give next_state's yaw on the branch of state's.

    Args:
        state: ``(N, 8)``.
        control: ``(N, 3)``.
        next_state: ``(N, 8)``, dt later.
        dt: Seconds: a number, or a tensor, 0-dim or ``(N,)``.
        vehicle: The car.
        tyre: The tyre of both axles, or of the front and of the rear.
        theta: Where between the two states f is taken, 0 to 1.

    Returns:
        ``(N, 8)`` in state's dtype, units of the states per second; float16 and bfloat16 compute in float32.
        Differentiable in all tensors among the arguments.

    Raises:
        TypeError: an argument of a wrong type or dtype.
        ValueError: a shape or device that does not fit; a dt that is a number and not positive; theta outside
            0 to 1.
        RuntimeError: on a second backward through the first (it is not available).
    """
    state = _rows(state, "state", len(STATES))
    control = _rows(control, "control", len(CONTROLS), state)
    next_state = _rows(next_state, "next_state", len(STATES), state)
    if not isinstance(dt, Tensor) and isinstance(dt, (int, float)) and not dt > 0:
        raise ValueError(f"dt is {dt}, expected a positive number of seconds")
    if not 0 <= theta <= 1:
        raise ValueError(f"theta is {theta}, expected 0 to 1")
    (step,) = _scalars([dt], ["dt"], state)
    parameters = _parameters(vehicle, tyre, state)
    dtype = compute_dtype(state.dtype)
    args = [tensor.to(dtype) for tensor in (state, control, next_state, step, parameters)]
    op = _OP.single_track_residual
    found: Tensor = op.default(*args, float(theta)) if _wanted(*args) else op.plain(*args, float(theta))
    return found.to(state.dtype)
