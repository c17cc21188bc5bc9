// Whether the tracer is on, where its spans go, and its trace points.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "rubriscope/binding/py_recorder.h"
#include "rubriscope/recorder/event.h"
#include "rubriscope/trace/layer.h"

namespace rubriscope::binding {

/// How severe an event is. Spans are info; blocked and errors are warn.
enum class TraceLevel : int { debug = 0, info = 1, warn = 2 };

/// A place in the program that traces: layer, operation and component. Lives as long as the process.
struct TracePoint {
  struct Output {
    std::shared_ptr<PyRecorder> recorder;
    std::uint32_t schema;
  };

  const Layer* layer{};
  std::string operation;
  std::string component;
  bool observed{false};      ///< goes where observations go, and also while the tracer is off
  std::uint64_t version{0};  ///< trace_version() when `outputs` was made
  std::vector<Output> outputs;
};

struct TraceState {
  bool enabled{false};
  TraceLevel least{TraceLevel::info};
  std::shared_ptr<PyRecorder> file;  ///< of trace.jsonl, or null
  std::uint64_t configured{0};       ///< how often `file` was set
  std::uint64_t lost{0};             ///< events refused, or that could not be made
};
extern TraceState& g_trace;

/// The point of three str. A new one where it is not known. nullptr with an exception set (ValueError: no
/// such layer; TypeError: no str).
TracePoint* point_of(PyObject* layer, PyObject* operation, PyObject* component);

/// The trace point of MultimodalTracer's traces.
TracePoint* multimodal_point();

/// The points let go of their recorders, or these would never end. They find them anew when they are used.
void forget_trace_outputs();

/// Writes an event to every output of its point; `event.schema` and `event.position` are filled in here.
/// Never raises: what is lost is counted, and the first time reported. Gives up the GIL where the journal is
/// full.
void publish_to_outputs(TracePoint& point, Event& event);

/// Adds what Python needs of the tracer. False with an exception set.
bool add_trace_types(PyObject* module);

}  // namespace rubriscope::binding
