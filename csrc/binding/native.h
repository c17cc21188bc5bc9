// Trees whose leaves are C++ rubrics: called without the GIL.
#pragma once

#include <optional>

#include "rubriscope/binding/py_node.h"
#include "rubriscope/rubric/value.h"

namespace rubriscope::binding {

/// Whether the node and all below it are containers and native leaves without hooks, strict or observers of
/// their own, so that a call needs no Python. Holds the GIL; forgets last scores that are Python objects.
bool scan_native_tree(PyNode& root);

/// Whether the process has any native leaf: while there is none, calls need no look.
extern bool g_any_native;

inline bool is_native_tree(PyNode& root) { return g_any_native && scan_native_tree(root); }

/// What a native rubric sees of a Python object: str as UTF-8, int, float. Borrows from the object.
class NativeValue {
 public:
  /// False with TypeError set for any other type.
  bool set(PyObject* object);
  Value value() const;

 private:
  std::string_view text_;
  double number_{};
  std::int64_t integer_{};
  enum class Kind { text, number, integer } kind_{Kind::text};
};

/// Scores a native tree; call it without the GIL. Throws what the leaves throw.
double call_native_tree(PyNode& node, const Value& action, const Value& observation, EvalContext* context);

/// forward() of a native leaf, with the GIL.
PyObject* native_forward(PyObject* self, PyObject* args);

}  // namespace rubriscope::binding
