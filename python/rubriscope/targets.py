"""Targets: how a path or URL becomes a sink."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import _C

_LATER = {
    "postgresql": "postgres",
    "postgres": "postgres",
    "redis": "redis",
    "wandb": "wandb",
    "otlp": "otlp",
    "hub": "hub",
    "ws": "hub",
    "wss": "hub",
}


def _path_of(url: str) -> Path:
    """The file of ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``jsonl:path``."""
    scheme, _, rest = url.partition(":")
    if rest.startswith("//"):
        rest = rest[2:]
        # sqlite:///abs as rubriscope writes it, and SQLAlchemy's sqlite:////abs.
        rest = "/" + rest.lstrip("/") if rest.startswith("/") else rest
    if not rest:
        raise ValueError(f"target {url!r} names no file: expected {scheme}:///path/to/file")
    return Path(rest)


class DatabaseSink(_C.SqliteSink):
    """A SQLite database that any SQLite tool can read; docs/formats.md has its tables.

    Args:
        target: A path or ``sqlite:///…`` URL. A ``postgresql://`` URL raises ImportError that names
            the extra.

    Raises:
        FormatError: the file is no database of rubriscope's, or of a newer format; it was left as it was.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        text = os.fspath(target)
        scheme = urlsplit(text).scheme
        _refuse_later(text, scheme)
        path = _path_of(text) if scheme == "sqlite" else Path(text)
        super().__init__(path.expanduser().absolute())


class JSONLSink(_C.JsonlSink):
    """One JSON object a line, appended; docs/formats.md has its keys.

    Args:
        target: A path or ``jsonl:…`` URL.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        text = os.fspath(target)
        path = _path_of(text) if urlsplit(text).scheme == "jsonl" else Path(text)
        super().__init__(path.expanduser().absolute())


def _refuse_later(text: str, scheme: str) -> None:
    if scheme in _LATER:
        shown = text.split("@")[-1] if "@" in text else text
        raise ImportError(
            f"target {scheme}://… ({shown!r}) needs a sink that this version does not have yet: "
            f"it will come with the extra rubriscope[{_LATER[scheme]}]"
        )


def sink_for_target(target: Any) -> Any:
    """The sink for a path, a URL or a sink object.

    Raises:
        ValueError: a URL of a scheme that rubriscope does not know.
        ImportError: a scheme that needs an extra.
        TypeError: neither a path nor a URL nor a sink.
    """
    if isinstance(target, _C.Sink) or hasattr(target, "emit") or hasattr(target, "write"):
        return target
    if not isinstance(target, (str, os.PathLike)):
        raise TypeError(f"a target is a path, a URL or an object with emit() or write(), got {target!r}")
    text = os.fspath(target)
    if not isinstance(text, str):
        raise TypeError(f"a target's path is text, got {target!r}")
    if text in ("console", "console:"):
        from .sinks.console import ConsoleSink

        return ConsoleSink()
    scheme = urlsplit(text).scheme if ":" in text else ""
    if scheme in ("", "sqlite", "jsonl"):
        return (
            JSONLSink(text)
            if scheme == "jsonl" or text.endswith((".jsonl", ".ndjson"))
            else DatabaseSink(text)
        )
    _refuse_later(text, scheme)
    raise ValueError(
        f"target {text!r} has the unknown scheme {scheme!r}: expected a path, sqlite:, jsonl: or console:"
    )


def target_of(sink: Any) -> str:
    """The target a sink can be opened by again, or ``python:ClassName``."""
    return str(sink.target) if isinstance(sink, _C.Sink) else f"python:{type(sink).__name__}"
