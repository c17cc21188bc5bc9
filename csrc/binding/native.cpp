#include "rubriscope/binding/native.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/ops/rubrics.h"
#include "rubriscope/ops/stencil/parse.h"
#include "rubriscope/rubric/algorithms.h"
#include "rubriscope/rubric/text_rubrics.h"

namespace py = pybind11;

namespace rubriscope::binding {

bool g_any_native = false;

namespace {
bool g_any_tensor_rubric = false;
}

NativeValue::Taken NativeValue::take(PyObject* object) {
  if (PyUnicode_Check(object)) {
    Py_ssize_t size = 0;
    const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 == nullptr) return Taken::error;
    text_ = {utf8, static_cast<std::size_t>(size)};
    kind_ = Kind::text;
    return Taken::yes;
  }
  if (PyFloat_Check(object)) {
    number_ = PyFloat_AS_DOUBLE(object);
    kind_ = Kind::number;
    return Taken::yes;
  }
  if (PyLong_Check(object)) {
    integer_ = PyLong_AsLongLong(object);
    kind_ = Kind::integer;
    return integer_ != -1 || PyErr_Occurred() == nullptr ? Taken::yes : Taken::error;
  }
  PyTypeObject* const tensor = tensor_type();
  if (tensor == nullptr) return Taken::no;
  kind_ = Kind::tensors;
  views_.items = {};
  if (PyObject_TypeCheck(object, tensor)) return take_tensor(object);
  if (!PyTuple_Check(object) || PyTuple_GET_SIZE(object) == 0 ||
      PyTuple_GET_SIZE(object) > static_cast<Py_ssize_t>(tensors_.size())) {
    return Taken::no;
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
    PyObject* const item = PyTuple_GET_ITEM(object, i);
    if (!PyObject_TypeCheck(item, tensor)) return Taken::no;
    if (const Taken taken = take_tensor(item); taken != Taken::yes) return taken;
  }
  return Taken::yes;
}

NativeValue::Taken NativeValue::take_tensor(PyObject* object) {
  // A subclass may say anything about itself; a fake or functional tensor has no memory.
  if (Py_TYPE(object) != tensor_type()) return Taken::no;
  try {
    const py::handle tensor(object);
    static const py::handle dtypes = [] {
      const py::module_ torch = py::module_::import("torch");
      return py::make_tuple(torch.attr("float32"), torch.attr("float64")).release();
    }();
    const py::object dtype = tensor.attr("dtype");
    const bool single = dtype.is(py::object(dtypes[py::int_(0)]));
    const Py_ssize_t rank = tensor.attr("ndim").cast<Py_ssize_t>();
    if (!(single || dtype.is(py::object(dtypes[py::int_(1)]))) || rank > TensorView::kMaxRank ||
        !tensor.attr("is_cpu").cast<bool>() || !tensor.attr("is_contiguous")().cast<bool>() ||
        tensor.attr("is_neg")().cast<bool>()) {
      return Taken::no;
    }
    TensorView& view = tensors_[views_.items.size()];
    view.data = reinterpret_cast<const void*>(tensor.attr("data_ptr")().cast<std::uintptr_t>());
    view.dtype = single ? Dtype::float32 : Dtype::float64;
    view.rank = static_cast<int>(rank);
    const py::tuple shape = tensor.attr("shape");
    for (Py_ssize_t axis = 0; axis < rank; ++axis) {
      view.shape[static_cast<std::size_t>(axis)] = shape[static_cast<std::size_t>(axis)].cast<std::int64_t>();
    }
    views_.items = {tensors_.data(), views_.items.size() + 1};
    return Taken::yes;
  } catch (py::error_already_set& error) {
    error.restore();
    return Taken::error;
  }
}

Value NativeValue::value() const {
  switch (kind_) {
    case Kind::text:
      return text_;
    case Kind::number:
      return number_;
    case Kind::tensors:
      return views_;
    case Kind::integer:
      break;
  }
  return integer_;
}

std::vector<NativeTree::Step>& NativeTree::spare() {
  thread_local std::vector<Step> steps;
  return steps;
}

NativeTree::NativeTree() : steps_(std::exchange(spare(), {})) {}

void NativeTree::release() {
  for (const Step& step : steps_) Py_DECREF(step.node->owner);
  steps_.clear();
  if (steps_.capacity() != 0) spare() = std::exchange(steps_, {});
}

bool NativeTree::take(PyNode& node, double weight) {
  const std::size_t index = steps_.size();
  Py_INCREF(node.owner);
  steps_.push_back({&node, nullptr, nullptr, NodeKind::leaf, 0.0, weight, 0});
  if (!is_fresh(node) && !refresh_forward(node)) {
    PyErr_Clear();  // the call itself will raise it
    return false;
  }
  if (node.kind == NodeKind::leaf && (node.native == nullptr || !node.forward_is_native)) return false;
  if (!node.pre_hooks.empty() || !node.forward_hooks.empty() || node.strict || node.overrides_call) {
    return false;
  }
  Py_CLEAR(node.last_object);
  steps_[index].kind = node.kind;
  steps_[index].threshold = node.threshold;
  if (node.kind == NodeKind::leaf) {
    steps_[index].leaf = node.native;
    steps_[index].tensor = node.tensor_rubric;
  } else {
    // By index: taking a child may run Python code, which may change the children.
    for (std::size_t i = 0; i < node.children().size(); ++i) {
      const Node::Child& child = node.children()[i];
      if (!child.item) continue;
      if (child.node->observation() != nullptr || !take(binding::py(*child.node), child.weight)) return false;
    }
  }
  steps_[index].end = steps_.size();
  return true;
}

bool NativeTree::takes(const Value& action, const Value& observation) const {
  return !g_any_tensor_rubric || std::all_of(steps_.begin(), steps_.end(), [&](const Step& step) {
    return step.tensor == nullptr || step.tensor->takes(action, observation);
  });
}

void NativeTree::record(Step& step, EvalContext* context, double value, Status status,
                        std::string_view reason, std::uint64_t start, std::uint64_t end) {
  if (context != nullptr) {
    context->last_tick = end;
    if (context->record(*step.node, value, status, start, end)) {
      if (!reason.empty()) {
        context->note(*step.node, ExtraTag::reason, reason.substr(0, EvalContext::kMaxReasonBytes));
      }
      return;
    }
  }
  step.unrecorded = true;
}

double NativeTree::call(std::size_t index, const Value& action, const Value& observation,
                        EvalContext* context) {
  Step& step = steps_[index];
  const std::uint64_t start = context != nullptr ? context->last_tick : 0;
  try {
    Score score = 0.0;
    if (step.leaf != nullptr) {
      score = step.leaf->evaluate(action, observation);
    } else {
      Combination combination(step.kind, step.threshold);
      for (std::size_t i = index + 1; i < step.end; i = steps_[i].end) {
        if (!combination.add(call(i, action, observation, context), steps_[i].weight)) break;
      }
      score = combination.score();
    }
    // Other threads may score the same tree now: the last one to finish is the last score.
    std::atomic_ref(step.node->last_value).store(score.value, std::memory_order_relaxed);
    std::atomic_ref(step.node->has_last).store(true, std::memory_order_relaxed);
    const bool finite = std::isfinite(score.value);
    const std::uint64_t end = context == nullptr ? 0 : step.leaf != nullptr ? ticks() : context->last_tick;
    record(step, context, finite ? score.value : std::numeric_limits<double>::quiet_NaN(),
           finite ? Status::scored : Status::failed,
           finite ? std::string_view{} : not_finite_reason(score.value), start, end);
    if (context != nullptr && !score.explanation.empty()) {
      context->note(*step.node, ExtraTag::explanation, score.explanation);
    }
    return score.value;
  } catch (const std::exception& error) {
    record(step, context, std::numeric_limits<double>::quiet_NaN(), Status::failed, error.what(), start,
           ticks());
    throw;
  }
}

void NativeTree::count_unattributed() const {
  for (const Step& step : steps_) {
    if (step.unrecorded) rubriscope::count_unattributed(*step.node);
  }
}
PyObject* native_forward(PyObject* self, PyObject* args) {
  PyObject* action = nullptr;
  PyObject* observation = nullptr;
  if (!PyArg_ParseTuple(args, "OO:forward", &action, &observation)) return nullptr;
  PyNode& node = node_of(self);
  NativeValue native_action, native_observation;
  PyObject* refused = nullptr;
  for (const auto& [value, object] :
       {std::pair{&native_action, action}, std::pair{&native_observation, observation}}) {
    const NativeValue::Taken taken = value->take(object);
    if (taken == NativeValue::Taken::error) return nullptr;
    if (taken == NativeValue::Taken::no && refused == nullptr) refused = object;
  }
  const bool takes = refused == nullptr && node.native != nullptr &&
                     (node.tensor_rubric == nullptr ||
                      node.tensor_rubric->takes(native_action.value(), native_observation.value()));
  if (!takes) {
    static PyObject* name = nullptr;
    if (PyObject_HasAttr(self, interned(name, "_forward_python")) == 0) {
      if (node.native == nullptr) {
        return PyErr_Format(PyExc_RuntimeError, "%s.__init__() was not called", Py_TYPE(self)->tp_name);
      }
      return PyErr_Format(PyExc_TypeError, "a native rubric takes str, int or float, got %s",
                          Py_TYPE(refused != nullptr ? refused : action)->tp_name);
    }
    return PyObject_CallMethodObjArgs(self, interned(name, "_forward_python"), action, observation, nullptr);
  }
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
  m.def("_hausdorff_rubric",
        [](const std::string& shape, double limit, const std::string& reduction, double percentile,
           bool directed, std::optional<std::vector<double>> target, std::int64_t dimensions) -> RubricPtr {
          HausdorffRubric::Options options{std::nullopt, percentile, directed};
          if (reduction == "percentile") options.reduction = ops::PointReduction::percentile;
          if (reduction == "mean") options.reduction = ops::PointReduction::mean;
          if (reduction == "modified") options.reduction = ops::PointReduction::modified;
          return std::make_shared<HausdorffRubric>(ScoreMap(shape, limit), options, std::move(target),
                                                   dimensions);
        });
  m.def("_residual_rubric",
        [](const std::string& shape, double limit, const std::vector<std::int64_t>& code,
           const std::vector<double>& numbers, std::vector<std::int64_t> grid, bool observed) -> RubricPtr {
          return std::make_shared<PhysicsResidualRubric>(
              ScoreMap(shape, limit),
              ops::stencil::parse(code.data(), code.size(), numbers.data(), numbers.size()), std::move(grid),
              observed);
        });
  m.def("_set_native", [](const py::object& rubric, RubricPtr leaf) {
    if (!is_rubric(rubric.ptr())) throw py::type_error("_set_native() takes a rubric");
    PyNode& node = node_of(rubric.ptr());
    node.tensor_rubric = dynamic_cast<const TensorRubric*>(leaf.get());
    g_any_tensor_rubric = g_any_tensor_rubric || node.tensor_rubric != nullptr;
    node.native = std::move(leaf);
    g_any_native = true;
  });
}

}  // namespace rubriscope::binding
