"""What First Light can be asked for. Imports nothing heavy: the command line's parser is built from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

MODES = ("first_light", "stress", "both")
INJECTIONS = ("drift", "latency", "corruption")

DESCRIPTION = """\
Train a physics-informed network on a car's manoeuvres and let it follow the car for 100 ticks of 10 ms.
Three sight points watch: the state estimate of every tick (simulation), a scan of the car's contour against
the twin's at every 10th (vision_processing) and a replayed event at every 5th (inference). What is printed is
read from the recording, and its ledger is verified.
"""

EPILOG = """\
examples:
  rubriscope demo first-light
  rubriscope demo first-light --inject drift
  rubriscope demo first-light --mode stress --observations 20000
  rubriscope show first_light.db

The limits: 1.2 ms a state estimate, 0.045 m between the contours (the origin's 0.045 nm is below float32's
rounding on such a path), every event byte for byte the same and counted once, 0.1 ms an observation (stress).
Exits with 0 when all are kept, with 1 when one is not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the demo."""
    parser.add_argument("--mode", choices=MODES, default="first_light", help="what to run (first_light)")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="of manoeuvres and training (0)")
    parser.add_argument("--inject", choices=INJECTIONS, help="a violation to be found")
    parser.add_argument(
        "--db",
        type=Path,
        default=Path("first_light.db"),
        metavar="PATH",
        help="the recording (first_light.db)",
    )
    parser.add_argument(
        "--model",
        type=Path,
        metavar="PATH",
        help="use the network kept here; trained and kept where there is none",
    )
    parser.add_argument("--steps", type=_count, metavar="N", help="optimiser steps of the training (4000)")
    parser.add_argument(
        "--observations", type=_count, default=5000, metavar="N", help="of each modality, for stress (5000)"
    )


def _seed(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1_000_000:
        raise argparse.ArgumentTypeError(f"{value} is not between 0 and 999999")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """First Light as a program of its own."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=EPILOG.replace("rubriscope demo first-light", "python examples/first_light.py"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    from .app import run

    try:
        return run(arguments)
    except (OSError, ValueError) as error:
        print(f"first_light: {error}", file=sys.stderr)
        return 2
