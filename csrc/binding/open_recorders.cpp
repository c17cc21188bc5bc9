#include "rubriscope/binding/open_recorders.h"

#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/trace_state.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

// Never destroyed: recorders must not close after the interpreter has ended, and calls of exit handlers may
// still be observed.
auto& g_open = *new std::vector<std::shared_ptr<PyRecorder>>;
auto& g_attached = *new std::shared_ptr<PyRecorder>;
std::uint64_t g_version = 1;
const std::shared_ptr<PyRecorder> kNone;

}  // namespace

const std::shared_ptr<PyRecorder>& current_recorder() { return g_open.empty() ? kNone : g_open.back(); }

const std::shared_ptr<PyRecorder>& sight_recorder() {
  return g_attached != nullptr ? g_attached : current_recorder();
}

std::uint64_t open_recorders_version() { return g_version; }

void recorder_opened(std::shared_ptr<PyRecorder> recorder) {
  g_open.push_back(std::move(recorder));
  ++g_version;
}

void recorder_closed(const std::shared_ptr<PyRecorder>& recorder) {
  const bool attached = g_attached == recorder;
  if (attached) g_attached = nullptr;
  if (std::erase(g_open, recorder) == 0 && !attached) return;
  ++g_version;
  forget_trace_outputs();
}

void attach_sight_recorder(std::shared_ptr<PyRecorder> recorder) {
  g_attached = std::move(recorder);
  ++g_version;
  forget_trace_outputs();
}

void bind_open_recorders(py::module_& m) {
  m.def("_recorder_opened", &recorder_opened, py::arg("recorder"));
  m.def("_recorder_closed", &recorder_closed, py::arg("recorder"));
  m.def("sight_recorder", [] {
    const std::shared_ptr<PyRecorder>& recorder = sight_recorder();
    return recorder != nullptr ? std::optional(recorder) : std::nullopt;
  });
  m.def(
      "sight_attach",
      [](const std::optional<std::shared_ptr<PyRecorder>>& recorder) {
        attach_sight_recorder(recorder.value_or(nullptr));
      },
      py::arg("recorder"));
}

}  // namespace rubriscope::binding
