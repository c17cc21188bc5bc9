// Trees whose leaves are C++ rubrics: called without the GIL.
#pragma once

#include <array>

#include "rubriscope/binding/py_node.h"
#include "rubriscope/ops/tensor_view.h"
#include "rubriscope/rubric/value.h"

namespace rubriscope::binding {

/// Whether the node and all below it are containers and native leaves without hooks, strict or observers of
/// their own, so that a call needs no Python. Holds the GIL; forgets last scores that are Python objects.
bool scan_native_tree(PyNode& root);

/// Whether the process has any native leaf: while there is none, calls need no look.
extern bool g_any_native;

inline bool is_native_tree(PyNode& root) { return g_any_native && scan_native_tree(root); }

/// What a native rubric sees of a Python object: str as UTF-8, int, float, and float32 or float64 tensors
/// that are contiguous in the machine's memory, one or a tuple of them. Borrows from the object.
class NativeValue {
 public:
  enum class Taken {
    yes,
    no,     ///< it is something else, which only Python code can score
    error,  ///< a Python exception is set
  };
  Taken take(PyObject* object);
  Value value() const;

 private:
  Taken take_tensor(PyObject* tensor);

  std::string_view text_;
  double number_{};
  std::int64_t integer_{};
  std::array<TensorView, 16> tensors_;
  TensorViews views_;
  enum class Kind { text, number, integer, tensors } kind_{Kind::text};
};

/// Whether every leaf below the node scores these values in C++.
bool native_tree_takes(PyNode& node, const Value& action, const Value& observation);

/// Scores a native tree; call it without the GIL. Throws what the leaves throw.
double call_native_tree(PyNode& node, const Value& action, const Value& observation, EvalContext* context);

/// forward() of a native leaf, with the GIL. What the leaf cannot take goes to its class's
/// _forward_python(action, observation), where it has one.
PyObject* native_forward(PyObject* self, PyObject* args);

}  // namespace rubriscope::binding
