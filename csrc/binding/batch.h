// rubric.batch(): N pairs in one call, N snapshots.
#pragma once

#include <Python.h>

#include <vector>

#include "rubriscope/binding/py_node.h"

namespace rubriscope::binding {

/// The method Rubric.batch(actions, observations).
PyObject* rubric_batch(PyObject* self, PyObject* args, PyObject* kwargs);

/// One observed call per pair, while rubriscope/_batch.py evaluates a tree node by node over all pairs.
class BatchContexts {
 public:
  /// `root` must be observed. Inside of another batch `outer`, pair i here is its pair `rows[i]`. Throws
  /// ValueError.
  BatchContexts(PyObject* root, std::size_t pairs, BatchContexts* outer,
                const std::vector<std::size_t>& rows);
  ~BatchContexts();
  BatchContexts(const BatchContexts&) = delete;
  BatchContexts& operator=(const BatchContexts&) = delete;

  std::uint64_t now() const;
  /// Records one node's number for one pair.
  void record(PyObject* rubric, std::size_t pair, double value, std::uint64_t start, std::uint64_t end);
  /// Records the exception `error` as the node's failure for one pair.
  void fail(PyObject* rubric, std::size_t pair, PyObject* error, std::uint64_t start);
  /// Calls a rubric for one pair inside that pair's call. nullptr with an exception set.
  PyObject* call(PyObject* rubric, std::size_t pair, PyObject* action, PyObject* observation);
  /// Gives every pair's call to the observers. False with an exception set.
  bool publish(PyObject* actions, PyObject* observations);

 private:
  explicit BatchContexts(PyObject* root);
  EvalContext& at(std::size_t pair);

  PyObject* root_;
  std::vector<EvalContext*> contexts_;
};

}  // namespace rubriscope::binding
