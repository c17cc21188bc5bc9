// The Python rubric object: a CPython type whose instances embed a core node.
#pragma once

#include <Python.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "rubriscope/rubric/context.h"
#include "rubriscope/rubric/node.h"
#include "rubriscope/rubric/observation.h"
#include "rubriscope/rubric/rubric.h"

namespace rubriscope {
class TensorRubric;
}

namespace rubriscope::binding {

/// What a rubric's forward gave.
struct Result {
  enum class Kind : std::uint8_t {
    number,     ///< value is the score
    deferred,   ///< a tensor whose numbers are not to be read here: on a device, or more than one
    invalid,    ///< not a number at all
    awaitable,  ///< object is to be awaited for the score
  };

  Result() = default;
  ~Result() { Py_XDECREF(object); }
  Result(const Result&) = delete;
  Result& operator=(const Result&) = delete;

  double value{};
  PyObject* object{};  ///< owned; nullptr for a number that was never an object
  Kind kind{Kind::number};

  void clear() {
    Py_CLEAR(object);
    kind = Kind::number;
  }
  /// A new reference to what the caller gets; nullptr with an exception set when out of memory.
  PyObject* take() {
    PyObject* const taken = object != nullptr ? object : PyFloat_FromDouble(value);
    object = nullptr;
    return taken;
  }
  void set_number(double number) {
    clear();
    value = number;
  }
};

struct Hook {
  std::uint64_t id;
  PyObject* callable;  ///< owned
  bool is_async;
};

class PyNode final : public Node {
 public:
  std::string class_name() const override { return Py_TYPE(owner)->tp_name; }

  std::string details_json() const override;
  std::shared_ptr<const void> hold() const override;

  PyObject* owner{};  ///< borrowed: the object that embeds this node

  // forward(), found once per version of the class
  unsigned forward_version{0};
  PyObject* forward{};           ///< borrowed from the class; nullptr: look it up on the instance
  bool forward_is_function{};    ///< a plain Python function
  bool forward_is_async{};       ///< gives a coroutine
  bool instance_forward{false};  ///< an instance attribute hides the class's
  bool forward_is_native{};      ///< `native` computes the score
  std::shared_ptr<Rubric> native;
  const TensorRubric* tensor_rubric{};  ///< the same, where it is one

  std::vector<Hook> pre_hooks;
  std::vector<Hook> forward_hooks;
  std::uint32_t async_hooks{0};

  /// Whether a call needs more than forward() and recording: hooks, strict, a coroutine, an own __call__.
  bool special{true};
  void update_special() {
    special = !pre_hooks.empty() || !forward_hooks.empty() || strict || forward_is_async || overrides_call ||
              (kind == NodeKind::leaf && !forward_is_function);
  }
  bool overrides_call{false};

  double last_value{};
  PyObject* last_object{};  ///< owned; the last score where it was no plain float
  bool has_last{false};
};

struct RubricObject {
  PyObject_HEAD;
  vectorcallfunc vectorcall;
  PyNode node;
};

extern PyTypeObject RubricType;

inline bool is_rubric(PyObject* object) { return PyObject_TypeCheck(object, &RubricType) != 0; }
inline PyNode& node_of(PyObject* rubric) { return reinterpret_cast<RubricObject*>(rubric)->node; }
inline PyNode& py(Node& node) { return static_cast<PyNode&>(node); }

/// Whether what was found out about the node's class still holds.
inline bool is_fresh(const PyNode& node) {
  return node.forward_version == Py_TYPE(node.owner)->tp_version_tag && node.forward_version != 0;
}

/// Looks forward() up where the class has changed. False with an exception set.
bool refresh_forward(PyNode& node);

/// Reads what a rubric gave: fills kind and value from object. False with an exception set.
bool classify(Result& result);

/// Calls a rubric with hooks and observation. False with an exception set.
bool call_node(PyNode& node, PyObject* action, PyObject* observation, Result& out);

/// Runs forward() (a leaf) or a container's algorithm alone, without hooks. False with an exception set.
bool run_forward(PyNode& node, NodeKind kind, PyObject* action, PyObject* observation, Result& out);

/// Everything after forward(): last_score, strict, recording. False with an exception set.
bool finish_call(PyNode& node, Result& result, EvalContext* context, std::uint64_t start);

/// Records the exception that is set as the node's failure and leaves it set.
void record_failure(PyNode& node, EvalContext* context, std::uint64_t start);

/// The same where the call was recorded already and a forward hook raised.
void record_hook_failure(PyNode& node, EvalContext* context);

/// The hooks' callables, or nullptr with an exception set.
PyObject* hooks_list(const std::vector<Hook>& hooks);

bool run_hooks(const std::vector<Hook>& hooks, PyObject* const* arguments, std::size_t count);

PyObject* rubric_call(PyObject* self, PyObject* args, PyObject* kwargs);

/// The same without a tuple for the arguments; looks itself whether the class overrides __call__.
PyObject* rubric_vectorcall(PyObject* self, PyObject* const* args, std::size_t nargsf, PyObject* names);

/// Adds the type, and the names the engine needs from Python modules. False with an exception set.
bool add_rubric_type(PyObject* module);

/// Converts the C++ exception in flight into the Python one (exceptions.cpp).
void raise_current_exception();

}  // namespace rubriscope::binding
