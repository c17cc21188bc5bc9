"""Loads the operator libraries into torch, once, and says clearly why where that fails."""

from __future__ import annotations

from pathlib import Path

import torch

_LIBRARIES = Path(__file__).resolve().parents[1] / "lib"

#: Whether the CUDA operators are loaded.
has_cuda = False


def _load(path: Path) -> None:
    if not path.is_file():
        raise ImportError(
            f"rubriscope's operators are not built ({path} is missing): reinstall with "
            "pip install --no-build-isolation --force-reinstall --no-deps rubriscope"
        )
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"rubriscope's operators in {path} do not load into torch {torch.__version__}: {error}\n"
            "Likely causes: torch is older than 2.10; the package was built on a machine with a newer C++ "
            "library; or torch was replaced by one of another kind. Reinstalling rubriscope builds them anew."
        ) from error


def _load_all() -> None:
    global has_cuda
    _load(_LIBRARIES / "librubriscope_ops.so")
    plugin = _LIBRARIES / "librubriscope_cuda.so"
    if torch.version.cuda is not None and plugin.is_file():
        _load(plugin)
        has_cuda = True


def require_device(tensor: torch.Tensor, name: str) -> None:
    """Raises unless the operators have a kernel for the tensor's device.

    Raises:
        ValueError: the tensor is neither on the CPU nor on a CUDA device.
        RuntimeError: it is on a CUDA device and this installation has no CUDA kernels.
    """
    kind = tensor.device.type
    if kind == "cpu" or kind == "meta" or (kind == "cuda" and has_cuda):
        return
    if kind == "cuda":
        raise RuntimeError(
            f"{name} is on {tensor.device} and rubriscope was built without CUDA kernels: reinstall it where "
            "nvcc is on PATH (RUBRISCOPE_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps "
            "rubriscope), or move the tensor to the CPU"
        )
    raise ValueError(f"{name} is on {tensor.device}, expected a CPU or CUDA tensor")


_load_all()
