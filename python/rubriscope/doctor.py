"""`rubriscope doctor`: what is installed, what was found, and what to do about problems."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from . import _paths
from ._torch_check import TORCH_REQUIREMENT, find_torch
from ._version import __version__

Status = Literal["ok", "info", "warning", "problem"]

#: Extra of pyproject.toml -> the modules it brings (with their distributions) and who needs them.
EXTRAS = {
    "image": ({"PIL": "pillow"}, "get_code_sight().log_image"),
    "judge": ({"httpx": "httpx"}, "OpenAICompatibleClient"),
    "plot": ({"matplotlib": "matplotlib"}, "rubriscope scores --plot"),
    "arrow": ({"pyarrow": "pyarrow", "pandas": "pandas"}, "Film.to_arrow, Film.to_pandas"),
    "postgres": ({"psycopg": "psycopg"}, "postgresql:// targets"),
    "mlflow": ({"mlflow": "mlflow-skinny"}, "MLflowSink"),
    "otlp": ({"opentelemetry.proto": "opentelemetry-proto"}, "OTLPSink"),
    "parquet": ({"pyarrow": "pyarrow"}, "ParquetSink"),
    "ray": ({"ray": "ray"}, "rs.adapters.ray"),
    "redis": ({"redis": "redis"}, "RedisStreamSink, rubriscope ingest"),
    "tensorboard": ({"tensorboard": "tensorboard"}, "TensorBoardSink"),
    "wandb": ({"wandb": "wandb"}, "WandBSink"),
    "demo": ({"sklearn": "scikit-learn"}, "the examples on digits"),
}


@dataclass(frozen=True)
class Check:
    """One line of the report. `remedy` is empty unless the status is a warning or a problem."""

    name: str
    status: Status
    value: str
    remedy: str = ""


def _check_package() -> Iterable[Check]:
    yield Check("rubriscope", "ok", f"{__version__} in {Path(__file__).parent}")
    yield Check(
        "python",
        "ok",
        f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}",
    )
    yield Check("machine", "info", f"{platform.platform()}, {os.cpu_count()} CPUs")
    try:
        importlib.import_module("rubriscope._C")
    except ImportError as error:
        yield Check(
            "extension", "problem", str(error), "build it again: pip install --force-reinstall --no-deps ."
        )
    else:
        yield Check("extension", "ok", f"rubriscope._C loads; C++ library {_paths.library_path}")


def _check_operators() -> Iterable[Check]:
    library = Path(_paths.library_path).with_name("librubriscope_ops.so")
    if not library.is_file():
        remedy = "build it again: pip install --force-reinstall --no-deps ."
        yield Check("operators", "problem", f"{library} is missing", remedy)
        return
    try:
        kernels = importlib.import_module("rubriscope._C").isa_name()
    except (ImportError, ValueError) as error:  # the latter: RUBRISCOPE_ISA is not to be had
        yield Check(
            "operators", "problem", str(error), "see the line on the extension, or unset RUBRISCOPE_ISA"
        )
        return
    yield Check("operators", "ok", f"{library}, CPU kernels for {kernels}")


def _check_torch() -> Iterable[Check]:
    torch = find_torch()
    if torch is None:
        yield Check("torch", "problem", "not installed", f"pip install '{TORCH_REQUIREMENT}'")
        return
    found = f"{torch.version} in {torch.folder} (supported: {TORCH_REQUIREMENT})"
    if torch.supported:
        yield Check("torch", "ok", found)
    else:
        yield Check("torch", "problem", found, f"pip install --upgrade '{TORCH_REQUIREMENT}'")
    plugin = Path(_paths.library_path).with_name("librubriscope_cuda.so")
    if torch.cuda is None:
        yield Check("CUDA operators", "info", f"not used: torch {torch.version} is a CPU build")
    elif plugin.is_file():
        yield Check("CUDA operators", "ok", f"{plugin}, for torch built for CUDA {torch.cuda}")
    else:
        yield Check(
            "CUDA operators",
            "warning",
            f"none, and torch is built for CUDA {torch.cuda}",
            "put nvcc on PATH and build again: pip install --force-reinstall --no-deps .",
        )


def _mapping_of(address: int) -> str | None:
    """The file mapped at an address of this process; None where nothing is, or on a system without /proc."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        fields = line.split(maxsplit=5)
        low, high = (int(part, 16) for part in fields[0].split("-"))
        if low <= address < high:
            return fields[5] if len(fields) == 6 else None
    return None


def sqlite_of(library: str | None) -> tuple[str, str | None]:
    """The file that holds the SQLite a loaded library calls, and its version.

    `library` is the library's path, None for the main program. A library that hides a SQLite of its own
    counts as holding it, with version None.
    """
    handle = ctypes.CDLL(library)
    try:
        version = handle.sqlite3_libversion
    except AttributeError:
        return library or sys.executable, None
    address = ctypes.cast(version, ctypes.c_void_p).value
    version.restype = ctypes.c_char_p
    holder = _mapping_of(address) if address is not None else None
    return os.path.realpath(holder or library or sys.executable), version().decode()


def _check_sqlite() -> Iterable[Check]:
    holders: dict[str, list[str]] = {}
    try:
        import _sqlite3
        import sqlite3
    except ImportError as error:
        yield Check(
            "SQLite of Python",
            "warning",
            f"no sqlite3 module: {error}",
            "install a Python with sqlite3 to read recordings with it; recording does not need it",
        )
    else:
        holder, _ = sqlite_of(getattr(_sqlite3, "__file__", None))
        holders.setdefault(holder, []).append("Python's sqlite3")
        yield Check("SQLite of Python", "ok", f"{sqlite3.sqlite_version} in {holder}")
    if Path(_paths.library_path).is_file():
        holder, version = sqlite_of(_paths.library_path)
        holders.setdefault(holder, []).append("rubriscope")
        # Hidden in the library, it cannot be asked; what it was built from can.
        value = version or getattr(sys.modules.get("rubriscope._C"), "_sqlite_origin", "of unknown version,")
        yield Check("SQLite of rubriscope", "ok", f"{value} in {holder}")
    for mapped in _mapped_libraries("libsqlite3"):
        holders.setdefault(mapped, [])
    if len(holders) > 1:
        copies = "; ".join(
            f"{file} ({', '.join(users) or 'another library'})" for file, users in holders.items()
        )
        yield Check(
            "SQLite copies",
            "warning",
            f"{len(holders)} in this process: {copies}",
            "closing a database in one copy drops the locks the other holds on it: while this process "
            "records into a database, do not open that database here with the other copy",
        )
    else:
        yield Check("SQLite copies", "ok", "one in this process")


def _mapped_libraries(prefix: str) -> list[str]:
    """The files mapped into this process whose names begin with `prefix`, each once."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    files = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6}
    return sorted(os.path.realpath(file) for file in files if Path(file).name.startswith(prefix))


def state_folder() -> Path:
    """Where the journals of targets without a folder of their own live."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "rubriscope"


# In a process of its own: closing a file drops every POSIX lock this process holds on it, and the journal may
# be ours.
_LOCK_PROBE = """
import fcntl, json, struct, sys
layout = "hhqqi4x"
owned = {}
for path in sys.argv[1:]:
    try:
        with open(path, "rb") as file:
            question = struct.pack(layout, fcntl.F_RDLCK, 0, 0, 0, 0)
            answer = struct.unpack(layout, fcntl.fcntl(file, fcntl.F_GETLK, question))
    except FileNotFoundError:
        continue  # its owner closed it between our look and this
    owned[path] = answer[0] != fcntl.F_UNLCK
print(json.dumps(owned))
"""


@dataclass(frozen=True)
class Journals:
    """Writer folders, by who owns them."""

    live: list[Path]  #: a living process writes them
    ownerless: list[Path]  #: their process is gone; recovery has not taken them
    set_aside: list[Path]  #: recovery found damage in them and keeps what it could not read


def find_journals(folders: Iterable[Path]) -> Journals:
    """The journals below `folders`. Raises OSError when their locks cannot be asked for."""
    found = sorted({lock for folder in folders if folder.is_dir() for lock in folder.rglob("*")})
    set_aside = [path for path in found if path.suffix == ".damaged" and path.is_dir()]
    locks = [path for path in found if path.name == "owner.lock" and path.parent not in set_aside]
    owned: dict[str, bool] = {}
    if locks:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LOCK_PROBE, *map(str, locks)], capture_output=True, text=True
        )
        if probe.returncode != 0:
            raise OSError(f"cannot ask for journal locks: {probe.stderr.strip().splitlines()[-1]}")
        owned = json.loads(probe.stdout)
    return Journals(
        [lock.parent for lock in locks if owned.get(str(lock)) is True],
        [lock.parent for lock in locks if owned.get(str(lock)) is False],
        set_aside,
    )


def _check_journals(targets: Sequence[str]) -> Iterable[Check]:
    state = state_folder()
    yield Check(
        "journals", "info", f"<target>.rubriscope beside a file target, {state} for targets without a folder"
    )
    folders = [state, *Path.cwd().glob("*.rubriscope")]
    for target in targets:
        path = Path(target)
        folders.append(path if path.is_dir() else path.with_name(path.name + ".rubriscope"))
    try:
        journals = find_journals(folders)
    except OSError as error:
        yield Check("waiting journals", "warning", str(error), "look into the folders above by hand")
        return
    if journals.live:
        yield Check("live journals", "info", f"{len(journals.live)} in use: {_listed(journals.live)}")
    if journals.set_aside:
        yield Check(
            "damaged journals",
            "warning",
            f"{len(journals.set_aside)} set aside by recovery: {_listed(journals.set_aside)}",
            "their good records are in the target; keep the folders to look into the damage, or delete them",
        )
    if journals.ownerless:
        yield Check(
            "waiting journals",
            "problem",
            f"{len(journals.ownerless)} without a living owner: {_listed(journals.ownerless)}",
            f"bring their records into the target: rubriscope recover {journals.ownerless[0].parent}",
        )
    else:
        yield Check("waiting journals", "ok", "none")


def _listed(paths: Sequence[Path], most: int = 5) -> str:
    """The first few paths, and how many more there are."""
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(map(str, paths[:most])) + more


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor the package it would be in
        return False


def _check_extras() -> Iterable[Check]:
    for extra, (modules, users) in EXTRAS.items():
        missing = [module for module in modules if not _is_installed(module)]
        if missing:
            value = f"no {', '.join(missing)}; for {users}: pip install 'rubriscope[{extra}]'"
            yield Check(f"extra [{extra}]", "info", value)
        else:
            versions = [f"{name} {importlib.metadata.version(name)}" for name in modules.values()]
            yield Check(f"extra [{extra}]", "ok", ", ".join(versions))


def collect(targets: Sequence[str] = ()) -> list[Check]:
    """Looks at this process and this machine.

    `targets` are recordings (or journal folders) whose journals are looked at beside those of the current
    folder and of the user's state folder. Nothing is changed, opened for writing or recovered.
    """
    sections: tuple[Callable[[], Iterable[Check]], ...] = (
        _check_package,
        _check_torch,
        _check_operators,
        _check_sqlite,
        lambda: _check_journals(targets),
        _check_extras,
    )
    return [check for section in sections for check in section()]


def main(argv: Sequence[str] | None = None) -> int:
    """The command `rubriscope doctor [--json] [TARGET ...]`. Returns 1 when there is a problem, else 0."""
    parser = argparse.ArgumentParser(prog="rubriscope doctor", description=main.__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="recordings whose journals to look at")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    checks = collect(arguments.targets)
    problems = sum(check.status == "problem" for check in checks)
    if arguments.json:
        print(json.dumps({"checks": [asdict(check) for check in checks], "problems": problems}, indent=2))
    else:
        _print(checks, problems)
    return 1 if problems else 0


def _print(checks: Sequence[Check], problems: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "info": ("·", "dim"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        mark, style = marks[check.status]
        table.add_row(Text(mark, style=style), Text(check.name), Text(check.value, overflow="fold"))
        if check.remedy:
            table.add_row("", "", Text("→ " + check.remedy, style=style, overflow="fold"))
    console = Console()
    console.print(table)
    warnings = sum(check.status == "warning" for check in checks)
    console.print(f"{problems} problem{'s' * (problems != 1)}, {warnings} warning{'s' * (warnings != 1)}")


if __name__ == "__main__":
    sys.exit(main())
