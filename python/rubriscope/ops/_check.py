"""Checks of operator arguments: an exception of the right type that names the argument and its value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ._load import require_device

FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def floating(tensor: Any, name: str) -> torch.Tensor:
    """The argument if it is a tensor of a floating dtype on a supported device.

    Raises:
        TypeError: it is no tensor, or of another dtype.
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} is a {type(tensor).__name__}, expected a torch.Tensor")
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name} has dtype {tensor.dtype}, expected float32, float64, float16 or bfloat16")
    require_device(tensor, name)
    return tensor


def same_place(first: torch.Tensor, first_name: str, second: torch.Tensor, second_name: str) -> None:
    """Raises unless both tensors have one dtype and one device.

    Raises:
        TypeError: the dtypes differ.
        ValueError: the devices differ.
    """
    if first.dtype != second.dtype:
        raise TypeError(f"{second_name} has dtype {second.dtype}, expected {first.dtype} as {first_name} has")
    if first.device != second.device:
        raise ValueError(f"{second_name} is on {second.device}, expected {first.device} as {first_name} is")


def positive_spacing(spacing: Sequence[float] | float, dimensions: int, name: str = "spacing") -> list[float]:
    """One positive finite number per dimension; a single number counts for each.

    Raises:
        ValueError: another count, or a number that is not positive and finite.
    """
    numbers = (
        [float(spacing)] * dimensions if isinstance(spacing, (int, float)) else [float(s) for s in spacing]
    )
    if len(numbers) != dimensions:
        raise ValueError(f"{name} has {len(numbers)} entries, expected {dimensions}, one per dimension")
    for number in numbers:
        if not 0 < number < float("inf"):
            raise ValueError(f"{name} holds {number}, expected positive finite numbers")
    return numbers


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """What the kernels compute in: half types are upcast to float32."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
