"""W3C Trace Context: https://www.w3.org/TR/trace-context/, against OpenTelemetry's propagator."""

from __future__ import annotations

import pytest
import rubriscope as rs
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace as otel
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

tracer = rs.tracer
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(autouse=True)
def _on():
    tracer.enable(None, "warn")
    yield
    tracer.disable()


def seen(headers):
    """The parent's id and the trace of a span below these headers."""
    with tracer.extract(headers), tracer.span("sys", "inside") as ctx:
        return ctx.parent_id, ctx.w3c_trace_id


@pytest.mark.parametrize(
    "parent",
    [
        f"00-{TRACE}-{SPAN}-01",
        f" 00-{TRACE}-{SPAN}-00\t",
        f"00-{TRACE}-{SPAN}-ff",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-comes",
    ],
)
def test_valid(parent):
    assert seen({"TraceParent": parent}) == (SPAN, TRACE)


@pytest.mark.parametrize(
    "parent",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.what",
        f"0-{TRACE}-{SPAN}-01",
    ],
)
def test_invalid_begins_a_trace_of_its_own(parent):
    found, trace = seen({"traceparent": parent})
    assert found is None
    assert trace != TRACE


@settings(max_examples=300, deadline=None)
@given(
    text=st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{31,33}-[0-9a-f]{15,17}-[0-9a-f]{1,3}(-[a-z]*)?", fullmatch=True)
)
def test_as_opentelemetry_reads_it(text):
    theirs = otel.get_current_span(TraceContextTextMapPropagator().extract({"traceparent": text}))
    context = theirs.get_span_context()
    expected = (f"{context.span_id:016x}", f"{context.trace_id:032x}") if context.is_valid else None
    found, trace = seen({"traceparent": text})
    assert (None if found is None else (found, trace)) == expected


def test_there_and_back():
    headers = {}
    tracer.inject(headers)
    assert headers == {}
    with tracer.span("alt", "out") as ctx:
        tracer.inject(headers)
    assert headers["traceparent"] == f"00-{ctx.w3c_trace_id}-{ctx.trace_id.rpartition('_')[2]}-01"
    context = otel.get_current_span(TraceContextTextMapPropagator().extract(headers)).get_span_context()
    assert f"{context.trace_id:032x}" == ctx.w3c_trace_id
    assert context.trace_state["rubriscope"] == ctx.trace_id
    assert seen(headers) == (ctx.trace_id, ctx.w3c_trace_id)
    # A proxy that made a span of its own and left our member in place.
    headers["traceparent"] = f"00-{ctx.w3c_trace_id}-{SPAN}-01"
    assert seen(headers) == (SPAN, ctx.w3c_trace_id)


def test_trace_state_is_passed_on():
    headers = {}
    given = {"traceparent": f"00-{TRACE}-{SPAN}-00", "tracestate": ["vendor=a", b"other@sys=b"]}
    with tracer.extract(given):
        tracer.inject(headers)
        assert headers == {"traceparent": given["traceparent"], "tracestate": "vendor=a,other@sys=b"}
        with tracer.span("sys", "one"), tracer.span("sys", "two") as ctx:
            tracer.inject(headers)
    assert headers["traceparent"].endswith("-00")
    assert headers["tracestate"] == f"rubriscope={ctx.trace_id},vendor=a,other@sys=b"


@pytest.mark.parametrize(
    "state", ["a=1,a=2", "A=1", "=1", "a", ",".join(f"k{i}=v" for i in range(33)), "a=\u00e9", "a=1 ,b"]
)
def test_a_malformed_state_is_dropped(state):
    headers = {}
    given = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": state}
    with tracer.extract(given), tracer.span("sys", "one") as ctx:
        tracer.inject(headers)
    assert headers["tracestate"] == f"rubriscope={ctx.trace_id}"
