"""Turning the tracer on and off."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from .. import _C

Level = Literal["debug", "info", "warn"]
_LEVELS: tuple[Level, ...] = ("debug", "info", "warn")

_recorder: Any = None  # the Recorder of trace.jsonl


def enabled() -> bool:
    """Whether the tracer is on."""
    return _C._trace_on()


def lost() -> int:
    """How many events were refused since the process began: a full journal, or a trace point that could not
    be written down."""
    return int(_C._trace_lost())


def enable(
    output: str | os.PathLike[str] | None = "trace.jsonl",
    level: Level = "info",
    *,
    console: bool = False,
    journal_limit_bytes: int = 1 << 28,
) -> None:
    """Turns the tracer on, or gives it another output and level.

    Args:
        output: The file of trace events; None: none, spans go into the open recorder alone.
        level: The least severe event written. Spans are ``info``; blocked ones and errors ``warn``.
        console: Also prints the tree of spans to standard error as they end.
        journal_limit_bytes: How far the file's journal may grow while the disk is slow.

    Raises:
        FormatError: ``output`` holds something else; it was left as it was.
        OSError: the file or its journal (``<output>.rubriscope``) cannot be made.
        ValueError: no such level.
    """
    global _recorder
    if level not in _LEVELS:
        raise ValueError(f"level is one of {', '.join(_LEVELS)}, got {level!r}")
    sinks: list[Any] = []
    if output is not None:
        from ..targets import TraceSink

        sinks.append(TraceSink(output))
    if console:
        from ._console import ConsoleTree

        sinks.append(ConsoleTree())
    before, _recorder = _recorder, None
    if before is not None:
        _C._trace_configure(False, 1, None)
        before.close()
    if sinks:
        _recorder = _open(sinks, journal_limit_bytes)
    _C._trace_configure(True, _LEVELS.index(level), None if _recorder is None else _recorder._native)


def disable() -> None:
    """Turns the tracer off; what was traced is written first."""
    global _recorder
    before, _recorder = _recorder, None
    _C._trace_configure(False, 1, None)
    if before is not None:
        before.close()


def flush(timeout_s: float = 60.0) -> None:
    """Waits until everything traced so far is in the file.

    Raises:
        TimeoutError: it took longer.
    """
    if _recorder is not None:
        _recorder.flush(timeout_s)


def _open(sinks: list[Any], journal_limit_bytes: int) -> Any:
    from ..recorder import Recorder
    from ..targets import target_of

    return Recorder(
        sinks,
        session_id=_C.make_uuid(),
        session_name="trace",
        created_ns=time.time_ns(),
        metadata_json="{}",
        ledger=False,
        options={
            "journal_dir": None,
            "journal_limit_bytes": journal_limit_bytes,
            "on_full": "block",
            "block_timeout_s": 5.0,
            "flush_interval_ms": 100,
        },
        targets=["trace:" + str(target_of(sink)).removeprefix("trace:") for sink in sinks],
    )


# ---- command line, environment, files


class _TraceAction(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        try:
            enable(values, console=True)
        except (OSError, ValueError) as error:
            parser.error(f"{option_string}: {error}")


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Adds ``--trace [FILE]``, which turns the tracer on with the console tree (FILE: ``trace.jsonl``)."""
    parser.add_argument(
        "--trace",
        nargs="?",
        const="trace.jsonl",
        default=None,
        metavar="FILE",
        action=_TraceAction,
        help="trace spans into FILE (trace.jsonl), and show them as they end",
    )


def configure(settings: Mapping[str, Any] | str | os.PathLike[str]) -> None:
    """Turns the tracer on or off as settings say.

    Args:
        settings: A mapping ``{"enabled": bool, "output": str, "level": str}``, or a TOML or YAML file with
            such a table called ``tracing``.

    Raises:
        ValueError: a key or value that is not one of these.
        ImportError: a YAML file, and no PyYAML (``pip install pyyaml``).
    """
    if not isinstance(settings, Mapping):
        settings = _tracing_of(Path(settings))
    unknown = set(settings) - {"enabled", "output", "level", "console"}
    if unknown:
        raise ValueError(
            f"tracing takes enabled, output, level and console, got {', '.join(sorted(unknown))}"
        )
    on = settings.get("enabled", False)
    output = settings.get("output", "trace.jsonl")
    console = settings.get("console", False)
    if not isinstance(on, bool) or not isinstance(console, bool) or not isinstance(output, str):
        raise ValueError(
            f"tracing: enabled and console are true or false, output is a path, got {settings!r}"
        )
    if on:
        enable(output, settings.get("level", "info"), console=console)
    else:
        disable()


def _tracing_of(path: Path) -> Mapping[str, Any]:
    text = path.read_text(encoding="utf-8")
    document: Any
    if path.suffix in (".yaml", ".yml"):
        try:
            yaml = import_module("yaml")
        except ImportError as error:
            raise ImportError(f"{path}: reading YAML needs PyYAML (pip install pyyaml)") from error
        document = yaml.safe_load(text)
    else:
        import tomllib

        document = tomllib.loads(text)
    found = document.get("tracing", {}) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected a table called tracing")
    return found


def configure_from_environment() -> None:
    """``RUBRISCOPE_TRACE`` or the origin's ``DOPEJAR_TRACE`` (1 or 0), else a ``rubriscope.toml`` or
    ``rubriscope.yaml`` here. What goes wrong is reported; the tracer then stays off."""
    try:
        for name in ("RUBRISCOPE_TRACE", "DOPEJAR_TRACE"):
            value = os.environ.get(name, "")
            if value:
                if value != "0":
                    enable()
                return
        for name in ("rubriscope.toml", "rubriscope.yaml", "rubriscope.yml"):
            if os.path.isfile(name):
                configure(name)
                return
    except (OSError, ValueError, ImportError) as error:
        _C._report("error", f"the tracer stays off: {error}")
