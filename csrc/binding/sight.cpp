// pybind11 bindings of sight points: their table, `with` blocks, figures and the window. The calls of a
// decorated function do not pass through here (sight_type.cpp).
#include "rubriscope/binding/sight.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <map>
#include <optional>
#include <tuple>

#include "rubriscope/binding/modules.h"
#include "rubriscope/core/clock.h"
#include "rubriscope/core/errors.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

// Points live as long as the process: functions and the window refer to them.
std::map<std::string, std::unique_ptr<SightPoint>, std::less<>>& points() {
  static auto* const table = new std::map<std::string, std::unique_ptr<SightPoint>, std::less<>>;
  return *table;
}

SightPoint& make_point(const std::string& name, const std::string& modality,
                       const std::vector<std::string>& metrics,
                       const std::vector<std::pair<std::string, double>>& limits, const std::string& action,
                       const std::optional<std::tuple<double, double, double>>& price) {
  if (points().contains(name)) throw ValueError("there is a sight point \"" + name + "\" already");
  auto point = std::make_unique<SightPoint>(name, modality, metrics, sight_action_of_name(action));
  if (price) point->set_price(std::make_from_tuple<TokenPrice>(*price));
  for (const auto& [metric, limit] : limits) point->add_limit(metric, limit);
  return *points().emplace(name, std::move(point)).first->second;
}

// A frame that is an object: of a `with` block, a coroutine or a generator. The innermost of a context is in
// rubriscope.sight's context variable; `parent` was there before.
class SightSpan {
 public:
  SightSpan(SightPoint& point, py::object parent) {
    frame_.point = &point;
    // What has ended is left out, or tasks that start tasks would hold every one before them.
    while (!parent.is_none() && py::cast<SightSpan&>(parent).ended_) {
      py::object above = py::cast<SightSpan&>(parent).parent_;
      parent = std::move(above);
    }
    parent_ = std::move(parent);
  }

  SightSpan(const SightSpan&) = delete;
  SightSpan& operator=(const SightSpan&) = delete;
  ~SightSpan() { Py_CLEAR(frame_.span); }  // a generator that was dropped never ended

  void begin() { begin_frame(frame_, *frame_.point); }

  // Once: a generator may be closed after it ended.
  void end(const py::object& error, const py::object& positional, const py::dict& kwargs,
           const py::object& result, const py::object& tokens) {
    if (ended_) return;
    if (error.is_none() && !tokens.is_none()) supply_tokens(frame_, tokens.ptr(), result.ptr());
    ended_ = true;
    const py::tuple args(positional);
    std::vector<PyObject*> all;
    py::tuple names(kwargs.size());
    for (const py::handle& one : args) all.push_back(one.ptr());
    std::size_t named = 0;
    for (const auto& [name, value] : kwargs) {
      names[named++] = name;
      all.push_back(value.ptr());
    }
    const SightCall call{all.data(), args.size(), names.ptr(), result.ptr()};
    if (!end_frame(frame_, error.is_none() ? nullptr : error.ptr(), call)) throw py::error_already_set();
  }

  SightFrame frame_{};
  bool ended_{false};
  py::object parent_;
};

// The frame that metric() reaches: the innermost of this thread's plain calls and of the context's spans.
SightFrame* innermost(py::object span) {
  SightFrame* const plain = top_frame();
  while (!span.is_none()) {
    auto& one = py::cast<SightSpan&>(span);
    if (!one.ended_) return plain != nullptr && plain->sequence > one.frame_.sequence ? plain : &one.frame_;
    span = one.parent_;
  }
  return plain;
}

py::dict figures_of(const SightPoint& point) {
  py::dict figures;
  figures["count"] = point.sketch.count();
  figures["errors"] = point.errors;
  figures["total_ms"] = static_cast<double>(point.total_ns) * 1e-6;
  figures["p50_ms"] = point.sketch.quantile(0.5) * 1e-6;
  figures["p95_ms"] = point.sketch.quantile(0.95) * 1e-6;
  figures["p99_ms"] = point.sketch.quantile(0.99) * 1e-6;
  figures["last"] = static_cast<double>(point.last_ns) * 1e-6;
  return figures;
}

py::object text_or_none(const std::string& text) {
  return text.empty() ? py::object(py::none()) : py::object(py::str(text));
}

py::tuple tuple_of(const SightObservation& one) {
  py::dict metrics;
  for (std::size_t k = 0; k < one.values.size(); ++k) {
    if (!std::isnan(one.values[k])) metrics[py::str(one.point->metrics()[k])] = one.values[k];
  }
  return py::make_tuple(one.point->name(), one.point->modality(), wall_ns(one.end_tick), one.duration_ns,
                        std::string(outcome_name(one.outcome)), metrics, text_or_none(one.trace_id),
                        text_or_none(one.parent_id));
}

py::list last_observations(std::size_t last) {
  const SightWindow& window = sight_window();
  py::list list;
  for (std::size_t i = window.size() - std::min(last, window.size()); i < window.size(); ++i) {
    list.append(tuple_of(window.at(i)));
  }
  return list;
}

// With the ticks of their ends before them, by which MultimodalTracer puts its own events in between.
py::list observations_of_trace(const std::string& trace_id) {
  const SightWindow& window = sight_window();
  py::list list;
  for (std::size_t i = 0; i < window.size(); ++i) {
    const SightObservation& one = window.at(i);
    if (one.trace_id == trace_id) list.append(py::make_tuple(one.end_tick, tuple_of(one)));
  }
  return list;
}

py::tuple tuple_of(const CostSum& sum) {
  return py::make_tuple(sum.calls, sum.tokens, sum.input_tokens, sum.output_tokens, sum.cost(), sum.unknown);
}

py::dict all_costs() {
  py::list by_point;
  for (const auto& [name, point] : points()) {
    if (point->billed()) by_point.append(py::make_tuple(name, point->modality(), tuple_of(point->costs)));
  }
  py::list by_trace;
  trace_costs().for_each([&](const std::string& trace, const CostSum& sum) {
    by_trace.append(py::make_tuple(trace, tuple_of(sum)));
  });
  py::dict all;
  all["by_point"] = by_point;
  all["by_trace"] = by_trace;
  all["dropped_traces"] = trace_costs().dropped();
  all["dropped"] = tuple_of(trace_costs().of_dropped());
  return all;
}

}  // namespace

SightPoint& sight_point_named(std::string_view name) {
  const auto found = points().find(name);
  if (found != points().end()) return *found->second;
  throw KeyError("no sight point \"" + std::string(name) + "\"");
}

void bind_sight(py::module_& m) {
  py::class_<SightSpan>(m, "SightSpan")
      .def(py::init([](const std::string& name, py::object parent) {
             return std::make_unique<SightSpan>(sight_point_named(name), std::move(parent));
           }),
           py::arg("name"), py::arg("parent"))
      .def("begin", &SightSpan::begin)
      .def("end", &SightSpan::end, py::arg("error"), py::arg("args") = py::tuple(),
           py::arg("kwargs") = py::dict(), py::arg("result") = py::none(), py::arg("tokens") = py::none())
      .def("metric", [](SightSpan& span, const std::string& name, double value) {
        if (!span.ended_) span.frame_.metric(name, value);
        return !span.ended_;
      });
  m.def(
      "sight_make_point",
      [](const std::string& name, const std::string& modality, const std::vector<std::string>& metrics,
         const std::vector<std::pair<std::string, double>>& limits, const std::string& action,
         const std::optional<std::tuple<double, double, double>>& price) {
        make_point(name, modality, metrics, limits, action, price);
      },
      py::arg("name"), py::arg("modality"), py::arg("metrics"), py::arg("limits"), py::arg("action"),
      py::arg("price") = py::none(), "`price`: (input, output, per) of its tokens.");
  m.def("sight_point_handle", [](const std::string& name) {
    return py::capsule(&sight_point_named(name), "rubriscope.SightPoint");
  });
  m.def("sight_enabled", [](const std::string& name) { return sight_point_named(name).enabled; });
  m.def("sight_enable",
        [](const std::string& name, bool enabled) { sight_point_named(name).enabled = enabled; });
  m.def(
      "sight_metric",
      [](py::object span, const std::string& name, double value) {
        SightFrame* const frame = innermost(std::move(span));
        if (frame != nullptr) frame->metric(name, value);
        return frame != nullptr;
      },
      py::arg("span"), py::arg("name"), py::arg("value"));
  m.def("sight_figures", [] {
    py::dict all;
    for (const auto& [name, point] : points()) all[py::str(name)] = figures_of(*point);
    return all;
  });
  m.def("sight_observations", &last_observations, py::arg("last"));
  m.def("sight_observations_of_trace", &observations_of_trace, py::arg("trace_id"));
  m.def("sight_costs", &all_costs);
  m.def("_ticks", &ticks);
  m.def("_wall_ns", &wall_ns, py::arg("ticks"));
  m.def("sight_failures", &sight_failures);
  m.def("sight_contain", [](const py::object& error) {
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
    contain_sight_failure();
  });
}

}  // namespace rubriscope::binding
