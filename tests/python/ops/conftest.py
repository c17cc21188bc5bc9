"""Fixtures of the operators' tests."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device there is; with FAIL_WITHOUT_CUDA=1 a missing GPU fails instead of skipping."""
    if request.param == "cuda" and not torch.cuda.is_available():
        if os.environ.get("FAIL_WITHOUT_CUDA") == "1":
            pytest.fail("FAIL_WITHOUT_CUDA=1 and torch sees no CUDA device")
        pytest.skip("no CUDA device")
    return torch.device(request.param)
