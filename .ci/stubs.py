"""Writes python/rubriscope/_C.pyi, or checks that it is current and true of the extension (--check).

pybind11-stubgen tells what pybind11 bound; csrc/binding/rubric_type.pyi tells the rest, and is compared with
the extension name by name.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUB = ROOT / "python/rubriscope/_C.pyi"
BY_HAND = ROOT / "csrc/binding/rubric_type.pyi"

#: What pybind11 says at length or leaves open, and how a person (and mypy --strict) wants it.
SHORTER = (
    (r"typing\.SupportsInt \| typing\.SupportsIndex", "int"),
    (r"typing\.SupportsFloat \| typing\.SupportsIndex", "float"),
    (r"os\.PathLike \| str \| bytes", "os.PathLike[str] | str"),
    (r"\bdict\b(?!\[)", "dict[str, typing.Any]"),
    (r"(?<=[:>] )list\b(?!\[)", "list[typing.Any]"),
    (r"def __iter__\(self\) -> typing\.Any", "def __iter__(self) -> typing.Self"),
)


def names_of(node: ast.stmt) -> set[str]:
    """The names a top-level statement of a stub defines or imports."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return {name}
        case ast.ImportFrom(names=names):
            return {alias.asname or alias.name for alias in names}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def without(text: str, drop: Callable[[ast.stmt], bool]) -> str:
    """A stub's text without the top-level statements that `drop` picks."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if drop(node):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines)


def merge(generated: str, by_hand: str) -> str:
    """The generated stub with the classes and functions of `by_hand` in place of its own of those names."""
    hand = {name for node in ast.parse(by_hand).body for name in names_of(node)} | {"__all__"}
    generated = without(generated, lambda node: bool(names_of(node) & hand))
    both = (by_hand, generated)
    imports = [
        ast.unparse(node)
        for text in both
        for node in ast.parse(text).body
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__"
    ]
    # Not the module's own docstring: it is no longer first.
    bodies = [
        without(text, lambda node: isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)) for text in both
    ]
    text = "\n".join(["# Made by `make stubs`; edit csrc/binding instead.", *dict.fromkeys(imports), *bodies])
    for pattern, replacement in SHORTER:
        text = re.sub(pattern, replacement, text)
    return text


def generate() -> str:
    """The stub's text, formatted as the rest of the tree is."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "rubriscope._C", "--output-dir", folder], check=True
        )
        stub = Path(folder) / "rubriscope/_C.pyi"
        stub.with_name("__init__.py").touch()  # ruff then sorts imports as in the package itself
        stub.write_text(merge(stub.read_text(), BY_HAND.read_text()))
        ruff = [sys.executable, "-m", "ruff"]
        quiet = ["-q", "--config", str(ROOT / "pyproject.toml"), str(stub)]
        subprocess.run([*ruff, "check", "--fix", "--select", "I,UP,F401,E401", *quiet], check=True)
        subprocess.run([*ruff, "format", *quiet], check=True)
        return stub.read_text()


def differences_by_hand() -> list[str]:
    """What the hand-written classes say and the extension does not have, or the other way round."""
    extension = importlib.import_module("rubriscope._C")
    found = []
    for node in ast.parse(BY_HAND.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        stated = {name for member in node.body for name in names_of(member)}
        real = set(vars(getattr(extension, node.name)))
        found += [f"{BY_HAND}: {node.name}.{name} is not in the extension" for name in sorted(stated - real)]
        # Object's own protocol (__repr__, __setattr__, …) needs no stub.
        missing = {name for name in real - stated if not hasattr(object, name) and name != "__module__"}
        found += [f"{BY_HAND}: {node.name}.{name} of the extension is missing" for name in sorted(missing)]
    return found


def main() -> int:
    """Returns 1 when --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    text = generate()
    by_hand = differences_by_hand()
    print(*by_hand, sep="\n", end="\n" * bool(by_hand))
    if not check:
        STUB.write_text(text)
        return 1 if by_hand else 0
    current = STUB.read_text() if STUB.exists() else ""
    difference = list(
        difflib.unified_diff(current.splitlines(), text.splitlines(), str(STUB), "the extension", lineterm="")
    )
    if difference:
        print(*difference, sep="\n")
        print("The stub is not current: make stubs")
    return 1 if difference or by_hand else 0


if __name__ == "__main__":
    sys.exit(main())
