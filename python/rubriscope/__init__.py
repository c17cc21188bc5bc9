"""rubriscope: score, observe, record and replay what a training run does.

Rubrics are reward functions composed as a tree; an observer turns every call into one snapshot; a recorder
brings snapshots into sinks; a film reads them back.
"""

from __future__ import annotations

import os as _os
from typing import TYPE_CHECKING, Any

from ._torch_check import check_torch as _check_torch

_check_torch()

from ._C import Rubric  # noqa: E402
from ._paths import cmake_prefix_path  # noqa: E402
from ._version import __version__  # noqa: E402
from .containers import Gate, RubricDict, RubricList, Sequential, WeightedSum  # noqa: E402
from .errors import FailClosed, FormatError, RubriscopeError, SealedError, SinkError  # noqa: E402
from .judge import LLMJudge  # noqa: E402
from .score import Score  # noqa: E402
from .snapshot import NeuralSnapshot  # noqa: E402
from .targets import DatabaseSink, JSONLSink  # noqa: E402
from .trajectory import ExponentialDiscountingTrajectoryRubric, TrajectoryRubric  # noqa: E402

if TYPE_CHECKING:
    from . import adapters, ledger, native, ops, tracer
    from .code_sight import (
        Injection,
        Modality,
        MultimodalTracer,
        PointStats,
        TokenPrice,
        get_code_sight,
        metric,
        sight,
        sight_point,
    )
    from .film import Film
    from .ledger import Ledger, verify_consistency, verify_inclusion
    from .observer import RubricObserver
    from .openai_client import JudgeError, OpenAICompatibleClient
    from .physical import HausdorffRubric, PhysicsResidualRubric
    from .recorder import Recorder, RecorderStats, SinkStats, record
    from .sinks.console import ConsoleSink
    from .sinks.mlflow import MLflowSink
    from .sinks.otlp import OTLPSink
    from .sinks.parquet import ParquetSink
    from .sinks.redis_stream import RedisStreamSink
    from .sinks.tensorboard import TensorBoardSink
    from .sinks.wandb import WandBSink
    from .sql import connect
    from .vault import EncryptedDatabaseSink
    from .watching import Watch, watch

# Imported on first use: they need an optional package, are not needed to train, or only to record (a command
# that reads starts without them).
_LAZY = {
    "ConsoleSink": ".sinks.console",
    "EncryptedDatabaseSink": ".vault",
    "Film": ".film",
    "HausdorffRubric": ".physical",
    "Ledger": ".ledger",
    "PhysicsResidualRubric": ".physical",
    "Recorder": ".recorder",
    "RecorderStats": ".recorder",
    "RubricObserver": ".observer",
    "SinkStats": ".recorder",
    "Watch": ".watching",
    "JudgeError": ".openai_client",
    "MLflowSink": ".sinks.mlflow",
    "OTLPSink": ".sinks.otlp",
    "OpenAICompatibleClient": ".openai_client",
    "ParquetSink": ".sinks.parquet",
    "RedisStreamSink": ".sinks.redis_stream",
    "TensorBoardSink": ".sinks.tensorboard",
    "WandBSink": ".sinks.wandb",
    "adapters": ".adapters",
    "connect": ".sql",
    "Injection": ".code_sight",
    "Modality": ".code_sight",
    "MultimodalTracer": ".code_sight",
    "PointStats": ".code_sight",
    "TokenPrice": ".code_sight",
    "get_code_sight": ".code_sight",
    "metric": ".code_sight",
    "sight": ".code_sight",
    "sight_point": ".code_sight",
    "ledger": ".ledger",
    "native": ".native",
    "ops": ".ops",
    "record": ".recorder",
    "tracer": ".tracer",
    "verify_consistency": ".ledger",
    "verify_inclusion": ".ledger",
    "watch": ".watching",
}

__all__ = [
    "ConsoleSink",
    "DatabaseSink",
    "EncryptedDatabaseSink",
    "ExponentialDiscountingTrajectoryRubric",
    "FailClosed",
    "Film",
    "FormatError",
    "Gate",
    "HausdorffRubric",
    "Injection",
    "JSONLSink",
    "JudgeError",
    "LLMJudge",
    "Ledger",
    "MLflowSink",
    "Modality",
    "MultimodalTracer",
    "NeuralSnapshot",
    "OTLPSink",
    "OpenAICompatibleClient",
    "ParquetSink",
    "PhysicsResidualRubric",
    "PointStats",
    "Recorder",
    "RecorderStats",
    "RedisStreamSink",
    "Rubric",
    "RubricDict",
    "RubricList",
    "RubricObserver",
    "RubriscopeError",
    "Score",
    "SealedError",
    "Sequential",
    "SinkError",
    "SinkStats",
    "TensorBoardSink",
    "TokenPrice",
    "TrajectoryRubric",
    "WandBSink",
    "Watch",
    "WeightedSum",
    "__version__",
    "adapters",
    "cmake_prefix_path",
    "connect",
    "get_code_sight",
    "ledger",
    "metric",
    "native",
    "ops",
    "record",
    "sight",
    "sight_point",
    "tracer",
    "verify_consistency",
    "verify_inclusion",
    "watch",
]


if _os.environ.get("RUBRISCOPE_SIGHT", "0") not in ("", "0"):
    from .code_sight import listen_as_told as _listen_as_told

    _listen_as_told()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'rubriscope' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(_LAZY[name], __name__)
    return module if name in ("adapters", "ledger", "native", "ops", "tracer") else getattr(module, name)
