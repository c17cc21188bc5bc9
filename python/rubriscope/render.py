"""How a snapshot looks in a terminal: one line, or a tree. Shared by the console sink and the commands."""

from __future__ import annotations

import codecs
import datetime
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .snapshot import ROOT, NeuralSnapshot

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.table import Table
    from rich.tree import Tree

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-:=+*#"

# Captured text goes to a terminal: an escape sequence in it must not reach the terminal as one.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL.update({ord("\n"): "\\n", ord("\t"): "\\t", ord("\r"): "\\r"})

_RESET, _BOLD, _DIM, _RED, _GREEN = "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m"


def printable(value: Any, limit: int | None = None) -> str:
    """``str(value)`` with control characters escaped, cut to ``limit`` characters with an ellipsis."""
    text = str(value)
    if limit is not None and len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    return text.translate(_CONTROL)


def number(value: float | None) -> str:
    """A score in few characters: four significant digits, ``–`` for none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return str(value)
    if 1e-3 <= abs(value) < 1e6:
        text = f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
        return text
    return f"{value:.3g}"


def fixed(value: float | None, *, sign: bool = False) -> str:
    """A figure for a column of them: four decimals where that says enough, ``–`` for none."""
    if value is None:
        return "–"
    plus = "+" if sign else ""
    if value == 0 or not math.isfinite(value):
        return f"{value + 0.0:{plus}.0f}"
    return f"{value:{plus}.4f}" if 1e-3 <= abs(value) < 1e4 else f"{value:{plus}.3g}"


def duration(ns: float | None) -> str:
    """A duration in the unit that suits it; nothing for None."""
    if ns is None:
        return ""
    for limit, scale, unit in ((1e3, 1, "ns"), (1e6, 1e3, "µs"), (1e9, 1e6, "ms")):
        if ns < limit:
            return f"{ns / scale:.3g} {unit}"
    return f"{ns / 1e9:,.3g} s" if ns < 1e12 else f"{ns / 1e9:,.0f} s"


def clock(time_ns: int) -> str:
    """Local time of day with milliseconds."""
    moment = datetime.datetime.fromtimestamp(time_ns / 1e9)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def failures(snapshot: NeuralSnapshot) -> list[str]:
    """Paths of the nodes that failed where they stand: a failed node above a failed child is left out."""
    failed = [path for path, status in snapshot.statuses.items() if status == "failed"]
    below = [path for path in failed if path != ROOT]
    return [
        path
        for path in failed
        if not any(other != path and (path == ROOT or other.startswith(path + ".")) for other in below)
    ]


def snapshot_line(
    snapshot: NeuralSnapshot, *, colour: bool = False, width: int | None = None, ranked: bool = False
) -> str:
    """One line: time, session, episode, step, reward, scores below the root, failures.

    ``width`` cuts the list of scores, never the failures. Rank 0 is named where the session has others
    (``ranked``). No newline at the end.
    """
    bold, dim, red, reset = (_BOLD, _DIM, _RED, _RESET) if colour else ("", "", "", "")
    where = f"{printable(snapshot.session_name)} ep {printable(snapshot.episode_id)} step {snapshot.step}"
    if snapshot.rank or ranked:
        where += f" rank {snapshot.rank}"
    if snapshot.group_id is not None:
        where += f" group {snapshot.group_id}"
    if snapshot.sample_index is not None:
        where += f" sample {snapshot.sample_index}"
    reward = f"reward {number(snapshot.reward)}"
    head_length = len(clock(0)) + 1 + len(where) + 2 + len(reward)

    failed = failures(snapshot)
    marks = []
    for path in failed:
        reason = snapshot.reasons.get(path, "")
        marks.append(f"✗ {printable(path)}" + (f" ({printable(reason, 60)})" if reason else ""))
    tail = "  ".join(marks)

    parts: list[str] = []
    room = None if width is None else width - head_length - len(tail) - 6
    below = [path for path in snapshot.statuses if path != ROOT]
    for index, path in enumerate(below):
        status = snapshot.statuses[path]
        if status == "failed":
            continue
        value = number(snapshot.scores.get(path)) if status == "scored" else "–"
        part = f"{printable(path)} {value}"
        if room is not None:
            room -= len(part) + 3
            if room < 0:
                parts.append(f"+{len(below) - index}")
                break
        parts.append(part)
    head_colour = (red if failed or snapshot.reward is None else bold) if colour else ""
    line = f"{dim}{clock(snapshot.time_ns)}{reset} {where}  {head_colour}{reward}{reset}"
    if parts:
        line += f"  {dim}" + " · ".join(parts) + reset
    if tail:
        line += f"  {red}{tail}{reset}"
    if snapshot.recovered:
        line += f"  {dim}(recovered){reset}"
    return line


def snapshot_tree(snapshot: NeuralSnapshot, *, text_limit: int = 200, ranked: bool = False) -> Tree:
    """A rich tree: what was scored, and each node with score, status, duration and explanation."""
    from rich.text import Text
    from rich.tree import Tree

    title = Text()
    title.append(printable(snapshot.session_name), style="bold")
    title.append(f"  episode {printable(snapshot.episode_id)}  step {snapshot.step}")
    if snapshot.rank or ranked:
        title.append(f"  rank {snapshot.rank}")
    if snapshot.group_id is not None:
        title.append(f"  group {snapshot.group_id}")
    if snapshot.sample_index is not None:
        title.append(f"  sample {snapshot.sample_index}")
    title.append(f"  {_moment(snapshot.time_ns)}", style="dim")
    tree = Tree(title, guide_style="dim")
    for label in ("observation", "action"):
        value = getattr(snapshot, label)
        if value is not None:
            line = Text(f"{label} ", style="dim")
            line.append(printable(value, text_limit), style="default")
            tree.add(line)
    if snapshot.metadata:
        line = Text("metadata ", style="dim")
        shown = ", ".join(f"{printable(k)}={printable(v, 60)}" for k, v in snapshot.metadata.items())
        line.append(shown, style="default")
        tree.add(line)

    where_failed = set(failures(snapshot))
    branches: dict[str, Tree] = {}
    for path in sorted(snapshot.statuses, key=lambda path: path != ROOT):
        parent, name = _parent(path, branches)
        branches[path] = (branches[parent] if parent else tree).add(
            _node(snapshot, path, name, path in where_failed)
        )
    return tree


def _parent(path: str, known: Iterable[str]) -> tuple[str, str]:
    """The nearest node above that the snapshot holds, and the name below it."""
    if path == ROOT:
        return "", ROOT
    at = len(path)
    while (at := path.rfind(".", 0, at)) > 0:
        if path[:at] in known:
            return path[:at], path[at + 1 :]
    return (ROOT, path) if ROOT in known else ("", path)


def _node(snapshot: NeuralSnapshot, path: str, name: str, tell_reason: bool) -> Any:
    from rich.text import Text

    status = snapshot.statuses[path]
    line = Text(printable(name) + "  ")
    if status == "scored":
        line.append(number(snapshot.scores.get(path)), style="bold green" if path == ROOT else "green")
    elif status == "failed":
        line.append("✗ failed", style="red")
    else:
        line.append(status, style="dim")
    taken = snapshot.durations_ns.get(path)
    if taken and status != "skipped":
        line.append(f"  {duration(taken)}", style="dim")
    if path in snapshot.calls:
        line.append(f"  ×{snapshot.calls[path]}", style="dim")
    if tell_reason and path in snapshot.reasons:
        line.append(f"  {printable(snapshot.reasons[path], 200)}", style="red")
    if path in snapshot.explanations:
        line.append(f"  {printable(snapshot.explanations[path], 200)}", style="italic")
    if path in snapshot.score_metadata:
        shown = ", ".join(
            f"{printable(k)}={printable(v, 60)}" for k, v in snapshot.score_metadata[path].items()
        )
        line.append(f"  {shown}", style="dim")
    return line


def _moment(time_ns: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_ns / 1e9):%Y-%m-%d} {clock(time_ns)}"


def sparkline(
    values: Sequence[float] | npt.NDArray[np.float64], width: int = 24, *, ascii_only: bool = False
) -> str:
    """``values`` as a row of at most ``width`` bars, each the mean of an equal share of them.

    Scaled between their least and greatest; a constant row is drawn at half height.
    """
    n = len(values)
    if n == 0:
        return ""
    width = min(width, n)
    means = []
    for bar in range(width):
        share = values[bar * n // width : (bar + 1) * n // width]
        means.append(math.fsum(float(value) for value in share) / len(share))
    low, high = min(means), max(means)
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        return blocks[3] * width
    top = len(blocks) - 1
    return "".join(blocks[round((mean - low) / (high - low) * top)] for mean in means)


@dataclass(slots=True)
class Column:
    """A column of a table that must fit: those of the greatest ``priority`` are left out first, 0 never."""

    header: str
    priority: int = 0
    right: bool = True
    style: str = ""
    cells: list[Any] = field(default_factory=list)


def fitted_table(
    columns: Sequence[Column], width: int, *, sections: Iterable[int] = (), title: str = ""
) -> Table:
    """A table of as many of ``columns`` as ``width`` characters hold: a cut number would be a wrong one.

    ``sections`` are the indices of the rows after which a gap is left.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    shown = list(columns)

    def needed() -> int:
        widths = (max(cell_len(str(cell)) for cell in (one.header, *one.cells)) for one in shown)
        return sum(widths) + 3 * len(shown) + 1

    while needed() > width and any(one.priority for one in shown):
        shown.remove(max(reversed(shown), key=lambda one: one.priority))
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")
    for one in shown:
        table.add_column(
            one.header, justify="right" if one.right else "left", style=one.style, overflow="fold"
        )
    gaps = set(sections)
    for index, row in enumerate(zip(*(one.cells for one in shown), strict=True)):
        table.add_row(*row, end_section=index in gaps)
    return table


def is_terminal(file: Any) -> bool:
    """Whether coloured, redrawn output makes sense there."""
    isatty = getattr(file, "isatty", None)
    return bool(isatty and isatty()) and os.environ.get("TERM") != "dumb"


def colour_wanted(file: Any) -> bool:
    """A terminal, and no ``NO_COLOR`` in the environment (no-color.org)."""
    return is_terminal(file) and not os.environ.get("NO_COLOR")


_PLAIN = str.maketrans(
    {"–": "-", "−": "-", "→": "->", "…": "...", "✗": "x", "×": "x", "·": ".", "µ": "u", "Δ": "d"}
)


def _plainer(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_PLAIN)
    return text.encode("ascii", "backslashreplace").decode("ascii"), error.end


#: Name of a codec error handler: our own signs in ASCII, other characters as escapes.
PLAINER = "rubriscope.plainer"
codecs.register_error(PLAINER, _plainer)


def encodable(text: str, file: Any) -> str:
    """``text`` with what the file's encoding cannot hold in ASCII."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    return text.encode(encoding, PLAINER).decode(encoding)
