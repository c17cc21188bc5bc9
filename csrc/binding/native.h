// Trees whose leaves are C++ rubrics: called without the GIL.
#pragma once

#include <array>

#include "rubriscope/binding/py_node.h"
#include "rubriscope/ops/tensor_view.h"
#include "rubriscope/rubric/value.h"

namespace rubriscope::binding {

/// Whether the process has any native leaf: while there is none, calls need no look.
extern bool g_any_native;

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

/// A tree of containers and native leaves as it was when it was taken, kept alive: other threads may change
/// the tree while this scores. Made, asked and ended with the GIL.
class NativeTree {
 public:
  NativeTree();
  ~NativeTree() { release(); }
  NativeTree(const NativeTree&) = delete;
  NativeTree& operator=(const NativeTree&) = delete;

  /// False: a call needs Python, for a Python leaf, hooks, strict or observers below the root. Forgets last
  /// scores that are Python objects.
  bool take(PyNode& root) { return take(root, 1.0); }

  /// Whether every leaf scores these values in C++.
  bool takes(const Value& action, const Value& observation) const;

  /// Scores. The only part that needs no GIL. Throws what the leaves throw.
  double call(const Value& action, const Value& observation, EvalContext* context) {
    return call(0, action, observation, context);
  }

  /// Lets go of the tree, as the destructor does.
  void release();

  /// Counts the calls that belonged to no observed one. To follow call(), whether it threw or not.
  void count_unattributed() const;

 private:
  struct Step {
    PyNode* node;                  // its owner is held
    std::shared_ptr<Rubric> leaf;  // nullptr for a container
    const TensorRubric* tensor;    // the leaf, where it is one
    NodeKind kind;
    double threshold;
    double weight;      // in the container around it
    std::size_t end;    // behind its last descendant
    bool unrecorded{};  // it was called, and no observed call took its score
  };

  /// The steps of the last tree that this thread is done with: a call in the steady state allocates nothing.
  static std::vector<Step>& spare();
  bool take(PyNode& node, double weight);
  double call(std::size_t index, const Value& action, const Value& observation, EvalContext* context);
  static void record(Step& step, EvalContext* context, double value, Status status, std::string_view reason,
                     std::uint64_t start, std::uint64_t end);

  std::vector<Step> steps_;  // in pre-order
};

/// forward() of a native leaf, with the GIL. What the leaf cannot take goes to its class's
/// _forward_python(action, observation), where it has one.
PyObject* native_forward(PyObject* self, PyObject* args);

}  // namespace rubriscope::binding
