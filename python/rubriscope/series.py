"""A column of a film: the scores of one rubric, or the values of one logged scalar, over a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

#: The codes in :attr:`ScoreSeries.status`; the same as in the record format.
SKIPPED, SCORED, FAILED = 0, 1, 2
STATUS_NAMES: tuple[str, ...] = ("skipped", "scored", "failed")

#: What stands in ``group`` and ``sample`` where a record has none.
NO_GROUP = int(np.iinfo(np.int64).min)
NO_SAMPLE = -1

Kind = Literal["rubric", "scalar"]


@dataclass(slots=True, eq=False)
class ScoreSeries:
    """One path's values, one entry a record, in the film's order. All arrays have the same length n.

    ``len(series)`` is n. A skipped or failed entry has NaN as its score.
    """

    path: str
    kind: Kind
    step: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint8]  #: 0 skipped, 1 scored, 2 failed
    time_ns: npt.NDArray[np.int64]  #: wall clock, ns since the Unix epoch
    sequence: npt.NDArray[np.int64]  #: the record's number within its writer
    writer: npt.NDArray[np.int64]  #: the writing process: an index into Film.writers()
    rank: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]  #: NO_GROUP where there is none
    sample: npt.NDArray[np.int64]  #: -1 where there is none
    duration_ns: npt.NDArray[np.int64]  #: 0 for scalars

    @classmethod
    def from_columns(cls, path: str, kind: Kind, columns: Mapping[str, npt.NDArray[Any]]) -> ScoreSeries:
        """Takes a reader's columns; those that a scalar has no use for may be absent."""
        score = np.asarray(columns["score"], dtype=np.float64)
        n = len(score)

        def column(name: str, dtype: Any, default: int) -> npt.NDArray[Any]:
            if name in columns:
                return np.asarray(columns[name], dtype=dtype)
            return np.full(n, default, dtype=dtype)

        return cls(
            path=path,
            kind=kind,
            step=column("step", np.int64, 0),
            score=score,
            status=column("status", np.uint8, SCORED),
            time_ns=column("time_ns", np.int64, 0),
            sequence=column("sequence", np.int64, 0),
            writer=column("writer", np.int64, 0),
            rank=column("rank", np.int64, 0),
            group=column("group", np.int64, NO_GROUP),
            sample=column("sample", np.int64, NO_SAMPLE),
            duration_ns=column("duration_ns", np.int64, 0),
        )

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        stats = self.summary()
        mean = "no score" if stats.mean is None else f"mean {stats.mean:.6g}"
        return f"<ScoreSeries {self.path!r}: {stats.n} scored, {mean}, {stats.failed} failed>"

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Mask over the entries that have a finite value, shape (n,)."""
        mask: npt.NDArray[np.bool_] = (self.status == SCORED) & np.isfinite(self.score)
        return mask

    @property
    def statuses(self) -> list[str]:
        """The status of each entry by name."""
        return [STATUS_NAMES[code] for code in self.status]

    def of_rank(self, rank: int) -> ScoreSeries:
        """What one rank of a distributed run recorded, as a series called ``path @ rank N``."""
        mine = self.rank == rank
        columns = {name: getattr(self, name)[mine] for name in self.__slots__ if name not in ("path", "kind")}
        return ScoreSeries(path=f"{self.path} @ rank {rank}", kind=self.kind, **columns)

    def by_step(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The steps that have a value, ascending, and the mean value at each; shapes (k,) and (k,)."""
        scored = self.scored
        steps, values = self.step[scored], self.score[scored]
        unique, inverse, counts = np.unique(steps, return_inverse=True, return_counts=True)
        totals = np.bincount(inverse, weights=values, minlength=len(unique))
        return unique, totals / np.maximum(counts, 1)

    def summary(self, bins: int = 24, steps: tuple[int, int] | None = None) -> Summary:
        """Count, mean, spread, failures, and the course over ``bins`` equal shares of the steps.

        ``steps`` are the first and the last step to share out; left out, the series' own.
        """
        values = self.score[self.scored]
        n = len(values)
        durations = self.duration_ns[self.status != SKIPPED]
        has_durations = self.kind == "rubric" and len(durations) > 0
        return Summary(
            path=self.path,
            kind=self.kind,
            n=n,
            mean=float(values.mean()) if n else None,
            std=_std(values) if n > 1 else None,
            min=float(values.min()) if n else None,
            max=float(values.max()) if n else None,
            curve=self._curve(bins, steps),
            skipped=int((self.status == SKIPPED).sum()),
            failed=int((self.status == FAILED).sum()),
            mean_duration_ns=float(durations.mean()) if has_durations else None,
        )

    def _curve(self, bins: int, steps: tuple[int, int] | None) -> tuple[float, ...]:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, not {bins}")
        scored = self.scored
        if not scored.any():
            return ()
        low, high = steps or (int(self.step.min()), int(self.step.max()))
        bins = min(bins, high - low + 1)
        share = ((self.step[scored] - low) * bins) // (high - low + 1)
        counts = np.bincount(share, minlength=bins)
        totals = np.bincount(share, weights=self.score[scored], minlength=bins)
        has_value = counts > 0
        return tuple((totals[has_value] / counts[has_value]).tolist())


def _std(values: npt.NDArray[np.float64]) -> float:
    """Sample standard deviation; exactly 0 for a constant, whose mean may round to its neighbour."""
    return 0.0 if values.min() == values.max() else float(values.std(ddof=1))


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one series. ``std`` is the sample standard deviation (n − 1); None where undefined."""

    path: str
    kind: Kind
    n: int  #: entries with a finite value
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    curve: tuple[float, ...]  #: mean over each equal share of the steps that has a value
    skipped: int
    failed: int
    mean_duration_ns: float | None  #: over the calls that were not skipped; None for scalars

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        result: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        result["curve"] = list(self.curve)
        return result
