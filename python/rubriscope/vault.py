"""The vault: databases whose content is encrypted, and their keys. docs/vault.md says what that protects."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import _C, _postgres, _postgres_url
from .errors import FormatError, SealedError, SinkError
from .targets import DatabaseSink, PostgresSink, target_of

if TYPE_CHECKING:
    import psycopg

    from .film import Session

#: Names the file of the key for whoever is not given one.
KEY_FILE_VARIABLE = "RUBRISCOPE_KEY_FILE"
KEY_VARIABLE = "RUBRISCOPE_KEY"

Key = bytes | str | Callable[[], bytes | str]


def load_key(
    *,
    key_file: str | os.PathLike[str] | None = None,
    key: Key | None = None,
    key_env: str | None = None,
) -> _C.Kek:
    """A key-encryption key from exactly one source.

    Args:
        key_file: A file that holds 32 raw bytes or 64 hex digits.
        key: The same as bytes or text, or a function that gives it (a key store).
        key_env: The name of an environment variable that holds 64 hex digits.

    Raises:
        ValueError: none or several are given, or what is there is no key.
        KeyError: the environment has no such variable.
        OSError: the file cannot be read.
    """
    given = [value for value in (key_file, key, key_env) if value is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of key_file, key and key_env, got {len(given)}")
    if key_file is not None:
        return _kek(Path(key_file).read_bytes(), f"the file {os.fspath(key_file)}")
    if key_env is not None:
        if key_env not in os.environ:
            raise KeyError(f"the environment has no variable {key_env!r} with a key")
        return _kek(os.environ[key_env], f"the environment variable {key_env}")
    found = key() if callable(key) else key
    if not isinstance(found, (bytes, bytearray, str)):
        raise TypeError(f"a key is bytes or text, got {type(found).__name__}")
    return _kek(bytes(found) if isinstance(found, bytearray) else found, "the key given")


def default_key() -> _C.Kek | None:
    """The key that ``RUBRISCOPE_KEY_FILE`` or ``RUBRISCOPE_KEY`` names, or None."""
    if file := os.environ.get(KEY_FILE_VARIABLE):
        return load_key(key_file=file)
    return load_key(key_env=KEY_VARIABLE) if os.environ.get(KEY_VARIABLE) else None


def _kek(key: bytes | str, where: str) -> _C.Kek:
    try:
        return _C.Kek(key.encode() if isinstance(key, str) else key)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


class EncryptedDatabaseSink(_C.SqliteSink):
    """A database in which what was recorded is encrypted (AES-256-GCM), before it leaves the process.

    A recorder with it has no other sink. Give exactly one of the keys; see :func:`load_key`.

    Args:
        target: A path or ``sqlite:///…`` URL; a ``postgresql://…`` URL gives an
            :class:`EncryptedPostgresSink`.
        key_file, key, key_env: Where the key-encryption key comes from.

    Raises:
        SealedError: the database was encrypted with another key.
        ValueError: no key, several, or none that is one.
        FormatError: the database is not rubriscope's, or of another format; it was left as it was.
        ImportError: a ``postgresql://`` URL, and no psycopg.
    """

    def __new__(cls, target: str | os.PathLike[str], **key_source: Any) -> Any:
        if _postgres_url.is_postgres(target):
            return EncryptedPostgresSink(os.fspath(target), **key_source)
        return super().__new__(cls)

    def __init__(
        self,
        target: str | os.PathLike[str],
        *,
        key_file: str | os.PathLike[str] | None = None,
        key: Key | None = None,
        key_env: str | None = None,
    ) -> None:
        self.key_source: dict[str, Any] = {"key_file": key_file, "key": key, "key_env": key_env}
        kek = load_key(**self.key_source)
        super().__init__(DatabaseSink.path_of(target))
        self.vault = self.open_vault(kek)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.target, self.key_source)


class EncryptedPostgresSink(PostgresSink):
    """The same on a PostgreSQL server."""

    def __init__(
        self,
        url: str,
        *,
        key_file: str | os.PathLike[str] | None = None,
        key: Key | None = None,
        key_env: str | None = None,
    ) -> None:
        self.key_source: dict[str, Any] = {"key_file": key_file, "key": key, "key_env": key_env}
        kek = load_key(**self.key_source)
        super().__init__(url)
        with _postgres.connect(self.target) as connection:
            _postgres.prepare(connection, self.target)
            connection.execute(
                "INSERT INTO vault VALUES (1, %s) ON CONFLICT DO NOTHING", (_C.Vault(kek).wrapped_search_key,)
            )
            (stored,) = connection.execute("SELECT search_key FROM vault").fetchone() or (b"",)
        try:
            self.vault = _C.Vault(kek, stored)
        except SealedError as error:
            raise SealedError(f"{self.target}: {error}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.target, self.key_source)


def _reopen(target: str, source: dict[str, Any]) -> Any:
    return EncryptedDatabaseSink(target, **source)


def has_vault(sink: Any) -> bool:
    """Whether a recorder encrypts for this sink."""
    return getattr(sink, "vault", None) is not None


def vault_of(sinks: list[Any]) -> _C.Vault | None:
    """The vault of a recorder with these sinks.

    Raises:
        ValueError: encrypted and plain sinks are mixed, or an encrypted database is given as a plain one.
    """
    encrypted = [sink for sink in sinks if has_vault(sink)]
    if not encrypted:
        for sink in sinks:
            if _is_encrypted(sink):
                raise ValueError(
                    f"{sink.target} is encrypted: record with rs.EncryptedDatabaseSink(…) and its key, "
                    "or into another database"
                )
        return None
    if len(sinks) != 1:
        others = ", ".join(target_of(sink) for sink in sinks if sink is not encrypted[0])
        raise ValueError(
            f"a recorder with the encrypted sink {encrypted[0].target} has no other, got also {others}: "
            "what is recorded would be there in the clear"
        )
    vault: _C.Vault = encrypted[0].vault
    return vault


def _is_encrypted(sink: Any) -> bool:
    try:
        return bool(getattr(sink, "is_encrypted", False))
    except (SinkError, _postgres.LinkError, OSError):
        return False  # it cannot be looked at now: the recorder says so, and tries again


def rotate(target: str | os.PathLike[str], before: _C.Kek, now: _C.Kek) -> tuple[int, int]:
    """Wraps a database's keys by another key-encryption key; no record is written.

    It may be interrupted at any time, and done again.

    Returns:
        How many keys were wrapped anew, and how many were already.

    Raises:
        SealedError: a key was wrapped by neither of the two; nothing was changed.
        FormatError: not an encrypted recording.
    """
    if _postgres_url.is_postgres(target):
        return _rotate_postgres(_postgres_url.remember(os.fspath(target)), before, now)
    rewrapped, already = _C.rotate_keys(str(_database(target)), before, now)
    return int(rewrapped), int(already)


def _rotate_postgres(url: str, before: _C.Kek, now: _C.Kek) -> tuple[int, int]:
    counts = [0, 0]

    def rewrap(wrapped: bytes, purpose: str) -> bytes | None:
        try:
            anew: bytes | None = before.rewrap(wrapped, purpose, now)
        except SealedError as error:
            raise SealedError(f"{url}: {error}") from None
        counts[anew is None] += 1
        return anew

    with _open_postgres(url) as connection, connection.transaction():
        search = connection.execute("SELECT search_key FROM vault FOR UPDATE").fetchone()
        if search is None:
            raise FormatError(f"{url} is not encrypted: it has no keys to rotate")
        if (anew := rewrap(search[0], _C._SEARCH_KEY_PURPOSE)) is not None:
            connection.execute("UPDATE vault SET search_key = %s", (anew,))
        keys = connection.execute(
            "SELECT k.writer_key, k.wrapped_key, s.uuid, w.writer_id FROM vault_keys k JOIN writers w "
            "USING(writer_key) JOIN sessions s USING(session_id) ORDER BY k.writer_key"
        ).fetchall()
        for writer_key, wrapped, session_id, writer_id in keys:
            if (anew := rewrap(wrapped, _C._data_key_purpose(session_id, writer_id))) is not None:
                connection.execute(
                    "UPDATE vault_keys SET wrapped_key = %s WHERE writer_key = %s", (anew, writer_key)
                )
    return counts[0], counts[1]


def _shred_postgres(url: str, session: Session) -> int:
    with _open_postgres(url) as connection:
        with connection.transaction():
            is_open = connection.execute(
                "SELECT 1 FROM writers WHERE session_id = %s AND closed_ns IS NULL LIMIT 1", (session.id,)
            ).fetchone()
            if is_open is not None:
                raise ValueError(
                    f"session {session.uuid} has writers that are recording, or died and were not recovered"
                )
            destroyed = connection.execute(
                "DELETE FROM vault_keys WHERE writer_key IN "
                "(SELECT writer_key FROM writers WHERE session_id = %s)",
                (session.id,),
            ).rowcount
        connection.autocommit = True
        connection.execute("VACUUM FULL vault_keys")  # a new file; the old one is removed
        return destroyed


def _open_postgres(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    connection = _postgres.connect(url)
    if not _postgres.has_tables(connection, url):
        connection.close()
        raise FormatError(f"{url} holds no recording")
    return connection


def shred(target: str | os.PathLike[str], session: str | int | Session) -> int:
    """Destroys the data keys of a session: nobody can read it any more, with whatever key.

    Its ledger still verifies, and it is still listed.

    Returns:
        How many keys there were.

    Raises:
        ValueError: the session is being recorded, or waits for its recovery.
    """
    from .film import Film

    with Film(target) as film:
        found = film.session(session)
    if _postgres_url.is_postgres(target):
        return _shred_postgres(_postgres_url.remember(os.fspath(target)), found)
    return int(_C.shred_session(str(_database(target)), found.uuid))


def _database(target: str | os.PathLike[str]) -> Path:
    from .film import resolve_target

    text = os.fspath(target)
    if urlsplit(text).scheme not in ("", "sqlite"):
        raise ValueError(f"{text!r} is no database")
    path, kind = resolve_target(target)
    if kind != "sqlite":
        raise FormatError(f"{path} is not encrypted: it has no keys")
    return path
