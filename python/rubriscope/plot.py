"""Curves over the steps as a picture. Needs matplotlib: ``pip install rubriscope[plot]``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .series import ScoreSeries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Curves with more points than this are drawn as means over equal shares of them.
_MAX_POINTS = 2000


def plot(series: Sequence[ScoreSeries], path: str | os.PathLike[str], *, title: str = "") -> None:
    """Draws the mean at each step: the rubrics in one panel, each scalar in one of its own below.

    The suffix of ``path`` is the format (.png, .svg, .pdf). A faint line is what was recorded, the strong
    one its moving average over a twentieth of the steps. Raises ``ImportError`` naming the extra,
    ``ValueError`` for nothing to draw or an unknown format.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise ImportError(
            "drawing curves needs matplotlib: pip install 'rubriscope[plot]' (or: pip install matplotlib)"
        ) from error

    rubrics = [one for one in series if one.kind == "rubric"]
    scalars = [one for one in series if one.kind == "scalar"]
    if not any(one.scored.any() for one in series):
        raise ValueError("nothing to draw: no path given has a value")
    heights = ([3.2] if rubrics else []) + [1.5] * len(scalars)
    figure = Figure(figsize=(9, sum(heights) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    rest = list(panels)
    if rubrics:
        axes = rest.pop(0)
        for index, one in enumerate(sorted(rubrics, key=lambda one: one.path != "root")):
            is_root = one.path == "root"
            _curve(axes, one, "black" if is_root else _colour(index), 2.2 if is_root else 1.3)
        axes.set_ylabel("score")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    for one, axes in zip(scalars, rest, strict=True):
        _curve(axes, one, "tab:blue", 1.3)
        axes.set_ylabel(one.path)
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("step")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.savefig(path, dpi=150)


def _curve(axes: Axes, series: ScoreSeries, colour: str, width: float) -> None:
    steps, values = _thinned(*series.by_step())
    window = max(1, len(values) // 20)
    if window > 1:
        axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.25)
    smooth = moving_average(values, window)
    marker = "o" if len(values) == 1 else ""
    axes.plot(steps, smooth, color=colour, linewidth=width, label=series.path, marker=marker)


def _thinned(
    steps: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if len(values) <= _MAX_POINTS:
        return steps.astype(np.float64), values
    share = math.ceil(len(values) / _MAX_POINTS)
    starts = np.arange(0, len(values), share)
    counts = np.diff(np.append(starts, len(values)))
    mean_steps = np.add.reduceat(steps.astype(np.float64), starts) / counts
    return mean_steps, np.add.reduceat(values, starts) / counts


def moving_average(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Centred mean over ``window`` neighbours, over fewer at the ends; shape as ``values``, (n,)."""
    if window <= 1 or len(values) == 0:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low = np.maximum(at - (window - 1) // 2, 0)
    high = np.minimum(at + window // 2 + 1, len(values))
    result: npt.NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return result


def _colour(index: int) -> str:
    return f"C{index % 10}"
