"""The equations' reference page, docs/ops/equations.md, from the equations themselves."""

from __future__ import annotations

from ._equations import BUILT_IN, EQUATIONS, Equation

_HEAD = """# Equations

Each residual is the equation's left side with everything moved there. A field's names are the arguments'
order within a time level; those marked * are given once, after all time levels. [grids.md](grids.md) says
how they are discretised. This page is written by
`python -m rubriscope.ops.physics._reference > docs/ops/equations.md`; a test compares.
"""


def _fields(equation: Equation) -> str:
    by_names: dict[tuple[str, ...], list[int]] = {}
    for dimensions, names in equation.fields.items():
        by_names.setdefault(names, []).append(dimensions)
    found = []
    for names, dimensions_of in by_names.items():
        text = ", ".join(f"`{name}`" + ("*" if name in equation.sources else "") for name in names)
        found.append(
            f"{text} in {', '.join(map(str, dimensions_of))} dimension{'s' * (dimensions_of != [1])}"
        )
    return "; ".join(found)


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for name in BUILT_IN:
        equation = EQUATIONS[name]
        params = ", ".join(
            f"`{p}`" + (" (a vector)" if p in equation.vectors else "") for p in equation.params
        )
        levels = {0: "one", 1: "one (steady) or two", 2: "one (steady) or three"}[equation.time_order]
        parts.append(
            f"## {name}\n"
            f"{equation.formula}\n\n"
            f"- Fields: {_fields(equation)}\n"
            f"- Parameters: {params or 'none'}\n"
            f"- Time levels: {levels}\n"
            f"- Source: {equation.source}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
