#include "rubriscope/binding/native.h"

#include <pybind11/pybind11.h>

#include <atomic>
#include <cmath>

#include "rubriscope/binding/modules.h"
#include "rubriscope/rubric/algorithms.h"
#include "rubriscope/rubric/text_rubrics.h"

namespace py = pybind11;

namespace rubriscope::binding {

bool g_any_native = false;

bool scan_native_tree(PyNode& root) {
  if (!is_fresh(root) && !refresh_forward(root)) {
    PyErr_Clear();  // the call itself will raise it
    return false;
  }
  if (root.kind == NodeKind::leaf) {
    if (root.native == nullptr || !root.forward_is_native) return false;
  } else {
    for (const auto& child : root.children()) {
      if (child.item &&
          (child.node->observation() != nullptr || !scan_native_tree(binding::py(*child.node)))) {
        return false;
      }
    }
  }
  if (!root.pre_hooks.empty() || !root.forward_hooks.empty() || root.strict || root.overrides_call)
    return false;
  Py_CLEAR(root.last_object);
  return true;
}

bool NativeValue::set(PyObject* object) {
  if (PyUnicode_Check(object)) {
    Py_ssize_t size = 0;
    const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 == nullptr) return false;
    text_ = {utf8, static_cast<std::size_t>(size)};
    kind_ = Kind::text;
    return true;
  }
  if (PyFloat_Check(object)) {
    number_ = PyFloat_AS_DOUBLE(object);
    kind_ = Kind::number;
    return true;
  }
  if (PyLong_Check(object)) {
    integer_ = PyLong_AsLongLong(object);
    kind_ = Kind::integer;
    return integer_ != -1 || PyErr_Occurred() == nullptr;
  }
  PyErr_Format(PyExc_TypeError, "a native rubric takes str, int or float, got %s", Py_TYPE(object)->tp_name);
  return false;
}

Value NativeValue::value() const {
  switch (kind_) {
    case Kind::text:
      return text_;
    case Kind::number:
      return number_;
    case Kind::integer:
      break;
  }
  return integer_;
}

double call_native_tree(PyNode& node, const Value& action, const Value& observation, EvalContext* context) {
  const std::uint64_t start = context != nullptr ? context->last_tick : 0;
  const bool leaf = node.kind == NodeKind::leaf;
  try {
    Score score = leaf ? node.native->evaluate(action, observation)
                       : Score(run_container(node, node.kind, [&](Node& child) {
                           return call_native_tree(binding::py(child), action, observation, context);
                         }));
    // Other threads may score the same tree now: the last one to finish is the last score.
    std::atomic_ref(node.last_value).store(score.value, std::memory_order_relaxed);
    std::atomic_ref(node.has_last).store(true, std::memory_order_relaxed);
    const bool finite = std::isfinite(score.value);
    const std::uint64_t end = context == nullptr ? 0 : leaf ? ticks() : context->last_tick;
    record_outcome(node, context, finite ? score.value : std::numeric_limits<double>::quiet_NaN(),
                   finite ? Status::scored : Status::failed,
                   finite ? std::string_view{} : not_finite_reason(score.value), start, end);
    if (!score.explanation.empty()) {
      for (EvalContext* c = context; c != nullptr; c = c->parent()) {
        c->note(node, ExtraTag::explanation, score.explanation);
      }
    }
    return score.value;
  } catch (const std::exception& error) {
    record_outcome(node, context, std::numeric_limits<double>::quiet_NaN(), Status::failed, error.what(),
                   start, ticks());
    throw;
  }
}

PyObject* native_forward(PyObject* self, PyObject* args) {
  PyObject* action = nullptr;
  PyObject* observation = nullptr;
  if (!PyArg_ParseTuple(args, "OO:forward", &action, &observation)) return nullptr;
  PyNode& node = node_of(self);
  if (node.native == nullptr) {
    return PyErr_Format(PyExc_RuntimeError, "%s.__init__() was not called", Py_TYPE(self)->tp_name);
  }
  NativeValue native_action, native_observation;
  if (!native_action.set(action) || !native_observation.set(observation)) return nullptr;
  try {
    return PyFloat_FromDouble(node.native->evaluate(native_action.value(), native_observation.value()).value);
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

void bind_native(py::module_& m) {
  py::class_<Rubric, RubricPtr>(m, "_NativeLeaf");
  m.def("_exact_match", [](bool strip, bool ignore_case) -> RubricPtr {
    return std::make_shared<ExactMatch>(strip, ignore_case);
  });
  m.def("_fuzzy_match", []() -> RubricPtr { return std::make_shared<FuzzyMatch>(); });
  m.def("_regex_match", [](const std::string& pattern, bool full_match) -> RubricPtr {
    return std::make_shared<RegexMatch>(pattern, full_match);
  });
  m.def("_length_between", [](std::size_t least, std::size_t most) -> RubricPtr {
    return std::make_shared<LengthBetween>(least, most);
  });
  m.def("_set_native", [](const py::object& rubric, RubricPtr leaf) {
    if (!is_rubric(rubric.ptr())) throw py::type_error("_set_native() takes a rubric");
    node_of(rubric.ptr()).native = std::move(leaf);
    g_any_native = true;
  });
}

}  // namespace rubriscope::binding
