"""Which torch is here, told from its files: importing torch takes seconds, reading version.py does not.

setup.py loads this file by path, so it uses the standard library alone.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

#: The first torch whose stable ABI rubriscope targets. There is no upper bound: what is built on that ABI
#: serves later releases unchanged.
MINIMUM_TORCH = (2, 10)

#: The same range as a requirement, as pyproject.toml states it.
TORCH_REQUIREMENT = "torch>=" + ".".join(map(str, MINIMUM_TORCH))


@dataclass(frozen=True)
class Torch:
    """A torch package found on disk."""

    folder: Path
    version: str
    cuda: str | None  #: the CUDA release it was built for, None for a CPU build

    @property
    def supported(self) -> bool:
        """Whether the version lies in the supported range; a version that cannot be read does not."""
        number = re.match(r"(\d+)\.(\d+)", self.version)
        return number is not None and (int(number[1]), int(number[2])) >= MINIMUM_TORCH


def read_torch(folder: Path) -> Torch | None:
    """The torch in a package folder, read from its version.py; None when there is none."""
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"^__version__\s*(?::[^=\n]*)?=\s*['\"]([^'\"]+)", text, re.M)
    cuda = re.search(r"^cuda\s*(?::[^=\n]*)?=\s*['\"]([^'\"]+)", text, re.M)
    return Torch(folder, version[1], cuda[1] if cuda else None) if version else None


def find_torch() -> Torch | None:
    """The torch that `import torch` would load, without importing it; None when there is none."""
    loaded = sys.modules.get("torch")
    if loaded is not None and getattr(loaded, "__file__", None):
        return read_torch(Path(str(loaded.__file__)).parent)
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    return read_torch(Path(spec.origin).parent)


def check_torch() -> None:
    """Raises ImportError, one line that says what to do, unless a supported torch is installed."""
    torch = find_torch()
    if torch is None:
        raise ImportError(
            f"rubriscope needs {TORCH_REQUIREMENT} and found none: pip install '{TORCH_REQUIREMENT}'"
        )
    if not torch.supported:
        raise ImportError(
            f"rubriscope needs {TORCH_REQUIREMENT} and found {torch.version} in {torch.folder}: "
            f"pip install --upgrade '{TORCH_REQUIREMENT}'"
        )
