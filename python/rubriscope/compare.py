"""Two sessions side by side: means, their difference, and paired differences by step."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from .render import Column, fitted_table, fixed, printable
from .series import Kind, ScoreSeries

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

    from .film import Film, Session

#: What the interval of a paired difference is.
INTERVAL = "Student t, 95 %, over the steps both sessions have; steps taken as independent"


@dataclass(frozen=True, slots=True)
class Difference:
    """One rubric or scalar in two sessions. Differences are b − a; None where a side has no value."""

    path: str
    kind: Kind
    n_a: int  #: values in a
    n_b: int
    mean_a: float | None
    mean_b: float | None
    std_a: float | None
    std_b: float | None
    delta: float | None  #: mean_b − mean_a, over all values of each
    failed_a: int
    failed_b: int
    pairs: int  #: steps at which both have a value; several values at a step are averaged first
    paired_delta: float | None  #: mean over the pairs of b − a
    low: float | None  #: the 95 % interval of paired_delta; None below two pairs
    high: float | None

    @property
    def verdict(self) -> str:
        """``"higher"`` or ``"lower"`` where the interval excludes 0, else ``"unclear"``."""
        if self.low is None or self.high is None:
            return "unclear"
        if self.low > 0:
            return "higher"
        if self.high < 0:
            return "lower"
        return "unclear"

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, and the verdict."""
        result: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        result["verdict"] = self.verdict
        return result


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of :meth:`Film.compare`; prints as a table, in rich and as ``str``."""

    a: Session
    b: Session
    label_a: str
    label_b: str
    differences: tuple[Difference, ...]
    interval: str = INTERVAL

    def __getitem__(self, path: str) -> Difference:
        """The difference of one path. Raises ``KeyError`` naming what exists."""
        for difference in self.differences:
            if difference.path == path:
                return difference
        raise KeyError(f"nothing compared is called {path!r}; there are {', '.join(self.paths) or 'none'}")

    @property
    def paths(self) -> list[str]:
        """What was compared, in order."""
        return [difference.path for difference in self.differences]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and numbers."""
        return {
            "a": _side(self.label_a, self.a),
            "b": _side(self.label_b, self.b),
            "interval": self.interval,
            "differences": [difference.to_dict() for difference in self.differences],
        }

    def table(self, width: int = 120) -> Table:
        """A rich table that fits ``width`` characters."""
        from rich.text import Text

        path, mean_a, mean_b, delta, paired, interval, pairs = columns = [
            Column("path", right=False),
            Column(f"mean {self.label_a}", 1),
            Column(f"mean {self.label_b}", 1),
            Column("Δ", 3),
            Column("paired Δ by step"),
            Column("95 % interval", 2),
            Column("pairs", 4),
        ]
        for d in self.differences:
            # A scalar has no good direction (a loss falls, a length may do either): colour rewards only.
            colours = {"higher": "green", "lower": "red"} if d.kind == "rubric" else {}
            style = colours.get(d.verdict, "")
            span = ""
            if d.low is not None and d.high is not None:
                span = f"{fixed(d.low, sign=True)} … {fixed(d.high, sign=True)}"
            path.cells.append(printable(d.path))
            mean_a.cells.append(fixed(d.mean_a))
            mean_b.cells.append(fixed(d.mean_b))
            delta.cells.append(fixed(d.delta, sign=True))
            paired.cells.append(Text(fixed(d.paired_delta, sign=True), style=style))
            interval.cells.append(Text(span, style=style))
            pairs.cells.append(f"{d.pairs:,}" if d.pairs else "–")
        rubrics = sum(d.kind == "rubric" for d in self.differences)
        title = f"{self.label_b} against {self.label_a}"
        return fitted_table(columns, width, sections=[rubrics - 1] if rubrics else [], title=title)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield self.table(options.max_width)
        yield Text(f"Δ is {self.label_b} − {self.label_a}. Interval: {self.interval}.", style="dim")
        for label, session in ((self.label_a, self.a), (self.label_b, self.b)):
            if len(session.ranks) > 1:
                yield Text(
                    f"{label}: all of {len(session.ranks)} ranks, a step's values averaged", style="dim"
                )

    def __str__(self) -> str:
        from rich.console import Console

        out = io.StringIO()
        Console(file=out, width=120).print(self)
        return out.getvalue().rstrip("\n")


def compare(
    film_a: Film,
    a: str | int | Session | None,
    film_b: Film,
    b: str | int | Session | None,
    *,
    episode: str | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> Comparison:
    """Session ``b`` of ``film_b`` against session ``a`` of ``film_a``, over every path either has."""
    session_a, session_b = film_a.session(a), film_b.session(b)
    paths_a, paths_b = film_a.paths(session_a), film_b.paths(session_b)
    names_a, names_b = film_a.scalars(session_a), film_b.scalars(session_b)

    def series(film: Film, session: Session, kind: Kind, path: str, has: bool) -> ScoreSeries | None:
        if not has:
            return None
        return film.series(kind, path, session, episode=episode, start=start, stop=stop)

    differences = []
    kinds: tuple[tuple[Kind, list[str], list[str]], ...] = (
        ("rubric", paths_a, paths_b),
        ("scalar", names_a, names_b),
    )
    for kind, in_a, in_b in kinds:
        for path in dict.fromkeys([*in_a, *in_b]):
            differences.append(
                difference(
                    path,
                    kind,
                    series(film_a, session_a, kind, path, path in in_a),
                    series(film_b, session_b, kind, path, path in in_b),
                )
            )
    label_a, label_b = _labels(film_a, session_a, film_b, session_b)
    return Comparison(session_a, session_b, label_a, label_b, tuple(differences))


def difference(path: str, kind: Kind, a: ScoreSeries | None, b: ScoreSeries | None) -> Difference:
    """Compares two series of one path; a side that is None has no values."""
    summary_a = a.summary() if a is not None else None
    summary_b = b.summary() if b is not None else None
    mean_a = summary_a.mean if summary_a else None
    mean_b = summary_b.mean if summary_b else None
    delta = None
    if mean_a is not None and mean_b is not None:
        delta = mean_b - mean_a if abs(mean_b - mean_a) > _rounding(mean_a, mean_b) else 0.0
    pairs, paired, low, high = 0, None, None, None
    if a is not None and b is not None:
        steps_a, values_a = a.by_step()
        steps_b, values_b = b.by_step()
        _, at_a, at_b = np.intersect1d(steps_a, steps_b, assume_unique=True, return_indices=True)
        left, right = values_a[at_a], values_b[at_b]
        differences = right - left
        differences[np.abs(differences) <= _rounding(left, right)] = 0.0
        pairs = len(differences)
        if pairs:
            paired = float(differences.mean())
        if pairs > 1:
            half = t_quantile(0.975, pairs - 1) * float(differences.std(ddof=1)) / math.sqrt(pairs)
            low, high = float(differences.mean()) - half, float(differences.mean()) + half
    return Difference(
        path=path,
        kind=kind,
        n_a=summary_a.n if summary_a else 0,
        n_b=summary_b.n if summary_b else 0,
        mean_a=mean_a,
        mean_b=mean_b,
        std_a=summary_a.std if summary_a else None,
        std_b=summary_b.std if summary_b else None,
        delta=delta,
        failed_a=summary_a.failed if summary_a else 0,
        failed_b=summary_b.failed if summary_b else 0,
        pairs=pairs,
        paired_delta=paired,
        low=low,
        high=high,
    )


def _rounding(a: Any, b: Any) -> Any:
    """What two means of the same values may differ by: their sums round by order and number of values."""
    return 16 * np.finfo(np.float64).eps * np.maximum(np.abs(a), np.abs(b))


def t_quantile(p: float, df: int) -> float:
    """Quantile of Student's t distribution for 0 < p < 1 and df ≥ 1.

    Closed forms for 1 and 2 degrees of freedom; otherwise the Cornish-Fisher expansion about the normal
    quantile as a start, then Newton steps on the distribution function.
    """
    if df < 1:
        raise ValueError(f"degrees of freedom must be at least 1, not {df}")
    if df == 1:
        return math.tan(math.pi * (p - 0.5))
    if df == 2:
        return (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    t = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    if df > 200:  # the expansion's relative error is below 1e-6 there
        return t
    log_norm = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    for _ in range(50):
        density = math.exp(log_norm - (df + 1) / 2 * math.log1p(t * t / df))
        move = (_t_cdf(t, df) - p) / density
        t -= move
        if abs(move) < 1e-12 * max(1.0, abs(t)):
            break
    return t


def _t_cdf(t: float, df: int) -> float:
    """Distribution function of Student's t for integer df, by the finite trigonometric sums."""
    theta = math.atan(t / math.sqrt(df))
    cos2 = math.cos(theta) ** 2
    if df % 2:
        term, total = 1.0, 0.0
        for k in range(1, (df - 1) // 2 + 1):
            term = 1.0 if k == 1 else term * (2 * k - 2) / (2 * k - 1) * cos2
            total += term
        area = 2 / math.pi * (theta + math.sin(theta) * math.cos(theta) * total)
    else:
        term, total = 1.0, 0.0
        for k in range(df // 2):
            term = 1.0 if k == 0 else term * (2 * k - 1) / (2 * k) * cos2
            total += term
        area = math.sin(theta) * total
    return 0.5 + area / 2


def _side(label: str, session: Session) -> dict[str, Any]:
    return {"label": label, "uuid": session.uuid, "name": session.name, "ranks": list(session.ranks)}


def _labels(film_a: Film, a: Session, film_b: Film, b: Session) -> tuple[str, str]:
    """Short names that tell the two apart."""
    if a.name != b.name:
        return a.name, b.name
    if film_a.place != film_b.place:
        if film_a.name != film_b.name:
            return f"{film_a.name}:{a.name}", f"{film_b.name}:{b.name}"
        return f"{film_a.place}:{a.name}", f"{film_b.place}:{b.name}"
    return f"{a.name} ({a.uuid[:8]})", f"{b.name} ({b.uuid[:8]})"
