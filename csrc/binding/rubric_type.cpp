// The Python type `Rubric`: children, hooks, look-up, pickling. Calls are in rubric_call.cpp.
#include <algorithm>
#include <new>

#include "rubriscope/binding/async_call.h"
#include "rubriscope/binding/batch.h"
#include "rubriscope/binding/native.h"
#include "rubriscope/binding/py_names.h"
#include "rubriscope/binding/py_node.h"
#include "rubriscope/core/errors.h"

namespace rubriscope::binding {

namespace {

PyObject* g_base_forward = nullptr;  // Rubric.forward itself: a class that still has it is abstract
std::uint64_t g_next_hook = 1;

bool text_of(PyObject* object, std::string_view& text) {
  Py_ssize_t size = 0;
  const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
  if (utf8 == nullptr) return false;
  text = {utf8, static_cast<std::size_t>(size)};
  return true;
}

PyObject* name_object(const std::string& name) {
  return PyUnicode_FromStringAndSize(name.data(), static_cast<Py_ssize_t>(name.size()));
}

// ---- Children

bool register_child(PyNode& node, std::string_view name, PyObject* child, double weight, bool item) {
  try {
    Py_INCREF(child);
    Node* replaced = nullptr;
    try {
      replaced = node.set_child(name, node_of(child), weight, item);
    } catch (...) {
      Py_DECREF(child);
      throw;
    }
    if (replaced != nullptr) Py_DECREF(py(*replaced).owner);
    return true;
  } catch (...) {
    raise_current_exception();
    return false;
  }
}

void unregister_child(PyNode& node, std::string_view name) {
  Node* const removed = node.remove_child(name);
  if (removed != nullptr) Py_DECREF(py(*removed).owner);
}

int rubric_setattro(PyObject* self, PyObject* name, PyObject* value) {
  PyNode& node = node_of(self);
  std::string_view text;
  if (!text_of(name, text)) return -1;
  const bool was_child = !node.children().empty() && node.find_child(text) != nullptr;
  if (value != nullptr && is_rubric(value)) {
    if (!register_child(node, text, value, 1.0, false)) return -1;
    if (PyObject_GenericSetAttr(self, name, value) == 0) return 0;
    if (!was_child) unregister_child(node, text);
    return -1;
  }
  if (PyObject_GenericSetAttr(self, name, value) != 0) {
    // A child that lives in the table only (a RubricDict key that is also a method's name).
    if (value == nullptr && was_child && PyErr_ExceptionMatches(PyExc_AttributeError)) {
      PyErr_Clear();
      unregister_child(node, text);
      return 0;
    }
    return -1;
  }
  if (was_child) unregister_child(node, text);
  if (text == "forward") {
    node.instance_forward = value != nullptr;
    node.forward_version = 0;
  }
  return 0;
}

// The children as they are now, kept alive: making a Python object of one may run any Python code, which may
// change the list.
class ChildList {
 public:
  explicit ChildList(const PyNode& node) : children_(node.children()) {
    for (const auto& child : children_) Py_INCREF(py(*child.node).owner);
  }
  ~ChildList() {
    for (const auto& child : children_) Py_DECREF(py(*child.node).owner);
  }
  ChildList(const ChildList&) = delete;
  ChildList& operator=(const ChildList&) = delete;

  auto begin() const { return children_.begin(); }
  auto end() const { return children_.end(); }

 private:
  const std::vector<Node::Child> children_;
};

// Appends a new reference, which it takes over; nullptr stands for an error. False with an exception set.
bool append_new(PyObject* list, PyObject* entry) {
  const bool ok = entry != nullptr && PyList_Append(list, entry) == 0;
  Py_XDECREF(entry);
  return ok;
}

// The list that fill(list) -> ok fills, or nullptr with an exception set.
template <class Fill>
PyObject* list_of(Fill&& fill) {
  PyObject* list = PyList_New(0);
  if (list != nullptr && !fill(list)) Py_CLEAR(list);
  return list;
}

// A list of entry(child) -> a new reference, for every child.
template <class Entry>
PyObject* list_of_children(PyObject* self, Entry&& entry) {
  return list_of([&](PyObject* list) {
    const ChildList children(node_of(self));
    return std::all_of(children.begin(), children.end(),
                       [&](const Node::Child& child) { return append_new(list, entry(child)); });
  });
}

PyObject* iterate(PyObject* list) {
  if (list == nullptr) return nullptr;
  PyObject* const iterator = PyObject_GetIter(list);
  Py_DECREF(list);
  return iterator;
}

// Appends (prefix.name, child) for every descendant, parents first.
bool collect_descendants(PyNode& node, const std::string& prefix, bool named, PyObject* list) {
  for (const auto& child : ChildList(node)) {
    const std::string path = prefix.empty() ? child.name : prefix + "." + child.name;
    PyNode& below = py(*child.node);
    PyObject* const entry =
        named ? Py_BuildValue("(NO)", name_object(path), below.owner) : Py_NewRef(below.owner);
    if (!append_new(list, entry) || !collect_descendants(below, path, named, list)) return false;
  }
  return true;
}

PyObject* rubric_children(PyObject* self, PyObject*) {
  return iterate(
      list_of_children(self, [](const Node::Child& child) { return Py_NewRef(py(*child.node).owner); }));
}

PyObject* rubric_named_children(PyObject* self, PyObject*) {
  return iterate(list_of_children(self, [](const Node::Child& child) {
    return Py_BuildValue("(NO)", name_object(child.name), py(*child.node).owner);
  }));
}

PyObject* rubric_rubrics(PyObject* self, PyObject*) {
  return iterate(
      list_of([&](PyObject* list) { return collect_descendants(node_of(self), {}, false, list); }));
}

PyObject* rubric_named_rubrics(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"prefix", nullptr};
  const char* prefix = "";
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|s:named_rubrics", const_cast<char**>(names), &prefix)) {
    return nullptr;
  }
  return iterate(
      list_of([&](PyObject* list) { return collect_descendants(node_of(self), prefix, true, list); }));
}

PyObject* rubric_get_rubric(PyObject* self, PyObject* path) {
  if (!PyUnicode_Check(path)) {
    return PyErr_Format(PyExc_TypeError, "get_rubric() takes a dotted path as str, got %s",
                        Py_TYPE(path)->tp_name);
  }
  std::string_view text;
  if (!text_of(path, text)) return nullptr;
  try {
    return Py_NewRef(py(node_of(self).at_path(text)).owner);
  } catch (...) {
    raise_current_exception();
    return nullptr;
  }
}

// _set_item(name, rubric, weight): a child that the container evaluates.
PyObject* rubric_set_item(PyObject* self, PyObject* args) {
  PyObject* name = nullptr;
  PyObject* child = nullptr;
  double weight = 1.0;
  if (!PyArg_ParseTuple(args, "UO|d:_set_item", &name, &child, &weight)) return nullptr;
  if (!is_rubric(child)) {
    return PyErr_Format(PyExc_TypeError, "%s takes rubrics, got %R", Py_TYPE(self)->tp_name, child);
  }
  std::string_view text;
  if (!text_of(name, text) || !register_child(node_of(self), text, child, weight, true)) return nullptr;
  if (PyObject_GenericSetAttr(self, name, child) != 0) return nullptr;
  Py_RETURN_NONE;
}

// _set_child(name, rubric): a child in the table only, no attribute.
PyObject* rubric_set_child(PyObject* self, PyObject* args) {
  PyObject* name = nullptr;
  PyObject* child = nullptr;
  if (!PyArg_ParseTuple(args, "UO:_set_child", &name, &child)) return nullptr;
  if (!is_rubric(child)) {
    return PyErr_Format(PyExc_TypeError, "%s takes rubrics, got %R", Py_TYPE(self)->tp_name, child);
  }
  std::string_view text;
  if (!text_of(name, text) || !register_child(node_of(self), text, child, 1.0, false)) return nullptr;
  Py_RETURN_NONE;
}

// _items() -> list of (name, rubric, weight), in the order in which the container evaluates them.
PyObject* rubric_items(PyObject* self, PyObject*) {
  return list_of([&](PyObject* list) {
    const ChildList children(node_of(self));
    return std::all_of(children.begin(), children.end(), [&](const Node::Child& child) {
      return !child.item || append_new(list, Py_BuildValue("(NOd)", name_object(child.name),
                                                           py(*child.node).owner, child.weight));
    });
  });
}

// ---- Hooks

PyObject* add_hook(PyObject* self, PyObject* callable, bool pre) {
  if (!PyCallable_Check(callable)) {
    return PyErr_Format(PyExc_TypeError, "a hook must be callable, got %R", callable);
  }
  static PyObject* is_async_function = nullptr;
  static PyObject* handle_class = nullptr;
  PyObject* const is_async = import_once(is_async_function, "rubriscope._details", "is_async_callable");
  PyObject* const handle_type = import_once(handle_class, "rubriscope._details", "RemovableHandle");
  if (is_async == nullptr || handle_type == nullptr) return nullptr;
  PyObject* const answer = PyObject_CallOneArg(is_async, callable);
  if (answer == nullptr) return nullptr;
  PyNode& node = node_of(self);
  const Hook hook{g_next_hook++, Py_NewRef(callable), answer == Py_True};
  Py_DECREF(answer);
  (pre ? node.pre_hooks : node.forward_hooks).push_back(hook);
  if (hook.is_async) ++node.async_hooks;
  node.update_special();
  return PyObject_CallFunction(handle_type, "OK", self, static_cast<unsigned long long>(hook.id));
}

PyObject* rubric_register_forward_pre_hook(PyObject* self, PyObject* hook) {
  return add_hook(self, hook, true);
}
PyObject* rubric_register_forward_hook(PyObject* self, PyObject* hook) { return add_hook(self, hook, false); }

// _remove_hook(id) -> whether it was there.
PyObject* rubric_remove_hook(PyObject* self, PyObject* id_object) {
  const unsigned long long id = PyLong_AsUnsignedLongLong(id_object);
  if (PyErr_Occurred() != nullptr) return nullptr;
  PyNode& node = node_of(self);
  for (auto* hooks : {&node.pre_hooks, &node.forward_hooks}) {
    for (auto at = hooks->begin(); at != hooks->end(); ++at) {
      if (at->id != id) continue;
      PyObject* const callable = at->callable;
      if (at->is_async) --node.async_hooks;
      hooks->erase(at);
      node.update_special();
      Py_DECREF(callable);
      Py_RETURN_TRUE;
    }
  }
  Py_RETURN_FALSE;
}

PyObject* rubric_get_forward_hooks(PyObject* self, void*) { return hooks_list(node_of(self).forward_hooks); }
PyObject* rubric_get_forward_pre_hooks(PyObject* self, void*) { return hooks_list(node_of(self).pre_hooks); }

// ---- State

PyObject* rubric_reset(PyObject*, PyObject*) { Py_RETURN_NONE; }
PyObject* rubric_state_dict(PyObject*, PyObject*) { return PyDict_New(); }

PyObject* rubric_load_state_dict(PyObject*, PyObject* state) {
  if (!PyMapping_Check(state)) {
    return PyErr_Format(PyExc_TypeError, "load_state_dict() takes a mapping, got %s",
                        Py_TYPE(state)->tp_name);
  }
  Py_RETURN_NONE;
}

PyObject* rubric_getstate(PyObject* self, PyObject*) {
  PyNode& node = node_of(self);
  static PyObject* function = nullptr;
  PyObject* const attributes_of = import_once(function, "rubriscope._details", "attributes");
  PyObject* const attributes = attributes_of != nullptr ? PyObject_CallOneArg(attributes_of, self) : nullptr;
  if (attributes == nullptr) return nullptr;
  PyObject* const children = list_of_children(self, [](const Node::Child& child) {
    return Py_BuildValue("(NOdN)", name_object(child.name), py(*child.node).owner, child.weight,
                         PyBool_FromLong(child.item));
  });
  return Py_BuildValue("{s:N,s:N,s:N,s:N,s:d,s:N}", "attributes", attributes, "rubric_children", children,
                       "pre_hooks", hooks_list(node.pre_hooks), "forward_hooks",
                       hooks_list(node.forward_hooks), "threshold", node.threshold, "strict",
                       PyBool_FromLong(node.strict));
}

bool add_hooks(PyObject* self, PyObject* list, bool pre) {
  if (list == nullptr) return true;
  PyObject* const iterator = PyObject_GetIter(list);
  if (iterator == nullptr) return false;
  while (PyObject* const hook = PyIter_Next(iterator)) {
    PyObject* const handle = add_hook(self, hook, pre);
    Py_DECREF(hook);
    if (handle == nullptr) break;
    Py_DECREF(handle);
  }
  Py_DECREF(iterator);
  return PyErr_Occurred() == nullptr;
}

PyObject* rubric_setstate(PyObject* self, PyObject* state) {
  if (!PyDict_Check(state)) {
    return PyErr_Format(PyExc_TypeError, "a rubric's state is a dict, got %s", Py_TYPE(state)->tp_name);
  }
  PyNode& node = node_of(self);
  PyObject* const children = PyDict_GetItemString(state, "rubric_children");
  PyObject* const attributes = children != nullptr ? PyDict_GetItemString(state, "attributes") : state;
  if (children != nullptr) {
    for (Py_ssize_t i = 0; i < PyList_Size(children); ++i) {
      PyObject* name = nullptr;
      PyObject* child = nullptr;
      double weight = 1.0;
      int item = 0;
      std::string_view text;
      if (!PyArg_ParseTuple(PyList_GET_ITEM(children, i), "UOdp", &name, &child, &weight, &item) ||
          !text_of(name, text) || !register_child(node, text, child, weight, item != 0)) {
        return nullptr;
      }
    }
    if (!add_hooks(self, PyDict_GetItemString(state, "pre_hooks"), true) ||
        !add_hooks(self, PyDict_GetItemString(state, "forward_hooks"), false)) {
      return nullptr;
    }
    PyObject* const threshold = PyDict_GetItemString(state, "threshold");
    PyObject* const strict = PyDict_GetItemString(state, "strict");
    if (threshold != nullptr) node.threshold = PyFloat_AsDouble(threshold);
    node.strict = strict == Py_True;
    node.update_special();
    if (PyErr_Occurred() != nullptr) return nullptr;
  }
  // A subclass with its own __getstate__ gives plain attributes: rubrics among them register themselves.
  PyObject* key = nullptr;
  PyObject* value = nullptr;
  Py_ssize_t position = 0;
  while (attributes != nullptr && PyDict_Next(attributes, &position, &key, &value)) {
    if (PyObject_SetAttr(self, key, value) != 0) return nullptr;
  }
  Py_RETURN_NONE;
}

// ---- Attributes kept in C++

PyObject* rubric_get_last_score(PyObject* self, void*) {
  const PyNode& node = node_of(self);
  if (!node.has_last) Py_RETURN_NONE;
  return node.last_object != nullptr ? Py_NewRef(node.last_object) : PyFloat_FromDouble(node.last_value);
}

int rubric_set_last_score(PyObject* self, PyObject* value, void*) {
  PyNode& node = node_of(self);
  node.has_last = value != nullptr && value != Py_None;
  PyObject* const previous = node.last_object;
  node.last_object = node.has_last ? Py_NewRef(value) : nullptr;
  Py_XDECREF(previous);
  return 0;
}

PyObject* rubric_get_strict(PyObject* self, void*) { return PyBool_FromLong(node_of(self).strict); }

int rubric_set_strict(PyObject* self, PyObject* value, void*) {
  const int truth = value != nullptr ? PyObject_IsTrue(value) : 0;
  if (truth < 0) return -1;
  node_of(self).strict = truth != 0;
  node_of(self).update_special();
  return 0;
}

PyObject* rubric_get_threshold(PyObject* self, void*) { return PyFloat_FromDouble(node_of(self).threshold); }

int rubric_set_threshold(PyObject* self, PyObject* value, void*) {
  const double threshold = value != nullptr ? PyFloat_AsDouble(value) : 1.0;
  if (threshold == -1.0 && PyErr_Occurred() != nullptr) return -1;
  node_of(self).threshold = threshold;
  return 0;
}

// ---- forward

PyObject* rubric_forward(PyObject* self, PyObject*) {
  return PyErr_Format(PyExc_NotImplementedError, "%s has no forward(action, observation)",
                      Py_TYPE(self)->tp_name);
}

template <NodeKind kind>
PyObject* container_forward(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"action", "observation", nullptr};
  PyObject* action = nullptr;
  PyObject* observation = nullptr;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:forward", const_cast<char**>(names), &action,
                                   &observation)) {
    return nullptr;
  }
  Result result;
  return run_forward(node_of(self), kind, action, observation, result) ? result.take() : nullptr;
}

template <NodeKind kind>
PyMethodDef container_method(const char* name) {
  return {name, as_method(container_forward<kind>), METH_VARARGS | METH_KEYWORDS, nullptr};
}

// ---- Life

PyObject* rubric_new(PyTypeObject* type, PyObject*, PyObject*) {
  static PyObject* name = nullptr;
  if ((type->tp_flags & Py_TPFLAGS_IS_ABSTRACT) != 0) {
    PyObject* const empty = PyTuple_New(0);
    PyObject* const refused = PyBaseObject_Type.tp_new(type, empty, nullptr);  // raises and names the methods
    Py_DECREF(empty);
    return refused;
  }
  if (_PyType_Lookup(type, interned(name, "forward")) == g_base_forward) {
    return PyErr_Format(
        PyExc_TypeError,
        "can't instantiate %s: it has no forward(action, observation); define one in a subclass",
        type->tp_name);
  }
  PyObject* const self = type->tp_alloc(type, 0);
  if (self == nullptr) return nullptr;
  reinterpret_cast<RubricObject*>(self)->vectorcall = rubric_vectorcall;
#if PY_VERSION_HEX < 0x030C0000
  // The function itself looks whether the class overrides __call__, so the flag that 3.11 does not inherit is
  // safe.
  if (type->tp_call == rubric_call) type->tp_flags |= Py_TPFLAGS_HAVE_VECTORCALL;
#endif
  PyNode* const node = new (&node_of(self)) PyNode;
  node->owner = self;
  return self;
}

int rubric_init(PyObject* self, PyObject* args, PyObject* kwargs) {
  static const char* names[] = {"strict", nullptr};
  int strict = node_of(self).strict;
  if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$p:Rubric", const_cast<char**>(names), &strict)) return -1;
  node_of(self).strict = strict != 0;
  node_of(self).update_special();
  return 0;
}

int rubric_traverse(PyObject* self, visitproc visit, void* arg) {
  PyNode& node = node_of(self);
  for (const auto& child : node.children()) Py_VISIT(py(*child.node).owner);
  for (const auto& hook : node.pre_hooks) Py_VISIT(hook.callable);
  for (const auto& hook : node.forward_hooks) Py_VISIT(hook.callable);
  Py_VISIT(node.last_object);
  return 0;
}

int rubric_clear(PyObject* self) {
  PyNode& node = node_of(self);
  node.observation_.reset();
  while (!node.children().empty()) unregister_child(node, std::string(node.children().back().name));
  for (auto* hooks : {&node.pre_hooks, &node.forward_hooks}) {
    std::vector<Hook> dropped;
    dropped.swap(*hooks);
    for (const auto& hook : dropped) Py_DECREF(hook.callable);
  }
  node.update_special();
  Py_CLEAR(node.last_object);
  return 0;
}

void rubric_dealloc(PyObject* self) {
  PyObject_GC_UnTrack(self);
  rubric_clear(self);
  node_of(self).~PyNode();
  Py_TYPE(self)->tp_free(self);
}

PyObject* rubric_repr(PyObject* self) {
  static PyObject* function = nullptr;
  PyObject* const callable = import_once(function, "rubriscope._details", "tree_repr");
  return callable != nullptr ? PyObject_CallOneArg(callable, self) : nullptr;
}

PyMethodDef g_methods[] = {
    {"forward", rubric_forward, METH_VARARGS,
     "forward(action, observation)\n--\n\nComputes the score. Subclasses define it, sync or async; the score "
     "is a "
     "number,\nan rs.Score or a 0-dim tensor."},
    container_method<NodeKind::sequential>("_forward_sequential"),
    container_method<NodeKind::gate>("_forward_gate"),
    container_method<NodeKind::weighted_sum>("_forward_weighted_sum"),
    {"batch", as_method(rubric_batch), METH_VARARGS | METH_KEYWORDS,
     "batch(actions, observations)\n--\n\nScores N pairs in one call and makes N snapshots.\n\nReturns a "
     "float64 "
     "tensor of shape (N,) on the scores' device (CPU for numbers).\nRaises ValueError when the lengths "
     "differ. "
     "A rubric may override\nforward_batch(actions, observations) -> N scores."},
    {"children", rubric_children, METH_NOARGS, "children()\n--\n\nIterates over the immediate children."},
    {"named_children", rubric_named_children, METH_NOARGS,
     "named_children()\n--\n\nIterates over (name, child) of the immediate children."},
    {"rubrics", rubric_rubrics, METH_NOARGS, "rubrics()\n--\n\nIterates over all descendants, depth first."},
    {"named_rubrics", as_method(rubric_named_rubrics), METH_VARARGS | METH_KEYWORDS,
     "named_rubrics(prefix='')\n--\n\nIterates over (dotted path, rubric) of all descendants, depth first."},
    {"get_rubric", rubric_get_rubric, METH_O,
     "get_rubric(path)\n--\n\nThe descendant at a dotted path, such as 'grounding.fuzzy'.\n\nRaises KeyError "
     "that "
     "names the missing part and what exists there."},
    {"register_forward_pre_hook", rubric_register_forward_pre_hook, METH_O,
     "register_forward_pre_hook(hook)\n--\n\nCalls hook(rubric, action, observation), sync or async, before "
     "forward().\n\nReturns a handle with .remove(), also a context manager."},
    {"register_forward_hook", rubric_register_forward_hook, METH_O,
     "register_forward_hook(hook)\n--\n\nCalls hook(rubric, action, observation, score), sync or async, "
     "after "
     "forward().\n\nReturns a handle with .remove(), also a context manager."},
    {"reset", rubric_reset, METH_NOARGS,
     "reset()\n--\n\nForgets internal state; override where there is some."},
    {"state_dict", rubric_state_dict, METH_NOARGS, "state_dict()\n--\n\nConfiguration for a checkpoint."},
    {"load_state_dict", rubric_load_state_dict, METH_O,
     "load_state_dict(state)\n--\n\nLoads what state_dict() gave."},
    {"_forward_native", native_forward, METH_VARARGS, nullptr},
    {"_set_item", rubric_set_item, METH_VARARGS, nullptr},
    {"_set_child", rubric_set_child, METH_VARARGS, nullptr},
    {"_items", rubric_items, METH_NOARGS, nullptr},
    {"_remove_hook", rubric_remove_hook, METH_O, nullptr},
    {"__getstate__", rubric_getstate, METH_NOARGS, nullptr},
    {"__setstate__", rubric_setstate, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef g_getset[] = {
    {"last_score", rubric_get_last_score, rubric_set_last_score,
     "What the last call of this rubric returned; None before the first.", nullptr},
    {"strict", rubric_get_strict, rubric_set_strict,
     "Whether a score that is not a finite number raises ValueError.", nullptr},
    {"_threshold", rubric_get_threshold, rubric_set_threshold, nullptr, nullptr},
    {"_forward_hooks", rubric_get_forward_hooks, nullptr, nullptr, nullptr},
    {"_forward_pre_hooks", rubric_get_forward_pre_hooks, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

PyObject* hooks_list(const std::vector<Hook>& hooks) {
  return list_of([&](PyObject* list) {
    return std::all_of(hooks.begin(), hooks.end(),
                       [&](const Hook& hook) { return PyList_Append(list, hook.callable) == 0; });
  });
}

PyTypeObject RubricType = [] {
  PyTypeObject type{};
  type.ob_base = {PyObject_HEAD_INIT(nullptr) 0};
  type.tp_name = "rubriscope.Rubric";
  type.tp_basicsize = sizeof(RubricObject);
  type.tp_dealloc = rubric_dealloc;
  type.tp_repr = rubric_repr;
  type.tp_call = rubric_call;
  type.tp_setattro = rubric_setattro;
  type.tp_vectorcall_offset = sizeof(PyObject);  // the first member; offsetof needs a standard layout
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_doc =
      "A reward function in a tree (OpenEnv RFC 004).\n\nSubclasses define forward(action, observation) -> "
      "score; "
      "rubrics assigned as\nattributes become children. Calling a rubric runs its hooks and forward().";
  type.tp_traverse = rubric_traverse;
  type.tp_clear = rubric_clear;
  type.tp_methods = g_methods;
  type.tp_getset = g_getset;
  type.tp_init = rubric_init;
  type.tp_new = rubric_new;
  type.tp_free = PyObject_GC_Del;
  return type;
}();

std::shared_ptr<const void> PyNode::hold() const {
  return {Py_NewRef(owner), [](PyObject* held) { Py_DECREF(held); }};
}

std::string PyNode::details_json() const {
  static PyObject* function = nullptr;
  PyObject* const callable = import_once(function, "rubriscope._details", "node_details");
  PyObject* const text = callable != nullptr ? PyObject_CallOneArg(callable, owner) : nullptr;
  std::string_view details;
  if (text == nullptr || !text_of(text, details)) {
    PyErr_WriteUnraisable(owner);  // a rubric's own state_dict() failed: the tree is observed all the same
    Py_XDECREF(text);
    return {};
  }
  std::string kept(details);
  Py_DECREF(text);
  return kept;
}

bool refresh_forward(PyNode& node) {
  static PyObject* name = nullptr;
  static PyObject* sequential = nullptr;
  static PyObject* gate = nullptr;
  static PyObject* weighted_sum = nullptr;
  static PyObject* native = nullptr;
  static PyObject* is_async_function = nullptr;
  if (sequential == nullptr) {
    native = PyDict_GetItemString(RubricType.tp_dict, "_forward_native");
    gate = PyDict_GetItemString(RubricType.tp_dict, "_forward_gate");
    weighted_sum = PyDict_GetItemString(RubricType.tp_dict, "_forward_weighted_sum");
    sequential = PyDict_GetItemString(RubricType.tp_dict, "_forward_sequential");
  }
  PyTypeObject* const type = Py_TYPE(node.owner);
  PyObject* const found = _PyType_Lookup(type, interned(name, "forward"));  // also assigns the version tag
  node.forward = found;
  node.forward_is_function = found != nullptr && PyFunction_Check(found) && !node.instance_forward;
  node.kind = node.instance_forward   ? NodeKind::leaf
              : found == sequential   ? NodeKind::sequential
              : found == gate         ? NodeKind::gate
              : found == weighted_sum ? NodeKind::weighted_sum
                                      : NodeKind::leaf;
  node.forward_is_native = found == native && !node.instance_forward;
  node.forward_is_async = false;
  if (node.kind == NodeKind::leaf) {
    PyObject* const is_async = import_once(is_async_function, "rubriscope._details", "is_async_callable");
    PyObject* const bound = is_async != nullptr ? PyObject_GetAttr(node.owner, name) : nullptr;
    PyObject* const answer = bound != nullptr ? PyObject_CallOneArg(is_async, bound) : nullptr;
    Py_XDECREF(bound);
    if (answer == nullptr) return false;
    node.forward_is_async = answer == Py_True;
    Py_DECREF(answer);
  }
  node.overrides_call = type->tp_call != rubric_call;
  node.forward_version = type->tp_version_tag;
  node.update_special();
  return true;
}

bool add_rubric_type(PyObject* module) {
  if (PyType_Ready(&RubricType) < 0) return false;
  g_base_forward = PyDict_GetItemString(RubricType.tp_dict, "forward");
  return PyModule_AddObjectRef(module, "Rubric", reinterpret_cast<PyObject*>(&RubricType)) == 0;
}

}  // namespace rubriscope::binding
