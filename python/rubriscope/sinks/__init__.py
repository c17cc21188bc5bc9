"""Sinks written in Python. Each takes batches of snapshots on the drain thread; see CONTRIBUTING.md."""

from __future__ import annotations

from .console import ConsoleSink

__all__ = ["ConsoleSink"]
