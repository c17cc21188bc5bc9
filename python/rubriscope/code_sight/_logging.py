"""Observations that a program makes itself: messages, texts and statistics of tensors."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from .. import _C

if TYPE_CHECKING:
    import torch

LEVELS = ("debug", "info", "warning", "error")
TENSOR_VALUES = ("count", "mean", "std", "min", "max", "nan", "inf", "zero")

_schemas: dict[tuple[str, str, str, str | None], int] = {}  # by writer, kind, target and modality


def emit(
    kind: str,
    target: str,
    values: dict[str, float],
    fields: dict[str, Any],
    outcome: str = "success",
    *,
    modality: str | None = None,
    ids: tuple[str, str] | None = None,
    duration_ns: int = 0,
    metadata_json: str = "",
) -> bool:
    """Records one; False when no recorder is open or it refused.

    Args:
        kind: Its attribute ``type``. One kind has the same names of values and fields every time.
        fields: None: it has none of this name.
        ids: Of its trace and of the span it stands in; left out, those of this context.
    """
    recorder = _C.sight_recorder()
    if recorder is None:
        return False
    key = (str(recorder.writer_id), kind, target, modality)
    schema = _schemas.get(key)
    if schema is None:
        attributes = {"type": kind} | ({} if modality is None else {"modality": modality})
        names = [*fields, "trace_id", "parent_id"]
        schema = recorder.define_event(
            target, json.dumps(attributes, separators=(",", ":")), list(values), names
        )
        _schemas[key] = schema
    places = enumerate([*fields.values(), *(ids or _C._trace_ids() or ())])
    return bool(
        recorder.emit_event(
            "observation",
            schema,
            values=list(values.values()),
            fields={place: value for place, value in places if value is not None},
            outcome=outcome,
            duration_ns=duration_ns,
            metadata_json=metadata_json,
        )
    )


def log_log(target: str, message: str, level: str = "info") -> bool:
    """Records a message; level ``error`` gives the event the outcome ``error``."""
    if level not in LEVELS:
        raise ValueError(f"no level {level!r} (there are {', '.join(LEVELS)})")
    outcome = "error" if level == "error" else "success"
    return emit("log", target, {}, {"message": str(message), "level": level}, outcome)


def log_text(target: str, text: str) -> bool:
    """Records a text as it is."""
    if not isinstance(text, str):
        raise TypeError(f"log_text takes a str, got {type(text).__name__}")
    return emit("text", target, {}, {"text": text})


def log_tensor(target: str, tensor: torch.Tensor) -> bool:
    """Records what :func:`rubriscope.ops.tensor_stats` finds of a tensor, read once where it lies."""
    if _C.sight_recorder() is None:
        return False
    from ..ops import tensor_stats

    stats = tensor_stats(tensor)
    # Two small copies from the device, instead of one a number.
    import torch

    moments = torch.stack([stats.mean, stats.variance, stats.min, stats.max]).tolist()
    special = torch.stack([stats.count, stats.nan_count, stats.inf_count, stats.zero_count])
    count, nan, inf, zero, *histogram = torch.cat([special, stats.histogram]).tolist()
    mean, variance, least, greatest = moments
    numbers = (count, mean, math.sqrt(variance) if variance >= 0 else math.nan, least, greatest)
    values = dict(zip(TENSOR_VALUES, (*numbers, nan, inf, zero), strict=True))
    fields = {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "device": str(tensor.device),
        "histogram": histogram,
    }
    return emit("tensor", target, values, fields)
