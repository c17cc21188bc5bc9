// Injections at sight points: the values of a call for their expressions, and their table for Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/sight.h"
#include "rubriscope/core/errors.h"

namespace py = pybind11;

namespace rubriscope::binding {

namespace {

// An object's own code failed, which makes a value unknown. An interrupt is for the program.
void forget_failure() {
  if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt) != 0) PyErr_SetInterrupt();
  PyErr_Clear();
}

ExpressionValue value_of(PyObject* object) {
  using Kind = ExpressionValue::Kind;
  if (object == Py_None) return {Kind::none};
  if (PyBool_Check(object)) return ExpressionValue::of(object == Py_True);
  if (PyUnicode_Check(object)) {
    Py_ssize_t size = 0;
    const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 != nullptr) return ExpressionValue::of(std::string(utf8, static_cast<std::size_t>(size)));
    PyErr_Clear();  // lone surrogates
    return {Kind::opaque};
  }
  if (PyTypeObject* const tensor = tensor_type(); tensor != nullptr && PyObject_TypeCheck(object, tensor)) {
    // float() of one that requires a gradient warns.
    const auto item = py::reinterpret_steal<py::object>(PyObject_CallMethod(object, "item", nullptr));
    if (item) return value_of(item.ptr());
    forget_failure();  // more than one element
    return {Kind::opaque};
  }
  const PyNumberMethods* const numbers = Py_TYPE(object)->tp_as_number;
  if (numbers == nullptr || (numbers->nb_float == nullptr && numbers->nb_index == nullptr)) {
    return {Kind::opaque};
  }
  const double number = PyFloat_AsDouble(object);
  if (number == -1.0 && PyErr_Occurred() != nullptr) {
    forget_failure();  // such as an array of more than one element
    return {Kind::opaque};
  }
  return ExpressionValue::of(number);
}

class PyCallEnvironment : public CallEnvironment {
 public:
  PyCallEnvironment(const SightPoint& point, std::uint64_t duration_ns, PyObject* error,
                    const SightCall& call, std::span<const double> values)
      : point_(point), duration_ns_(duration_ns), error_(error), call_(call), values_(values) {}

  ExpressionValue value(const CallReference& reference) override {
    switch (reference.part) {
      case CallPart::execution_time:
        return ExpressionValue::of(static_cast<double>(duration_ns_) * 1e-6);
      case CallPart::cpu_time:
        return metric("cpu_time_ms");
      case CallPart::metric:
        return metric(reference.name);
      case CallPart::error:
        if (error_ == nullptr) return {ExpressionValue::Kind::none};
        return ExpressionValue::of(std::string(Py_TYPE(error_)->tp_name));
      default:
        break;
    }
    const py::object object = resolve(reference);
    return object ? value_of(object.ptr()) : ExpressionValue{};
  }

  ExpressionValue length(const CallReference& reference) override {
    const py::object object = resolve(reference);
    const Py_ssize_t size = object ? PyObject_Size(object.ptr()) : -1;
    if (PyErr_Occurred() != nullptr) forget_failure();
    return size < 0 ? ExpressionValue{} : ExpressionValue::of(static_cast<double>(size));
  }

  std::string describe(const CallReference& reference) override {
    static PyObject* function = nullptr;
    PyObject* const tell = import_once(function, "rubriscope.code_sight._actions", "object_text");
    const py::object object = resolve(reference);
    const auto text = py::reinterpret_steal<py::object>(
        tell != nullptr && object ? PyObject_CallOneArg(tell, object.ptr()) : nullptr);
    if (text) return py::cast<std::string>(text);
    if (PyErr_Occurred() != nullptr) contain_sight_failure();
    return "?";
  }

 private:
  ExpressionValue metric(std::string_view name) const {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      if (point_.metrics()[i] == name && !std::isnan(values_[i])) return ExpressionValue::of(values_[i]);
    }
    return {};
  }

  // The object that a reference begins with; nothing where the call has none.
  py::object root(const CallReference& reference) const {
    switch (reference.part) {
      case CallPart::result:
        return py::reinterpret_borrow<py::object>(error_ == nullptr ? call_.result : nullptr);
      case CallPart::positional:
        if (reference.place >= call_.count) return {};
        return py::reinterpret_borrow<py::object>(call_.args[reference.place]);
      case CallPart::rest: {
        py::list rest;
        for (std::size_t i = reference.place; i < call_.count; ++i) rest.append(py::handle(call_.args[i]));
        return py::tuple(rest);
      }
      default:
        break;
    }
    const Py_ssize_t named = call_.keywords != nullptr ? PyTuple_GET_SIZE(call_.keywords) : 0;
    for (Py_ssize_t i = 0; i < named; ++i) {
      if (PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(call_.keywords, i), reference.name.c_str()) ==
          0) {
        return py::reinterpret_borrow<py::object>(call_.args[call_.count + static_cast<std::size_t>(i)]);
      }
    }
    return {};
  }

  py::object resolve(const CallReference& reference) const {
    py::object object = root(reference);
    for (const PathStep& step : reference.steps) {
      if (!object) return {};
      PyObject* next = nullptr;
      if (step.kind == PathStep::Kind::attribute) {
        next = PyObject_GetAttrString(object.ptr(), step.name.c_str());
      } else {
        const py::object key = step.kind == PathStep::Kind::index ? py::object(py::int_(step.index))
                                                                  : py::object(py::str(step.name));
        next = PyObject_GetItem(object.ptr(), key.ptr());
      }
      if (next == nullptr) forget_failure();
      object = py::reinterpret_steal<py::object>(next);
    }
    return object;
  }

  const SightPoint& point_;
  std::uint64_t duration_ns_;
  PyObject* error_;
  const SightCall& call_;
  std::span<const double> values_;
};

Injection* find(const SightPoint& point, const std::string& id) {
  if (point.injections == nullptr) return nullptr;
  for (const auto& one : *point.injections) {
    if (one->id == id) return one.get();
  }
  return nullptr;
}

Injection& injection_of(const SightPoint& point, const std::string& id) {
  if (Injection* const found = find(point, id)) return *found;
  throw KeyError("no injection \"" + id + "\"");
}

void inject(SightPoint& point, std::shared_ptr<Injection> injection) {
  auto all = point.injections != nullptr ? *point.injections : SightInjections{};
  all.push_back(std::move(injection));
  point.injections = std::make_shared<const SightInjections>(std::move(all));
}

std::shared_ptr<Injection> made(const std::string& id, const std::string& action) {
  auto injection = std::make_shared<Injection>();
  injection->id = id;
  injection->action = sight_action_of_name(action);
  return injection;
}

// Positional, keyword-only, the name behind `*`, whether there is a `**`.
using Parameters = std::tuple<std::vector<std::string>, std::vector<std::string>, std::string, bool>;

CallSignature signature_of(const Parameters& parameters) {
  const auto& [positional, keyword_only, rest, any_keyword] = parameters;
  return {positional, keyword_only, rest, any_keyword};
}

void inject_metric(const std::string& name, const std::string& id, const std::string& metric,
                   const Parameters& signature, std::optional<double> limit, const std::string& action) {
  SightPoint& point = sight_point_named(name);
  auto injection = made(id, action);
  injection->value.emplace(metric, signature_of(signature));
  if (injection->value->reference() == nullptr || injection->value->reference()->part == CallPart::metric) {
    throw ValueError("no metric \"" + metric +
                     "\" (there are execution_time_ms, cpu_time_ms, result, args.NAME and result.NAME)");
  }
  injection->limit = limit;
  injection->metric = point.metric(metric);
  inject(point, std::move(injection));
}

void inject_log(const std::string& name, const std::string& id, const std::optional<std::string>& condition,
                const std::string& message, const Parameters& signature, const std::string& action,
                const std::string& level) {
  SightPoint& point = sight_point_named(name);
  auto injection = made(id, action);
  const CallSignature parameters = signature_of(signature);
  if (condition) injection->condition.emplace(*condition, parameters);
  injection->message.emplace(message, parameters);
  injection->level = level;
  // The thread's CPU time is measured where it is a metric.
  if ((condition ? *condition + message : message).find("cpu_time_ms") != std::string::npos) {
    point.metric("cpu_time_ms");
  }
  inject(point, std::move(injection));
}

void remove(const std::string& name, const std::string& id) {
  SightPoint& point = sight_point_named(name);
  injection_of(point, id);
  SightInjections rest = *point.injections;
  std::erase_if(rest, [&](const auto& one) { return one->id == id; });
  point.injections = rest.empty() ? nullptr : std::make_shared<const SightInjections>(std::move(rest));
}

}  // namespace

std::vector<InjectionHit> probe_call(const SightFrame& frame, std::uint64_t duration_ns, PyObject* error,
                                     const SightCall& call, std::span<double> values) {
  const auto injections = frame.point->injections;  // code that a value runs may remove some
  PyCallEnvironment environment(*frame.point, duration_ns, error, call, values);
  return run_injections(*injections, environment, values);
}

void bind_sight_injections(py::module_& m) {
  m.def("sight_inject_metric", &inject_metric, py::arg("point"), py::arg("id"), py::arg("metric"),
        py::arg("signature"), py::arg("limit"), py::arg("action"));
  m.def("sight_inject_log", &inject_log, py::arg("point"), py::arg("id"), py::arg("condition"),
        py::arg("message"), py::arg("signature"), py::arg("action"), py::arg("level"));
  m.def("sight_remove_injection", &remove, py::arg("point"), py::arg("id"));
  m.def(
      "sight_enable_injection",
      [](const std::string& point, const std::string& id, bool enabled) {
        injection_of(sight_point_named(point), id).enabled = enabled;
      },
      py::arg("point"), py::arg("id"), py::arg("enabled"));
  m.def(
      "sight_injection_counts",
      [](const std::string& point, const std::string& id) {
        const Injection& one = injection_of(sight_point_named(point), id);
        return std::tuple(one.enabled, one.hits, one.undecided);
      },
      "Whether it is enabled, and how often it acted and could not be decided.", py::arg("point"),
      py::arg("id"));
}

}  // namespace rubriscope::binding
