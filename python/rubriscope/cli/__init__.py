"""The ``rubriscope`` command. One module a subcommand; ``app`` holds the parser."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 done, 1 a finding or a failure, 2 wrong usage or no such thing."""
    from .app import run

    return run(argv)


__all__ = ["main"]
