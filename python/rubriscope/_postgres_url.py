"""PostgreSQL URLs: with the password to connect, without it wherever they are shown, stored or compared."""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

_SECRET_OPTIONS = ("password", "sslpassword")

#: Public URL → the URL it was given as, in this process. What is kept, pickled or found in a journal is the
#: public one; whoever opens it again here gets the password back.
_given: dict[str, str] = {}


def is_postgres(target: object) -> bool:
    """Whether a target is a PostgreSQL URL."""
    return isinstance(target, str) and re.match(r"postgres(ql)?:", target, re.IGNORECASE) is not None


def public_url(url: str) -> str:
    """The URL without its passwords, scheme ``postgresql``.

    Raises:
        ValueError: no ``postgresql://`` URL. The message does not repeat it: what cannot be parsed cannot be
            redacted.
    """
    scheme, _, rest = url.partition(":")
    if not rest.startswith("//"):
        raise ValueError(
            f"a PostgreSQL target is {scheme}://user@host:port/database, got no // after the scheme"
        )
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the {scheme}:// URL cannot be parsed") from None
    if parts.fragment or "@" in parts.path or "@" in parts.query:
        raise ValueError(
            f"the {scheme}:// URL cannot be parsed: percent-encode @ : / ? # % in its user and password"
        )
    user, at, hosts = parts.netloc.rpartition("@")
    options = parse_qsl(parts.query, keep_blank_values=True)
    shown = [(name, value) for name, value in options if name not in _SECRET_OPTIONS]
    query = parts.query if len(shown) == len(options) else urlencode(shown)
    return f"postgresql://{user.partition(':')[0]}{at}{hosts}{parts.path}{'?' if query else ''}{query}"


def secrets_of(url: str) -> list[str]:
    """The passwords in a URL, as they are and as they are written there."""
    parts = urlsplit(url)
    found = [parts.netloc.rpartition("@")[0].partition(":")[2]]
    for option in parts.query.split("&"):
        name, _, value = option.partition("=")
        if name in _SECRET_OPTIONS:
            found.append(value)
    found += [unquote(secret) for secret in found]
    found.append(os.environ.get("PGPASSWORD", ""))
    return sorted({secret for secret in found if secret}, key=len, reverse=True)


def remember(url: str) -> str:
    """Keeps a URL's password for this process and what it starts; returns the public URL."""
    public = public_url(url)
    if url != public and secrets_of(url):
        _given[public] = url
    return public


def complete(url: str) -> str:
    """The URL to connect with: with the password this process was given for it, where it has none itself."""
    return _given.get(public_url(url), url)


def given_for(targets: list[object]) -> dict[str, str]:
    """The passwords of those targets, for a copy of the recorder in another process."""
    return {target: _given[target] for target in targets if isinstance(target, str) and target in _given}


def take(given: dict[str, str]) -> None:
    """The other end of :func:`given_for`."""
    _given.update(given)
