"""The partial differential equations, each written once: what grids and networks both evaluate.

A residual is the equation's left side with everything moved there; it is built from a field's value
``d["u"]`` and its derivatives ``d("u", "xx")``, ``d("u", "t")``, ``d.laplacian("u")``. On a grid these are
stencils, on a network they are jets; the formula does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

AXES = "xyz"


class Derivatives(Protocol):
    """What an equation sees of its fields."""

    #: The number of space dimensions, 1 to 3.
    dimensions: int

    def __getitem__(self, field: str) -> Any:
        """The field's value."""

    def __call__(self, field: str, by: str) -> Any:
        """The partial derivative by the letters of ``by``: ``"x"``, ``"xy"``, ``"xxxx"``, ``"t"``."""

    def laplacian(self, field: str) -> Any:
        """The sum of the second derivatives in space."""


Residual = Callable[[Derivatives, Mapping[str, Any]], "Any | tuple[Any, ...]"]


@dataclass(frozen=True)
class Equation:
    """One partial differential equation.

    Attributes:
        name: As users name it.
        residual: ``(d, params) -> residual``, or a tuple of them, one per component.
        fields: The fields in order, by the number of dimensions it has them in.
        params: The parameters' names.
        time_order: The highest time derivative: 0 (steady), 1 or 2.
        sources: Which of the fields are given (a right side): a network does not predict them.
        vectors: Which of the parameters have one entry per dimension.
        formula: The residual as text.
        source: Where the equation comes from.
    """

    name: str
    residual: Residual
    fields: Mapping[int, tuple[str, ...]]
    params: tuple[str, ...]
    time_order: int
    formula: str
    source: str
    sources: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


def component(vector: Any, axis: int, dimensions: int) -> Any:
    """Entry ``axis`` of a vector parameter: a sequence or tensor of one entry per dimension; in one dimension
    also the entry itself.
    """
    if isinstance(vector, Sequence) or (dimensions > 1 and getattr(vector, "ndim", 0) > 0):
        return vector[axis]
    return vector


def _advected(d: Derivatives, field: str, velocity: Sequence[str]) -> Any:
    """(u · ∇) field for a velocity given by fields."""
    total = d[velocity[0]] * d(field, "x")
    for axis, name in enumerate(velocity[1:], start=1):
        total = total + d[name] * d(field, AXES[axis])
    return total


def _divergence(d: Derivatives, vector: Sequence[str]) -> Any:
    total = d(vector[0], "x")
    for axis, name in enumerate(vector[1:], start=1):
        total = total + d(name, AXES[axis])
    return total


def _heat(d: Derivatives, p: Mapping[str, Any]) -> Any:
    return d("u", "t") - p["alpha"] * d.laplacian("u")


def _wave(d: Derivatives, p: Mapping[str, Any]) -> Any:
    return d("u", "tt") - p["c"] * p["c"] * d.laplacian("u")


def _advection_diffusion(d: Derivatives, p: Mapping[str, Any]) -> Any:
    total = d("u", "t") - p["nu"] * d.laplacian("u")
    for axis in range(d.dimensions):
        total = total + component(p["velocity"], axis, d.dimensions) * d("u", AXES[axis])
    return total


def _burgers(d: Derivatives, p: Mapping[str, Any]) -> Any:
    velocity = ("u", "v")[: d.dimensions]
    found = tuple(d(f, "t") + _advected(d, f, velocity) - p["nu"] * d.laplacian(f) for f in velocity)
    return found[0] if d.dimensions == 1 else found


def _poisson(d: Derivatives, p: Mapping[str, Any]) -> Any:
    return d.laplacian("u") - d["f"]


def _helmholtz(d: Derivatives, p: Mapping[str, Any]) -> Any:
    return d.laplacian("u") + p["k"] * p["k"] * d["u"] - d["f"]


def _allen_cahn(d: Derivatives, p: Mapping[str, Any]) -> Any:
    u = d["u"]
    return d("u", "t") - p["epsilon"] * p["epsilon"] * d.laplacian("u") + u * u * u - u


def _kuramoto_sivashinsky(d: Derivatives, p: Mapping[str, Any]) -> Any:
    return d("u", "t") + d["u"] * d("u", "x") + d("u", "xx") + d("u", "xxxx")


def _navier_stokes(d: Derivatives, p: Mapping[str, Any]) -> Any:
    velocity = ("u", "v", "w")[: d.dimensions]
    momentum = tuple(
        d(f, "t") + _advected(d, f, velocity) + d("p", AXES[axis]) - p["nu"] * d.laplacian(f)
        for axis, f in enumerate(velocity)
    )
    return (*momentum, _divergence(d, velocity))


def _vorticity(d: Derivatives, p: Mapping[str, Any]) -> Any:
    transport = (
        d("omega", "t")
        + d("psi", "y") * d("omega", "x")
        - d("psi", "x") * d("omega", "y")
        - p["nu"] * d.laplacian("omega")
    )
    return transport, d.laplacian("psi") + d["omega"]


def _schrodinger(d: Derivatives, p: Mapping[str, Any]) -> Any:
    u, v = d["u"], d["v"]
    density = u * u + v * v
    return (
        -d("v", "t") + 0.5 * d.laplacian("u") + density * u,
        d("u", "t") + 0.5 * d.laplacian("v") + density * v,
    )


def _shallow_water(d: Derivatives, p: Mapping[str, Any]) -> Any:
    velocity = ("u", "v")[: d.dimensions]
    mass = d("h", "t") + d["h"] * _divergence(d, velocity) + _advected(d, "h", velocity)
    momentum = tuple(
        d(f, "t") + _advected(d, f, velocity) + p["g"] * d("h", AXES[axis]) for axis, f in enumerate(velocity)
    )
    return (mass, *momentum)


def _elasticity(d: Derivatives, p: Mapping[str, Any]) -> Any:
    displacement = ("u", "v", "w")[: d.dimensions]
    found = []
    for axis in range(d.dimensions):
        gradient = d(displacement[0], "".join(sorted("x" + AXES[axis])))
        for other in range(1, d.dimensions):
            gradient = gradient + d(displacement[other], "".join(sorted(AXES[other] + AXES[axis])))
        found.append(
            (p["lam"] + p["mu"]) * gradient + p["mu"] * d.laplacian(displacement[axis]) + d["f" + AXES[axis]]
        )
    return found[0] if d.dimensions == 1 else tuple(found)


def _everywhere(*fields: str) -> dict[int, tuple[str, ...]]:
    return {1: fields, 2: fields, 3: fields}


EQUATIONS: dict[str, Equation] = {
    equation.name: equation
    for equation in (
        Equation(
            "heat", _heat, _everywhere("u"), ("alpha",), 1,
            "u_t − α ∇²u",
            "L. C. Evans, Partial Differential Equations, §2.3",
        ),
        Equation(
            "wave", _wave, _everywhere("u"), ("c",), 2,
            "u_tt − c² ∇²u",
            "L. C. Evans, Partial Differential Equations, §2.4",
        ),
        Equation(
            "advection_diffusion", _advection_diffusion, _everywhere("u"), ("velocity", "nu"), 1,
            "u_t + a·∇u − ν ∇²u",
            "R. J. LeVeque, Finite Volume Methods for Hyperbolic Problems, §2.2",
            vectors=("velocity",),
        ),
        Equation(
            "burgers", _burgers, {1: ("u",), 2: ("u", "v")}, ("nu",), 1,
            "u_t + (u·∇)u − ν ∇²u, one component per dimension",
            "J. M. Burgers, Advances in Applied Mechanics 1, 1948",
        ),
        Equation(
            "poisson", _poisson, _everywhere("u", "f"), (), 0,
            "∇²u − f",
            "L. C. Evans, Partial Differential Equations, §2.2",
            sources=("f",),
        ),
        Equation(
            "helmholtz", _helmholtz, _everywhere("u", "f"), ("k",), 0,
            "∇²u + k² u − f",
            "F. Ihlenburg, Finite Element Analysis of Acoustic Scattering, 1998, §1.1",
            sources=("f",),
        ),
        Equation(
            "allen_cahn", _allen_cahn, _everywhere("u"), ("epsilon",), 1,
            "u_t − ε² ∇²u + u³ − u",
            "S. M. Allen, J. W. Cahn, Acta Metallurgica 27, 1979",
        ),
        Equation(
            "kuramoto_sivashinsky", _kuramoto_sivashinsky, {1: ("u",)}, (), 1,
            "u_t + u u_x + u_xx + u_xxxx",
            "Y. Kuramoto, Prog. Theor. Phys. Suppl. 64, 1978; G. I. Sivashinsky, Acta Astronautica 4, 1977",
        ),
        Equation(
            "navier_stokes", _navier_stokes, {2: ("u", "v", "p"), 3: ("u", "v", "w", "p")}, ("nu",), 1,
            "u_t + (u·∇)u + ∇p − ν ∇²u, one component per dimension, and ∇·u (density 1)",
            "G. K. Batchelor, An Introduction to Fluid Dynamics, 1967, §3.3",
        ),
        Equation(
            "vorticity", _vorticity, {2: ("omega", "psi")}, ("nu",), 1,
            "ω_t + ψ_y ω_x − ψ_x ω_y − ν ∇²ω and ∇²ψ + ω",
            "G. K. Batchelor, An Introduction to Fluid Dynamics, 1967, §5.1",
        ),
        Equation(
            "schrodinger", _schrodinger, _everywhere("u", "v"), (), 1,
            "i ψ_t + ½ ∇²ψ + |ψ|² ψ with ψ = u + i v: real part −v_t + ½ ∇²u + |ψ|² u, imaginary part "
            "u_t + ½ ∇²v + |ψ|² v",
            "V. E. Zakharov, A. B. Shabat, Sov. Phys. JETP 34, 1972",
        ),
        Equation(
            "shallow_water", _shallow_water, {1: ("h", "u"), 2: ("h", "u", "v")}, ("g",), 1,
            "h_t + ∇·(h u) and u_t + (u·∇)u + g ∇h, one component per dimension (flat bottom)",
            "R. J. LeVeque, Finite Volume Methods for Hyperbolic Problems, §13.1",
        ),
        Equation(
            "elasticity", _elasticity,
            {1: ("u", "fx"), 2: ("u", "v", "fx", "fy"), 3: ("u", "v", "w", "fx", "fy", "fz")},
            ("lam", "mu"), 0,
            "(λ + μ) ∇(∇·u) + μ ∇²u + f, one component per dimension (Navier–Cauchy)",
            "L. D. Landau, E. M. Lifshitz, Theory of Elasticity, §7",
            sources=("fx", "fy", "fz"),
        ),
    )
}  # fmt: skip

#: Those above, whatever is registered later.
BUILT_IN = tuple(EQUATIONS)
