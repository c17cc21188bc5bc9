"""Targets: how a path or URL becomes a sink."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import _C, _postgres, _postgres_url

_LATER = {
    "hub": "hub",
    "ws": "hub",
    "wss": "hub",
}


#: Scheme of a target -> module of :mod:`rubriscope.sinks` whose ``from_target`` opens it.
_SINK_MODULES = {
    "mlflow": "mlflow",
    "otlp+http": "otlp",
    "otlp+https": "otlp",
    "parquet": "parquet",
    "redis": "redis_stream",
    "rediss": "redis_stream",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
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


def without_password(url: str) -> str:
    """The URL as it may be shown and written down."""
    return re.sub(r"//([^/@:]*):[^/]*@", r"//\1@", url).replace("//@", "//")


class DatabaseSink(_C.SqliteSink):
    """A database that any tool of its kind can read; docs/formats.md has its tables.

    Args:
        target: A path or ``sqlite:///…`` URL: a SQLite file. ``postgresql://user@host:port/database``: a
            PostgreSQL database, as a :class:`PostgresSink` (``pip install rubriscope[postgres]``).

    Raises:
        FormatError: the database is not rubriscope's, or of a newer format; it was left as it was.
        ImportError: a ``postgresql://`` URL, and no psycopg.
    """

    def __new__(cls, target: str | os.PathLike[str]) -> Any:
        if _postgres_url.is_postgres(target):
            return PostgresSink(os.fspath(target))
        return super().__new__(cls)

    def __init__(self, target: str | os.PathLike[str]) -> None:
        super().__init__(self.path_of(target))

    @staticmethod
    def path_of(target: str | os.PathLike[str]) -> Path:
        """The file of a path or ``sqlite:`` URL."""
        text = os.fspath(target)
        scheme = urlsplit(text).scheme
        _refuse_later(text, scheme)
        path = _path_of(text) if scheme == "sqlite" else Path(text)
        return path.expanduser().absolute()


class PostgresSink(_C.PostgresSink):
    """A PostgreSQL database, with the tables and views of the SQLite file; docs/formats.md has them.

    Many ranks and machines may record into one database. The connection is psycopg's: what the URL leaves
    out comes from libpq's environment variables and password file. A password is kept in this process only
    (and what it starts); :attr:`target` shows the URL without it.

    Args:
        url: ``postgresql://user:password@host:port/database?option=value``.

    Raises:
        ImportError: psycopg is missing.
        ValueError: no PostgreSQL URL.
    """

    def __init__(self, url: str) -> None:
        _postgres.require_psycopg()
        public = _postgres_url.remember(url)
        _postgres.check(url)
        from ._postgres_link import Connector

        super().__init__(public, Connector(public))

    @property
    def is_encrypted(self) -> bool:
        """Whether there is a recording already, and it has the keys of an encrypted one."""
        with _postgres.connect(self.target) as connection:
            if not _postgres.has_tables(connection, self.target):
                return False
            return connection.execute("SELECT 1 FROM vault").fetchone() is not None


class JSONLSink(_C.JsonlSink):
    """One JSON object a line, appended; docs/formats.md has its keys.

    Args:
        target: A path or ``jsonl:…`` URL.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        text = os.fspath(target)
        path = _path_of(text) if urlsplit(text).scheme == "jsonl" else Path(text)
        super().__init__(path.expanduser().absolute())


class TraceSink(_C.TraceJsonlSink):
    """``trace.jsonl``: the spans alone, in the layout of docs/tracing.md.

    Args:
        target: A path or ``trace:…`` URL.
    """

    def __init__(self, target: str | os.PathLike[str]) -> None:
        text = os.fspath(target)
        path = _path_of(text) if urlsplit(text).scheme == "trace" else Path(text)
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
    if isinstance(target, _C.Sink) or any(
        hasattr(target, method) for method in ("emit", "write", "write_all", "write_records")
    ):
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
    if scheme == "trace":
        return TraceSink(text)
    if _postgres_url.is_postgres(text):
        return PostgresSink(text)
    if scheme in _SINK_MODULES:
        return import_module(f".sinks.{_SINK_MODULES[scheme]}", __package__).from_target(text)
    _refuse_later(text, scheme)
    raise ValueError(
        f"target {without_password(text)!r} has the unknown scheme {scheme!r}: "
        f"expected a path, sqlite:, postgresql:, jsonl:, trace:, console:, {':, '.join(_SINK_MODULES)}:"
    )


def target_of(sink: Any) -> str:
    """The target a sink can be opened by again, or ``python:ClassName``."""
    target = getattr(sink, "target", None)
    return target if isinstance(target, str) else f"python:{type(sink).__name__}"
