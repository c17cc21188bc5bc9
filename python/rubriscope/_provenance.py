"""What an auditor asks of a run: command line, code version, packages, machine, place in a job."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
from typing import Any

from ._version import __version__

_PACKAGES = (
    "torch",
    "numpy",
    "transformers",
    "trl",
    "verl",
    "openenv-core",
    "accelerate",
    "deepspeed",
    "vllm",
    "ray",
)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, or no repository here: the record says so by leaving it out
    return done.stdout.strip()


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def collect() -> dict[str, Any]:
    """Facts about this process; JSON-able. Takes some milliseconds (it asks git)."""
    facts: dict[str, Any] = {
        "version": __version__,
        "argv": list(sys.argv),
        "cwd": os.getcwd(),
        "python": platform.python_version(),
        "packages": _packages(),
        "machine": {
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
        },
    }
    commit = _git("rev-parse", "HEAD")
    if commit is not None:
        facts["git"] = {
            "commit": commit,
            "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        }
    return facts


_acting_as: tuple[int, int] | None = None


def act_as(rank: int, world_size: int) -> None:
    """Fixes this process's rank: it is one of a pool that no launcher knows of."""
    global _acting_as
    _acting_as = (rank, world_size)


def rank_and_world_size() -> tuple[int, int]:
    """(rank, number of ranks): a pool's, torch.distributed's, else RANK and WORLD_SIZE, else (0, 1)."""
    if _acting_as is not None:
        return _acting_as
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
