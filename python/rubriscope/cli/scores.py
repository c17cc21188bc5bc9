"""``rubriscope scores``: rubrics and scalars over the steps, as figures or as curves."""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from ..render import Column, fitted_table, fixed, printable, sparkline
from ..series import NO_GROUP, NO_SAMPLE, ScoreSeries
from .common import OK, add_command, add_range, ascii_only, console, open_session, print_json


def register(commands: Any) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "scores",
        run,
        help="rubrics and scalars over the steps; --plot draws them",
        description="Print rubrics and scalars over the steps, or draw them with --plot.\n"
        "Several values at a step are averaged; --json gives every value. Without a PATH: all rubrics.",
        epilog="examples:\n"
        "  rubriscope scores runs.db root format.tag --session grpo\n"
        "  rubriscope scores runs.db root loss --plot curves.png\n"
        "  rubriscope scores runs.db root --ranks",
    )
    parser.add_argument("target", metavar="TARGET", help="a database or .jsonl file, also TARGET:SESSION")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="rubric paths and scalar names")
    parser.add_argument("--session", "-s", metavar="SESSION", help="name, UUID or number")
    parser.add_argument("--plot", metavar="FILE", help="draw curves into .png, .svg or .pdf (extra [plot])")
    parser.add_argument(
        "--rows", type=int, default=20, metavar="N", help="rows of the table, 0 for every step (default 20)"
    )
    parser.add_argument("--ranks", action="store_true", help="each rank of a distributed run on its own")
    add_range(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints or draws."""
    film, session = open_session(arguments.target, arguments.session)
    paths = arguments.paths or film.paths(session)
    many = [
        film.scores(path, session, episode=arguments.episode, start=arguments.start, stop=arguments.stop)
        for path in paths
    ]
    if arguments.ranks:
        many = [series.of_rank(rank) for series in many for rank in session.ranks]
    if arguments.plot:
        from ..plot import plot

        plot(many, arguments.plot, title=session.name)
    if arguments.json:
        print_json(
            {
                "session": session.uuid,
                "name": session.name,
                "plot": arguments.plot,
                "ranks": list(session.ranks),
                "series": {series.path: _columns(series) for series in many},
            },
            indent=None,
        )
    elif arguments.plot:
        console().print(f"drew {len(many)} curves into {arguments.plot}")
    else:
        _print_table(many, arguments.rows)
    return OK


def _columns(series: ScoreSeries) -> dict[str, Any]:
    """Lists of one length; None where there is no value."""
    columns: dict[str, Any] = {
        "kind": series.kind,
        "step": series.step.tolist(),
        "score": series.score.tolist(),
        "status": series.statuses,
        "time_ns": series.time_ns.tolist(),
        "rank": series.rank.tolist(),
    }
    if (series.group != NO_GROUP).any():
        columns["group"] = [None if g == NO_GROUP else g for g in series.group.tolist()]
    if (series.sample != NO_SAMPLE).any():
        columns["sample"] = [None if s == NO_SAMPLE else s for s in series.sample.tolist()]
    return columns


def _print_table(many: list[ScoreSeries], rows: int) -> None:
    import numpy as np
    from rich.text import Text

    out = console()
    curves = {series.path: series.by_step() for series in many}
    steps = np.unique(np.concatenate([curve[0] for curve in curves.values()] or [np.empty(0, np.int64)]))
    name, count, mean, least, most, spark = columns = [
        Column("path", right=False),
        Column("steps", 4),
        Column("mean"),
        Column("min", 3),
        Column("max", 2),
        Column("over the steps", 1, right=False, style="cyan"),
    ]
    spark_width = max(12, min(60, out.width - 70))
    for path, (at, values) in curves.items():
        name.cells.append(printable(path))
        count.cells.append(f"{len(at):,}")
        mean.cells.append(fixed(float(values.mean()) if len(values) else None))
        least.cells.append(fixed(float(values.min()) if len(values) else None))
        most.cells.append(fixed(float(values.max()) if len(values) else None))
        spark.cells.append(sparkline(values, spark_width, ascii_only=ascii_only()))
    out.print(fitted_table(columns, out.width))
    if len(steps) == 0:
        return
    bins = len(steps) if rows <= 0 else min(rows, len(steps))
    edges = [steps[i * len(steps) // bins] for i in range(bins)] + [steps[-1] + 1]
    head = Column("steps" if bins < len(steps) else "step")
    # The later a path was named, the earlier it gives way; the overview above has them all.
    table = [head, *(Column(printable(path), index) for index, path in enumerate(curves))]
    for low, high in itertools.pairwise(edges):
        inside = steps[(steps >= low) & (steps < high)]
        head.cells.append(f"{inside[0]:,}" if len(inside) == 1 else f"{inside[0]:,}–{inside[-1]:,}")
        for column, (at, values) in zip(table[1:], curves.values(), strict=True):
            share = values[(at >= low) & (at < high)]
            column.cells.append(fixed(float(share.mean()) if len(share) else None))
    shown = fitted_table(table, out.width)
    out.print(shown)
    if left_out := len(table) - len(shown.columns):
        out.print(Text(f"{left_out} more do not fit: name those to see", style="dim"))
