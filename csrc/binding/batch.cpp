#include "rubriscope/binding/batch.h"

#include "rubriscope/binding/async_call.h"
#include "rubriscope/binding/publish.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/core/errors.h"

namespace rubriscope::binding {

namespace {

bool overrides_forward_batch(PyNode& node) {
  static PyObject* name = nullptr;
  if (_PyType_Lookup(Py_TYPE(node.owner), interned(name, "forward_batch")) != nullptr) return true;
  for (const auto& child : node.children()) {
    if (overrides_forward_batch(py(*child.node))) return true;
  }
  return false;
}

// Scores pair by pair; numbers stay unboxed. Gives nullptr with no exception when a score is no plain number:
// `first` then holds it and `scores` those before it.
bool score_pairs(PyNode& node, PyObject* actions, PyObject* observations, std::vector<double>& scores,
                 Result& other) {
  const Py_ssize_t pairs = PySequence_Fast_GET_SIZE(actions);
  scores.reserve(static_cast<std::size_t>(pairs));
  for (Py_ssize_t i = 0; i < pairs; ++i) {
    Result result;
    if (!call_node(node, PySequence_Fast_GET_ITEM(actions, i), PySequence_Fast_GET_ITEM(observations, i),
                   result)) {
      return false;
    }
    if (result.kind != Result::Kind::number) {
      other.object = result.take();
      other.kind = result.kind;
      return other.object != nullptr;
    }
    scores.push_back(result.value);
  }
  return true;
}

PyObject* batch_of_lists(PyObject* self, PyObject* actions, PyObject* observations) {
  PyNode& node = node_of(self);
  const Py_ssize_t pairs = PySequence_Fast_GET_SIZE(actions);
  if (PySequence_Fast_GET_SIZE(observations) != pairs) {
    return PyErr_Format(PyExc_ValueError, "batch() takes as many actions as observations, got %zd and %zd",
                        pairs, PySequence_Fast_GET_SIZE(observations));
  }
  static PyObject* by_node = nullptr;
  static PyObject* from_doubles = nullptr;
  static PyObject* the_rest = nullptr;
  if (overrides_forward_batch(node)) {
    PyObject* const evaluate = import_once(by_node, "rubriscope._batch", "evaluate");
    return evaluate == nullptr ? nullptr
                               : PyObject_CallFunctionObjArgs(evaluate, self, actions, observations, nullptr);
  }
  std::vector<double> scores;
  Result other;
  if (!score_pairs(node, actions, observations, scores, other)) return nullptr;
  PyObject* const bytes = PyByteArray_FromStringAndSize(
      reinterpret_cast<const char*>(scores.data()), static_cast<Py_ssize_t>(scores.size() * sizeof(double)));
  if (bytes == nullptr) return nullptr;
  PyObject* batch = nullptr;
  if (other.object == nullptr) {
    PyObject* const function = import_once(from_doubles, "rubriscope._batch", "from_doubles");
    batch = function == nullptr ? nullptr : PyObject_CallOneArg(function, bytes);
  } else {
    PyObject* const function = import_once(the_rest, "rubriscope._batch", "finish_objects");
    batch = function == nullptr ? nullptr
                                : PyObject_CallFunctionObjArgs(function, self, actions, observations, bytes,
                                                               other.object, nullptr);
  }
  Py_DECREF(bytes);
  return batch;
}

}  // namespace

PyObject* rubric_batch(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"actions", "observations", nullptr};
  PyObject* actions = nullptr;
  PyObject* observations = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:batch", const_cast<char**>(names), &actions,
                                   &observations)) {
    return nullptr;
  }
  PyObject* const action_list = PySequence_Fast(actions, "batch() takes a sequence of actions");
  PyObject* const observation_list =
      action_list != nullptr ? PySequence_Fast(observations, "batch() takes a sequence of observations")
                             : nullptr;
  PyObject* const batch =
      observation_list != nullptr ? batch_of_lists(self, action_list, observation_list) : nullptr;
  Py_XDECREF(action_list);
  Py_XDECREF(observation_list);
  return batch;
}

BatchContexts::BatchContexts(PyObject* root) : root_(Py_NewRef(root)) {}

BatchContexts::BatchContexts(PyObject* root, std::size_t pairs, BatchContexts* outer,
                             const std::vector<std::size_t>& rows)
    : BatchContexts(root) {
  PyNode& node = node_of(root);
  const std::shared_ptr<RootObservation> observation = node.observation_;
  if (observation == nullptr) throw ValueError(node.class_name() + " is not observed");
  EvalContext* const parent = active_context();
  for (std::size_t i = 0; i < pairs; ++i) {
    EvalContext* const around = outer != nullptr ? &outer->at(rows.at(i)) : parent;
    contexts_.push_back(observation->open_call(node, around));
    contexts_.back()->last_tick = ticks();
  }
}

BatchContexts::~BatchContexts() {
  for (EvalContext* const context : contexts_) close_context(context);
  Py_DECREF(root_);
}

EvalContext& BatchContexts::at(std::size_t pair) {
  if (pair >= contexts_.size()) {
    throw ValueError("pair " + std::to_string(pair) + " of a batch of " + std::to_string(contexts_.size()));
  }
  return *contexts_[pair];
}

std::uint64_t BatchContexts::now() const { return ticks(); }

void BatchContexts::record(PyObject* rubric, std::size_t pair, double value, std::uint64_t start,
                           std::uint64_t end) {
  EvalContext& context = at(pair);
  const bool finite = std::isfinite(value);
  record_outcome(node_of(rubric), &context, finite ? value : std::numeric_limits<double>::quiet_NaN(),
                 finite ? Status::scored : Status::failed, finite ? "" : not_finite_reason(value), start,
                 end);
}

void BatchContexts::fail(PyObject* rubric, std::size_t pair, PyObject* error, std::uint64_t start) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
  record_failure(node_of(rubric), &at(pair), start);
  PyErr_Clear();
}

PyObject* BatchContexts::call(PyObject* rubric, std::size_t pair, PyObject* action, PyObject* observation) {
  EvalContext*& current = current_context();
  EvalContext* const outer = current;
  current = &at(pair);
  Result result;
  const bool ok = call_node(node_of(rubric), action, observation, result);
  current_context() = outer;
  return ok ? result.take() : nullptr;
}

bool BatchContexts::publish(PyObject* actions, PyObject* observations) {
  for (std::size_t i = 0; i < contexts_.size(); ++i) {
    if (!publish_call(node_of(root_), *contexts_[i], PyList_GET_ITEM(actions, static_cast<Py_ssize_t>(i)),
                      PyList_GET_ITEM(observations, static_cast<Py_ssize_t>(i)))) {
      return false;
    }
  }
  return true;
}

}  // namespace rubriscope::binding
