"""Writes python/rubriscope/_C.pyi from the built extension, or checks that it is current (--check)."""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "python/rubriscope/_C.pyi"


def generate() -> str:
    """The stub's text: pybind11-stubgen's output, formatted as the rest of the tree is."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "rubriscope._C", "--output-dir", folder], check=True
        )
        stub = Path(folder) / "rubriscope/_C.pyi"
        ruff = [sys.executable, "-m", "ruff"]
        quiet = ["-q", "--config", str(ROOT / "pyproject.toml"), str(stub)]
        subprocess.run([*ruff, "check", "--fix", "--select", "I,UP,F401", *quiet], check=True)
        subprocess.run([*ruff, "format", *quiet], check=True)
        return stub.read_text()


def main() -> int:
    """Returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        STUB.write_text(generate())
        return 0
    current = STUB.read_text() if STUB.exists() else ""
    difference = list(
        difflib.unified_diff(
            current.splitlines(), generate().splitlines(), str(STUB), "the extension", "", "", 1
        )
    )
    if difference:
        print(*difference, sep="\n")
        print("The stub is not current: make stubs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
