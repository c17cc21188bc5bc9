#include "rubriscope/binding/trace_state.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <unordered_map>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/open_recorders.h"
#include "rubriscope/binding/py_node.h"
#include "rubriscope/recorder/report.h"
#include "rubriscope/trace/span_schema.h"
#include "rubriscope/trace/trace_id.h"

namespace py = pybind11;

namespace rubriscope::binding {

// Never destroyed: their recorders must not close after the interpreter has ended.
TraceState& g_trace = *new TraceState;

namespace {

auto& g_points = *new std::unordered_map<std::string, std::unique_ptr<TracePoint>>;

// What lies between the two texts of a key in the map of points.
constexpr char kBetween = '\0';

bool text_of(PyObject* object, const char* what, std::string_view& text) {
  if (!PyUnicode_Check(object)) {
    PyErr_Format(PyExc_TypeError, "a trace's %s is a str, got %R", what, object);
    return false;
  }
  Py_ssize_t size = 0;
  const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
  if (utf8 == nullptr) return false;
  text = {utf8, static_cast<std::size_t>(size)};
  return true;
}

TracePoint* find_or_make(PyObject* layer, PyObject* operation, PyObject* component) {
  std::string_view texts[3];
  if (!text_of(layer, "layer", texts[0]) || !text_of(operation, "operation", texts[1]) ||
      !text_of(component, "component", texts[2])) {
    return nullptr;
  }
  try {
    const Layer& found = find_layer(texts[0]);
    std::string key = found.code;
    key.append(1, kBetween).append(texts[1]).append(1, kBetween).append(texts[2]);
    auto& point = g_points[key];
    if (point == nullptr) {
      point = std::make_unique<TracePoint>();
      point->layer = &found;
      point->operation = texts[1];
      point->component = texts[2];
    }
    return point.get();
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

// Changes with the tracer's file and the open recorders.
std::uint64_t trace_version() { return g_trace.configured + open_recorders_version(); }

void lose(const char* why) {
  if (g_trace.lost++ == 0) report("warning", std::string("a trace event is lost: ") + why);
}

bool refresh(TracePoint& point) {
  point.outputs.clear();
  std::vector<std::shared_ptr<PyRecorder>> recorders;
  if (g_trace.file != nullptr) recorders.push_back(g_trace.file);
  const auto& open = point.observed ? sight_recorder() : current_recorder();
  if (open != nullptr) recorders.push_back(open);
  try {
    for (auto& recorder : recorders) {
      const std::uint32_t schema =
          recorder->core().define(span_schema(*point.layer, point.operation, point.component));
      point.outputs.push_back({std::move(recorder), schema});
    }
  } catch (const std::exception& error) {
    lose(error.what());
    return false;
  }
  point.version = trace_version();
  return true;
}

}  // namespace

TracePoint* point_of(PyObject* layer, PyObject* operation, PyObject* component) {
  // A call site gives the same three objects every time. The table keeps them alive, so that an address
  // means one text.
  struct Known {
    PyObject* key[3]{};
    TracePoint* point{};
  };
  static std::array<Known, 256> table;
  const auto mixed = reinterpret_cast<std::uintptr_t>(layer) ^
                     (reinterpret_cast<std::uintptr_t>(operation) * 3) ^
                     (reinterpret_cast<std::uintptr_t>(component) * 7);
  Known& known = table[(mixed >> 4 ^ mixed >> 12) % table.size()];
  if (known.key[0] == layer && known.key[1] == operation && known.key[2] == component) return known.point;
  TracePoint* const point = find_or_make(layer, operation, component);
  if (point == nullptr) return nullptr;
  PyObject* const given[3] = {layer, operation, component};
  for (int i = 0; i < 3; ++i) {
    PyObject* const before = known.key[i];
    known.key[i] = Py_NewRef(given[i]);
    Py_XDECREF(before);
  }
  known.point = point;
  return point;
}

TracePoint* multimodal_point() {
  static TracePoint* const point = [] {
    auto* const made = new TracePoint;
    made->layer = &find_layer("mmt");
    made->operation = "trace";
    made->observed = true;
    return made;
  }();
  return point;
}

void forget_trace_outputs() {
  for (const auto& [key, point] : g_points) point->outputs.clear();
  multimodal_point()->outputs.clear();
}

void publish_to_outputs(TracePoint& point, Event& event) {
  if (point.version != trace_version() && !refresh(point)) return;
  for (std::size_t i = 0; i < point.outputs.size(); ++i) {
    const std::shared_ptr<PyRecorder>& recorder = point.outputs[i].recorder;
    event.schema = point.outputs[i].schema;
    event.position = recorder == g_trace.file ? RecordPosition{{}, 0, kNoGroup, kNoSample}
                                              : recorder->take_log_position(std::nullopt);
    if (try_publish(recorder->core(), event)) [[likely]]
      continue;
    // Other threads run meanwhile: they may make this point's outputs anew, and the position's episode go.
    const std::shared_ptr<PyRecorder> held = recorder;
    const std::string episode(event.position.episode);
    event.position.episode = episode;
    const std::uint64_t version = point.version;
    bool written = false;
    {
      const py::gil_scoped_release release;
      written = publish(held->core(), event);
    }
    if (!written && !held->core().closed()) lose("the journal is full");
    if (point.version != version) return;
  }
}

void bind_trace(py::module_& m) {
  register_layer("mmt", "multimodal");
  m.def(
      "_trace_configure",
      [](bool enabled, int level, std::optional<std::shared_ptr<PyRecorder>> file) {
        g_trace.enabled = enabled;
        g_trace.least = static_cast<TraceLevel>(level);
        g_trace.file = file.value_or(nullptr);
        ++g_trace.configured;
      },
      py::arg("enabled"), py::arg("level"), py::arg("file"));
  m.def("_trace_lost", [] { return g_trace.lost; });
  m.def(
      "register_layer", [](const std::string& code, const std::string& name) { register_layer(code, name); },
      py::arg("code"), py::arg("name"));
  m.def("trace_layers", [] {
    std::vector<std::pair<std::string, std::string>> all;
    for (const Layer& layer : layers()) all.emplace_back(layer.code, layer.name);
    return all;
  });
  m.def(
      "trace_number_of_root", [](const std::string& id) { return trace_number_of_root(id).hex(); },
      py::arg("id"), "The W3C trace id of the tree whose root has this id.");
  if (!add_trace_types(m.ptr())) throw py::error_already_set();
}

}  // namespace rubriscope::binding
