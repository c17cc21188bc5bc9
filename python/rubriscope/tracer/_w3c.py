"""W3C Trace Context (https://www.w3.org/TR/trace-context/): a trace across processes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any

from .. import _C

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)
_ID = re.compile(r"[a-z][a-z0-9]{1,15}_[0-9]{1,20}_[0-9a-f]{16}", re.ASCII)
_OURS = "rubriscope="
_MOST_MEMBERS = 32


def inject(headers: MutableMapping[str, str]) -> None:
    """Adds ``traceparent`` and ``tracestate`` of the innermost span; without a span nothing is added.

    Our member of ``tracestate`` is the span's whole id; what came from other systems is passed on.
    """
    span = _C.current_span()
    if span is None or span.traceparent is None:
        return
    headers["traceparent"] = span.traceparent
    members = [member for member in span._trace_state.split(",") if member]
    if "_" in span.trace_id:  # not another system's span, passed on as it came
        members = [_OURS + span.trace_id, *members[: _MOST_MEMBERS - 1]]
    if members:
        headers["tracestate"] = ",".join(members)
    else:
        headers.pop("tracestate", None)


def extract(headers: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """``with rs.tracer.extract(headers):`` spans inside have the sender's span as their parent.

    Headers are looked up without regard to case. Where there is no valid ``traceparent`` (malformed, version
    ff, an id of zeros, anything after version 00's flags), spans inside begin a trace of their own, as the
    standard says. Of a newer version the four known fields are read.
    """
    found = {str(name).lower(): value for name, value in headers.items()}
    parent = _text(found.get("traceparent")).strip(" \t")
    match = _TRACEPARENT.fullmatch(parent)
    if match is None:
        return contextlib.nullcontext()
    version, trace, span, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return contextlib.nullcontext()
    if not int(trace, 16) or not int(span, 16):
        return contextlib.nullcontext()
    own, others = _trace_state(_text(found.get("tracestate")))
    # Only where nobody in between made a span of their own is our member the parent.
    identity = own if own.endswith("_" + span) else span
    return _C._trace_remote(identity, trace, span, bool(int(flags, 16) & 1), ",".join(others))


def _text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("latin-1")
    if isinstance(value, (list, tuple)):  # a header sent several times
        return ",".join(_text(one) for one in value)
    return value if isinstance(value, str) else ""


def _trace_state(text: str) -> tuple[str, list[str]]:
    """Our member's id, and the members of others; nothing of what is malformed."""
    own, others = "", []
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    names = [member.partition("=")[0] for member in members]
    if (
        len(members) > _MOST_MEMBERS
        or len(set(names)) != len(names)
        or not all(_MEMBER.fullmatch(member) for member in members)
    ):
        return "", []
    for member in members:
        if member.startswith(_OURS):
            own = member.removeprefix(_OURS)
        else:
            others.append(member)
    return (own if _ID.fullmatch(own) else ""), others
