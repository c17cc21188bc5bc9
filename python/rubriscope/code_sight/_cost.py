"""What tokens cost: prices of sight points, and sums over their calls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import _C


@dataclass(frozen=True)
class TokenPrice:
    """Currency units for ``per`` tokens: ``TokenPrice(input=3.0, output=15.0, per=1_000_000)``.

    ``output`` left out costs what ``input`` does. Whose currency it is, is not recorded.
    """

    input: float
    output: float | None = None
    per: float = 1.0

    @property
    def flat(self) -> bool:
        """Whether input and output cost the same, so that ``token_count`` alone tells the cost."""
        return self.output is None or self.output == self.input


@dataclass(frozen=True)
class CostStats:
    """Sums over calls."""

    calls: int
    tokens: int  #: exact, as are the next two
    input_tokens: int  #: of calls that told them apart
    output_tokens: int
    cost: float  #: currency units
    unknown: int  #: calls that are not in ``cost``: they gave no tokens, or not what their price needs


@dataclass(frozen=True)
class Costs:
    """What the sight points that count tokens have used since the process began."""

    by_point: dict[str, CostStats]
    by_modality: dict[str, CostStats]
    by_trace: dict[str, CostStats]  #: by trace id, the 1024 that were added to last
    dropped_traces: int  #: how often a trace fell out of ``by_trace``
    dropped: CostStats  #: the sum of those
    total: CostStats  #: of all points, inside and outside traces


def as_price(price: float | TokenPrice | None) -> tuple[float, float, float] | None:
    """(input, output, per) as the point keeps it. Raises TypeError for what is no price."""
    if price is None:
        return None
    if isinstance(price, TokenPrice):
        output = price.input if price.output is None else price.output
        return float(price.input), float(output), float(price.per)
    if isinstance(price, bool) or not isinstance(price, (int, float)):
        raise TypeError(f"price is currency units per token or a TokenPrice, got {price!r}")
    return float(price), float(price), 1.0


def check_tokens(token_count: Any, *, has_result: bool) -> None:
    """Raises TypeError for what tells no tokens, ValueError for a number that is none."""
    if token_count is None:
        return
    if callable(token_count):
        if has_result:
            return
        raise TypeError(
            'there is no result to tell the tokens of: give them with rs.metric("token_count", n)'
        )
    counts = token_count if isinstance(token_count, tuple) and len(token_count) == 2 else (token_count,)
    for count in counts:
        if isinstance(count, bool) or not isinstance(count, int):
            raise TypeError(
                "token_count is an int, a pair (input, output) of them, or a function of the result, got "
                f"{token_count!r}"
            )
        if not 0 <= count <= 10**12:
            raise ValueError(f"token_count is from 0 to 10**12, got {count}")


def costs() -> Costs:
    """Every sum of this process."""
    found = _C.sight_costs()
    points = found["by_point"]
    by_modality: dict[str, list[Any]] = {}
    for _, modality, sums in points:
        by_modality.setdefault(modality, []).append(sums)
    return Costs(
        by_point={name: CostStats(*sums) for name, _, sums in points},
        by_modality={modality: _together(sums) for modality, sums in by_modality.items()},
        by_trace={trace: CostStats(*sums) for trace, sums in found["by_trace"]},
        dropped_traces=found["dropped_traces"],
        dropped=CostStats(*found["dropped"]),
        total=_together(sums for _, _, sums in points),
    )


def _together(sums: Iterable[Any]) -> CostStats:
    columns = list(zip(*sums, strict=True)) or [()] * 6
    calls, tokens, input_tokens, output_tokens, cost, unknown = columns
    return CostStats(
        sum(calls), sum(tokens), sum(input_tokens), sum(output_tokens), math.fsum(cost), sum(unknown)
    )
