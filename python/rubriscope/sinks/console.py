"""The console sink: a readable line for each snapshot, and now and then the whole tree."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from ..render import colour_wanted, encodable, is_terminal, number, printable, snapshot_line, snapshot_tree
from ..snapshot import NeuralSnapshot

#: On a terminal, the shortest time between two trees, in seconds.
TREE_INTERVAL_S = 5.0


class ConsoleSink:
    """Prints snapshots to ``file`` (standard output, as it is at the time of writing, when left out).

    ``every=n`` prints one snapshot in n; those with a failure are always printed. ``tree`` says whether the
    latest snapshot is also drawn as a tree, at most every 5 seconds and once at the end; left out, it is
    where ``file`` is a terminal. Snapshots recovered from a process that died are not printed.

    Raises ``ValueError`` for ``every`` below 1.
    """

    #: The recorder asks this before it delivers recovered snapshots.
    wants_recovered = False

    def __init__(self, file: TextIO | None = None, every: int = 1, tree: bool | None = None) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, not {every}")
        self._file = file
        self._every = every
        self._tree = tree
        self._seen = 0
        self._latest: NeuralSnapshot | None = None  # not drawn yet
        self._drawn_at = -TREE_INTERVAL_S

    @property
    def file(self) -> TextIO:
        """Where it prints."""
        return self._file if self._file is not None else sys.stdout

    def write(self, batch: Sequence[NeuralSnapshot]) -> None:
        """Prints a batch."""
        file = self.file
        colour = colour_wanted(file)
        width = shutil.get_terminal_size().columns if is_terminal(file) else None
        lines = []
        for snapshot in batch:
            if snapshot.recovered:
                continue
            due = self._seen % self._every == 0
            self._seen += 1
            if due or "failed" in snapshot.statuses.values():
                lines.append(snapshot_line(snapshot, colour=colour, width=width))
            self._latest = snapshot
        if lines:
            file.write(encodable("\n".join(lines) + "\n", file))
            file.flush()
        if self._latest is not None and self._wants_tree(file):
            now = time.monotonic()
            if now - self._drawn_at >= TREE_INTERVAL_S:
                self._drawn_at = now
                self._draw(file)

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Prints the scalars of one ``recorder.log`` call."""
        file = self.file
        text = "  ".join(f"{printable(name)} {number(value)}" for name, value in values.items())
        file.write(encodable(f"step {step}  {text}\n", file))
        file.flush()

    def close(self) -> None:
        """Draws the last snapshot's tree, unless it is the one drawn last."""
        if self._latest is not None and self._wants_tree(self.file):
            self._draw(self.file)

    def _wants_tree(self, file: TextIO) -> bool:
        return is_terminal(file) if self._tree is None else self._tree

    def _draw(self, file: TextIO) -> None:
        from rich.console import Console

        assert self._latest is not None
        width = None if is_terminal(file) else 120
        Console(file=file, width=width, highlight=False).print(snapshot_tree(self._latest))
        file.flush()
        self._latest = None
