// The Python type `Span`: what `with rs.tracer.span(…) as ctx:` gives.
#pragma once

#include <Python.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "rubriscope/binding/trace_state.h"
#include "rubriscope/core/clock.h"
#include "rubriscope/trace/trace_id.h"

namespace rubriscope::binding {

struct SpanObject {
  PyObject_HEAD;
  SpanObject* parent;   ///< owned; the innermost span of the context it began in, until it ends
  TracePoint* point;    ///< nullptr: a span of another process, never written
  PyObject* input;      ///< owned
  PyObject* output;     ///< owned
  std::uint64_t start;  ///< ticks
  ClockTimes started;   ///< the same by both clocks
  std::uint64_t random;
  TraceNumber trace;
  Outcome outcome;
  bool foreign;  ///< the trace began in another process
  bool began;    ///< has an id
  bool entered;  ///< is in a `with`
  bool ended;
  bool event_if_unused;  ///< a typed helper's: written as an event when it was never entered
  bool out_of_order;     ///< ended while another span was innermost
  bool sampled;          ///< W3C flag, of a span of another process
  bool is_trace;  ///< a MultimodalTracer's: what is inside carries its id, and it is written in any case
  std::uint8_t id_size;
  std::uint8_t parent_id_size;
  std::uint8_t trace_id_size;
  char id[kMostTraceId];
  char parent_id[kMostTraceId];
  char trace_id[kMostTraceId];  ///< of the innermost trace around it, else of its tree's root
  std::string members;          ///< metadata
  std::string trace_state;      ///< W3C tracestate from another process, without our own member

  std::string_view id_text() const { return {id, id_size}; }
  std::string_view parent_id_text() const { return {parent_id, parent_id_size}; }
  std::string_view trace_id_text() const { return {trace_id, trace_id_size}; }
  void set_trace_id(std::string_view text);
};

extern PyTypeObject SpanType;

/// The innermost span of this context, a new reference, or nullptr; never leaves an exception set. A trace
/// that has ended is passed over, in whatever context that was.
SpanObject* innermost_span();

/// Makes spans: nullptr with an exception set.
SpanObject* new_span(TracePoint* point, PyObject* input);

/// Gives it its id, parent and start. Never leaves an exception set.
void begin(SpanObject* span);

/// Writes it. Never leaves an exception set.
void write_span(SpanObject* span, std::uint64_t duration_ns, TraceLevel level);

/// Adds Span and the span that stands for none while the tracer is off. False with an exception set.
bool add_span_type(PyObject* module);

/// While the tracer is off: one object for all. Borrowed.
PyObject* no_span();

}  // namespace rubriscope::binding
