"""rubriscope: score, observe, record and replay what a training run does.

Rubrics are reward functions composed as a tree; an observer turns every call into one snapshot; a recorder
brings snapshots into sinks; a film reads them back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._torch_check import check_torch as _check_torch

_check_torch()

from ._C import Rubric  # noqa: E402
from ._paths import cmake_prefix_path  # noqa: E402
from ._version import __version__  # noqa: E402
from .containers import Gate, RubricDict, RubricList, Sequential, WeightedSum  # noqa: E402
from .errors import FormatError, RubriscopeError, SinkError  # noqa: E402
from .judge import LLMJudge  # noqa: E402
from .observer import RubricObserver  # noqa: E402
from .recorder import Recorder, RecorderStats, SinkStats, record  # noqa: E402
from .score import Score  # noqa: E402
from .snapshot import NeuralSnapshot  # noqa: E402
from .targets import DatabaseSink, JSONLSink  # noqa: E402
from .trajectory import ExponentialDiscountingTrajectoryRubric, TrajectoryRubric  # noqa: E402

if TYPE_CHECKING:
    from . import adapters, native
    from .film import Film
    from .openai_client import JudgeError, OpenAICompatibleClient
    from .sinks.console import ConsoleSink
    from .sql import connect

# Imported on first use: they need an optional package, or are not needed to train.
_LAZY = {
    "ConsoleSink": ".sinks.console",
    "Film": ".film",
    "JudgeError": ".openai_client",
    "OpenAICompatibleClient": ".openai_client",
    "adapters": ".adapters",
    "connect": ".sql",
    "native": ".native",
}

__all__ = [
    "ConsoleSink",
    "DatabaseSink",
    "ExponentialDiscountingTrajectoryRubric",
    "Film",
    "FormatError",
    "Gate",
    "JSONLSink",
    "JudgeError",
    "LLMJudge",
    "NeuralSnapshot",
    "OpenAICompatibleClient",
    "Recorder",
    "RecorderStats",
    "Rubric",
    "RubricDict",
    "RubricList",
    "RubricObserver",
    "RubriscopeError",
    "Score",
    "Sequential",
    "SinkError",
    "SinkStats",
    "TrajectoryRubric",
    "WeightedSum",
    "__version__",
    "adapters",
    "cmake_prefix_path",
    "connect",
    "native",
    "record",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rubriscope' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LAZY[name], __name__)
    return module if name in ("adapters", "native") else getattr(module, name)
