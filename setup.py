"""Builds rubriscope: finds the environment's torch by path, then runs CMake once.

Everything else is in pyproject.toml. The finder reads files only; it never imports torch, which takes seconds
and, in an isolated build, is not importable at all.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent

# By path: the package cannot be imported before it is built.
_spec = importlib.util.spec_from_file_location("_torch_check", ROOT / "python/rubriscope/_torch_check.py")
assert _spec is not None and _spec.loader is not None
_torch_check = importlib.util.module_from_spec(_spec)
sys.modules["_torch_check"] = _torch_check
_spec.loader.exec_module(_torch_check)
read_torch, TORCH_REQUIREMENT = _torch_check.read_torch, _torch_check.TORCH_REQUIREMENT

MINIMUM_CMAKE = (3, 22)
STABLE_HEADER = Path("include/torch/csrc/stable/library.h")


def fail(message: str) -> SystemExit:
    """One line that says what is wrong and what to do, without a traceback around it."""
    return SystemExit(f"rubriscope: {message}")


def site_packages_of(prefix: Path) -> Iterator[Path]:
    """The site-packages folders of an environment for the running Python's version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    yield prefix / "lib" / version / "site-packages"
    yield prefix / "lib64" / version / "site-packages"
    yield prefix / "lib" / version / "dist-packages"


def torch_candidates() -> Iterator[tuple[str, Path]]:
    """Where a torch may be, nearest first, each with the name of the place."""
    for entry in sys.path:
        if entry:
            yield "sys.path", Path(entry) / "torch"
    yield "this Python's site-packages", Path(sysconfig.get_paths()["purelib"]) / "torch"
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if prefix := os.environ.get(variable):
            for folder in site_packages_of(Path(prefix)):
                yield variable, folder / "torch"
    # An isolated build environment remembers the Python it was made from.
    config = Path(sys.prefix) / "pyvenv.cfg"
    if config.is_file() and (made := re.search(r"^command = (\S+) -m ", config.read_text(), re.M)):
        for folder in site_packages_of(Path(made[1]).parent.parent):
            yield "the Python that made the build environment", folder / "torch"
    for entry in os.environ.get("PATH", "").split(os.pathsep):
        if entry and any((Path(entry) / name).exists() for name in ("python", "python3")):
            for folder in site_packages_of(Path(entry).parent):
                yield "the Python on PATH", folder / "torch"


def find_torch() -> Path:
    """The folder of the environment's torch.

    Raises SystemExit with one line when there is none, when RUBRISCOPE_TORCH names no torch, or when the
    torch found is too old or lacks its headers.
    """
    if override := os.environ.get("RUBRISCOPE_TORCH"):
        folder = Path(override).expanduser()
        candidates = iter([("RUBRISCOPE_TORCH", folder), ("RUBRISCOPE_TORCH", folder / "torch")])
    else:
        candidates = torch_candidates()
    for where, folder in candidates:
        torch = read_torch(folder)
        if torch is None:
            continue
        if not torch.supported:
            raise fail(
                f"torch {torch.version} in {folder} ({where}) is too old: "
                f"pip install --upgrade '{TORCH_REQUIREMENT}'"
            )
        if not (folder / STABLE_HEADER).is_file():
            raise fail(
                f"torch {torch.version} in {folder} ({where}) lacks {STABLE_HEADER}: "
                f"pip install --force-reinstall '{TORCH_REQUIREMENT}'"
            )
        return folder.resolve()
    if override:
        raise fail(f"RUBRISCOPE_TORCH={override} holds no torch (expected its package folder, .../torch)")
    raise fail(
        f"no torch in this environment: pip install '{TORCH_REQUIREMENT}' first; where it is installed, "
        "activate its environment or set RUBRISCOPE_TORCH=.../site-packages/torch"
    )


def wants_cuda(torch: Path) -> bool:
    """Whether to build the CUDA operators: as RUBRISCOPE_CUDA says (1 or 0), else where torch has CUDA and
    there is an nvcc.
    """
    wish = os.environ.get("RUBRISCOPE_CUDA", "")
    if wish not in ("", "0", "1"):
        raise fail(f"RUBRISCOPE_CUDA is '{wish}', expected 0 or 1")
    found = read_torch(torch)
    return wish == "1" or (
        wish == "" and found is not None and bool(found.cuda) and bool(shutil.which("nvcc"))
    )


def tool_version(tool: str) -> tuple[int, ...] | None:
    """The version a build tool reports, or None when it is not on PATH or does not run."""
    if shutil.which(tool) is None:
        return None
    run = subprocess.run([tool, "--version"], capture_output=True, text=True)
    found = re.search(r"(\d+)\.(\d+)", run.stdout)
    return (int(found[1]), int(found[2])) if run.returncode == 0 and found else None


def missing_tools() -> list[str]:
    """The build tools pip has to bring: those the machine lacks."""
    requirements = []
    if (tool_version("cmake") or (0, 0)) < MINIMUM_CMAKE:
        requirements.append("cmake>=" + ".".join(map(str, MINIMUM_CMAKE)))
    if tool_version("ninja") is None:
        requirements.append("ninja")
    return requirements


class CMakeBuild(build_ext):
    """Configures, builds and installs the C++ side into the package folder."""

    def run(self) -> None:
        torch = find_torch()
        in_place = bool(self.inplace or self.editable_mode)
        package = ROOT / "python/rubriscope" if in_place else Path(self.build_lib).resolve() / "rubriscope"
        build = ROOT / "build" / ("cmake-dev" if in_place else f"cmake-{sys.implementation.cache_tag}")
        if shutil.which("cmake") is None:
            raise fail("cmake is not on PATH; install it (apt install cmake, or pip install cmake)")
        if shutil.which(os.environ.get("CXX", "c++").split()[0]) is None:
            raise fail("no C++ compiler found; install one with C++20 (apt install g++), or set CXX")
        import pybind11

        configure = [
            "cmake",
            "-S",
            str(ROOT),
            "-B",
            str(build),
            "-DCMAKE_BUILD_TYPE=Release",
            "-DRUBRISCOPE_BUILD_PYTHON=ON",
            "-DRUBRISCOPE_BUILD_TESTS=OFF",
            "-DCMAKE_INSTALL_MESSAGE=LAZY",
            # All three may lie in a build environment that is gone the next time.
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DRUBRISCOPE_TORCH={torch}",
        ]
        configure.append(f"-DRUBRISCOPE_CUDA={'ON' if wants_cuda(torch) else 'OFF'}")
        if ninja := shutil.which("ninja"):
            configure += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        configure += os.environ.get("CMAKE_ARGS", "").split()
        self._cmake(configure)
        self._cmake(["cmake", "--build", str(build), "--parallel", str(len(os.sched_getaffinity(0)))])
        for component in ("rubriscope", "python"):
            self._cmake(
                ["cmake", "--install", str(build), "--prefix", str(package), "--component", component]
            )

    @staticmethod
    def _cmake(command: list[str]) -> None:
        if subprocess.run(command).returncode != 0:
            raise fail(f"the C++ build failed, see above ({' '.join(command[:2])} …)")


class CleanBuildPy(build_py):
    """Starts from an empty package folder, so that a file removed from the tree leaves the wheel too."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "rubriscope", ignore_errors=True)
        super().run()


# Before anything else runs (and before pip downloads what rubriscope depends on): is there a torch to serve?
if {"dist_info", "bdist_wheel", "editable_wheel", "build_ext", "install", "develop"} & set(sys.argv[1:]):
    find_torch()

if __name__ == "__main__":
    setup(
        ext_modules=[Extension("rubriscope._C", sources=[])],
        cmdclass={"build_ext": CMakeBuild, "build_py": CleanBuildPy},
        # Read by the build back end when it asks what an isolated build needs.
        setup_requires=missing_tools() if "egg_info" in sys.argv[1:] else [],
    )
