"""Installation: the torch finder's answers, one torch range everywhere, and what a wheel holds."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from rubriscope import _torch_check, _version

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")


@pytest.fixture
def setup_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """setup.py as a module (its functions without its setup() call), on a machine where no torch is found.

    Tests put fakes where it looks.
    """
    pytest.importorskip("setuptools")
    spec = importlib.util.spec_from_file_location("rubriscope_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for variable in ("RUBRISCOPE_TORCH", "VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": "/nonexistent"})
    monkeypatch.setattr(sys, "prefix", "/nonexistent")
    return module


def make_torch(site: Path, version: str = "2.13.0+cpu", headers: bool = True) -> Path:
    """A folder that looks like an installed torch, as far as its version file and one header."""
    folder = site / "torch"
    (folder / "include/torch/csrc/stable").mkdir(parents=True)
    cuda = "None" if "+cpu" in version else "'13.0'"
    # The two forms torch has used: plain assignments, and annotated ones.
    (folder / "version.py").write_text(
        f"from typing import Optional\n__version__ = '{version}'\ncuda: Optional[str] = {cuda}\n"
    )
    if headers:
        (folder / "include/torch/csrc/stable/library.h").touch()
    return folder.resolve()


def test_finder_without_torch_says_what_to_do(setup_module: ModuleType) -> None:
    with pytest.raises(SystemExit) as error:
        setup_module.find_torch()
    assert "\n" not in str(error.value)
    assert "pip install 'torch>=2.10'" in str(error.value)
    assert "RUBRISCOPE_TORCH" in str(error.value)


@pytest.mark.parametrize(
    "place", ["sys.path", "purelib", "VIRTUAL_ENV", "CONDA_PREFIX", "PATH", "pyvenv.cfg"]
)
def test_finder_looks_in(
    place: str, setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = make_torch(tmp_path / SITE)
    match place:
        case "sys.path":
            monkeypatch.setattr(sys, "path", ["", "/nonexistent", str(tmp_path / SITE)])
        case "purelib":
            monkeypatch.setattr("sysconfig.get_paths", lambda: {"purelib": str(tmp_path / SITE)})
        case "PATH":
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin/python3").touch()
            monkeypatch.setenv("PATH", f"/nonexistent:{tmp_path / 'bin'}")
        case "pyvenv.cfg":
            (tmp_path / "overlay").mkdir()
            (tmp_path / "overlay/pyvenv.cfg").write_text(
                f"home = /usr/bin\ncommand = {tmp_path / 'bin/python'} -m venv --without-pip /tmp/x\n"
            )
            monkeypatch.setattr(sys, "prefix", str(tmp_path / "overlay"))
        case variable:
            monkeypatch.setenv(variable, str(tmp_path))
    assert setup_module.find_torch() == torch


def test_finder_override_comes_first(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_torch(tmp_path / "other" / SITE)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "other"))
    torch = make_torch(tmp_path / "mine")
    for value in (torch, torch.parent):
        monkeypatch.setenv("RUBRISCOPE_TORCH", str(value))
        assert setup_module.find_torch() == torch


def test_finder_wrong_override_is_refused_by_name(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_torch(tmp_path / SITE)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv("RUBRISCOPE_TORCH", "/nowhere/torch")
    with pytest.raises(SystemExit, match="RUBRISCOPE_TORCH=/nowhere/torch holds no torch"):
        setup_module.find_torch()


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cu128", "2.1.0", "git"])
def test_finder_refuses_an_old_torch(
    version: str, setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = make_torch(tmp_path / SITE, version)
    # A newer one further away is not the one this environment would import.
    make_torch(tmp_path / "far" / SITE)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "far"))
    with pytest.raises(SystemExit) as error:
        setup_module.find_torch()
    message = str(error.value)
    assert "\n" not in message
    assert version in message and str(torch) in message
    assert "pip install --upgrade 'torch>=2.10'" in message


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+git1234", "2.13.0+cpu", "3.0.0"])
def test_finder_accepts(
    version: str, setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = make_torch(tmp_path / SITE, version)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    assert setup_module.find_torch() == torch


def test_finder_refuses_a_torch_without_headers(
    setup_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_torch(tmp_path / SITE, headers=False)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks include/torch/csrc/stable/library\.h"):
        setup_module.find_torch()


def test_build_without_torch_ends_in_one_line(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "RUBRISCOPE_TORCH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr == (
        f"rubriscope: RUBRISCOPE_TORCH={tmp_path} holds no torch (expected its package folder, .../torch)\n"
    )


def test_torch_range_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert _torch_check.TORCH_REQUIREMENT in project["dependencies"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert not any(requirement.startswith("torch") for requirement in build)


def test_version_is_the_same_everywhere() -> None:
    from rubriscope import _C

    assert _C.__version__ == _version.__version__


@pytest.mark.parametrize("version", ["2.9.1", "1.0"])
def test_import_with_an_old_torch_is_one_clear_error(version: str, tmp_path: Path) -> None:
    torch = make_torch(tmp_path, version)
    (torch / "__init__.py").write_text("raise AssertionError('torch was imported to read its version')\n")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); import rubriscope",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == (
        f"ImportError: rubriscope needs torch>=2.10 and found {version} in {torch}: "
        "pip install --upgrade 'torch>=2.10'"
    )


def test_check_torch_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_check, "find_torch", lambda: None)
    with pytest.raises(ImportError, match=r"found none: pip install 'torch>=2\.10'"):
        _torch_check.check_torch()


def test_read_torch_tells_cuda(tmp_path: Path) -> None:
    cpu = _torch_check.read_torch(make_torch(tmp_path / "a", "2.13.0+cpu"))
    gpu = _torch_check.read_torch(make_torch(tmp_path / "b", "2.13.0+cu130"))
    assert cpu is not None and cpu.cuda is None
    assert gpu is not None and gpu.cuda == "13.0"
    assert _torch_check.read_torch(tmp_path) is None


def defined_symbols(library: Path) -> list[str]:
    """The mangled names a shared library exports."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm (binutils) is not on this machine")
    lines = subprocess.run(
        [nm, "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    return [line.split()[-1] for line in lines.stdout.splitlines()]


def test_library_exports_its_namespace_and_nothing_else() -> None:
    from rubriscope import _paths

    symbols = defined_symbols(Path(_paths.library_path))
    assert "_ZN10rubriscope7versionEv" in symbols
    foreign = [symbol for symbol in symbols if not re.search(r"N[KRO]*10rubriscope", symbol)]
    assert foreign == []


@pytest.mark.slow
def test_wheel(tmp_path: Path) -> None:
    """A wheel built from a copy of the tree holds library, headers and CMake package, and works."""
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    # Left over from an earlier build: must not be packed.
    stale = source / f"build/lib.linux-x86_64-{sys.implementation.cache_tag}/rubriscope/removed_long_ago.py"
    stale.parent.mkdir(parents=True)
    stale.touch()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)],
        check=True,
        env=os.environ | {"CMAKE_ARGS": "-DCMAKE_CXX_FLAGS_RELEASE=-O0"},  # what is packed is the question
    )
    (wheel,) = tmp_path.glob("rubriscope-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    expected = {
        "rubriscope/__init__.py",
        "rubriscope/py.typed",
        "rubriscope/_C.pyi",
        "rubriscope/lib/librubriscope.so",
        "rubriscope/lib/librubriscope_ops.so",
        "rubriscope/include/rubriscope/rubriscope.h",
        "rubriscope/include/rubriscope/core/record.h",
        "rubriscope/share/cmake/rubriscope/rubriscopeConfig.cmake",
    }
    assert expected - names == set()
    assert not [name for name in names if "binding" in name or "removed" in name or name.endswith(".cpp")]
    headers = {
        f"rubriscope/include/rubriscope/{path.relative_to(ROOT / 'csrc')}"
        for path in (ROOT / "csrc").rglob("*.h")
        if path.parent.name not in ("binding", "torch")
    }
    assert headers - names == set()
    probe = "import rubriscope, sys; print(rubriscope.__file__, rubriscope.__version__)"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {probe}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(tmp_path / "site/rubriscope/__init__.py"), _version.__version__]
