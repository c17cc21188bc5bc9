#include "rubriscope/binding/trace_metadata.h"

#include <string_view>

#include "rubriscope/binding/py_names.h"
#include "rubriscope/core/json.h"

namespace rubriscope::binding {

namespace {

/// "<ValueError>" for the exception that is set, which is cleared.
PyObject* name_of_failure() {
  PyObject* type = nullptr;
  PyObject* value = nullptr;
  PyObject* trace = nullptr;
  PyErr_Fetch(&type, &value, &trace);
  PyObject* const text = PyUnicode_FromFormat(
      "<%s>", type != nullptr ? reinterpret_cast<PyTypeObject*>(type)->tp_name : "unknown error");
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
  return text;
}

void append_value(std::string& out, PyObject* value) {
  if (value == Py_None) {
    out += "null";
  } else if (PyBool_Check(value)) {
    out += value == Py_True ? "true" : "false";
  } else if (PyUnicode_Check(value)) {
    PyObject* keep = nullptr;
    append_json_string(out, text_of_any(value, keep));
    Py_XDECREF(keep);
  } else if (PyFloat_CheckExact(value)) {
    append_json_number(out, PyFloat_AS_DOUBLE(value));
  } else {
    if (PyLong_CheckExact(value)) {
      int overflow = 0;
      const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
      if (overflow == 0) return append_json_number(out, static_cast<std::int64_t>(number));
    }
    static PyObject* function = nullptr;
    PyObject* const to_json = import_once(function, "rubriscope._details", "value_to_json");
    PyObject* text = to_json != nullptr ? PyObject_CallOneArg(to_json, value) : nullptr;
    PyObject* keep = nullptr;
    if (text == nullptr) {
      text = name_of_failure();
      append_json_string(out, text_of_any(text, keep));
    } else {
      append_json_value(out, text_of_any(text, keep));
    }
    Py_XDECREF(keep);
    Py_XDECREF(text);
  }
}

/// The members but the one of this key.
std::string without(const std::string& members, std::string_view key) {
  const std::string object = "{" + members + "}";
  JsonReader json(object);
  std::string kept;
  json.expect('{');
  while (!json.accept('}')) {
    const std::string name = json.string();
    json.expect(':');
    const std::size_t start = json.offset();
    json.skip_value();
    if (name != key) {
      if (!kept.empty()) kept += ',';
      append_json_string(kept, name);
      kept += ':';
      kept += std::string_view(object).substr(start, json.offset() - start);
    }
    json.accept(',');
  }
  return kept;
}

}  // namespace

std::string_view text_of_any(PyObject* object, PyObject*& keep) {
  keep = nullptr;
  Py_ssize_t size = 0;
  if (PyUnicode_Check(object)) {
    const char* const utf8 = PyUnicode_AsUTF8AndSize(object, &size);
    if (utf8 != nullptr) return {utf8, static_cast<std::size_t>(size)};
    PyErr_Clear();  // lone surrogates
    keep = PyUnicode_AsEncodedString(object, "utf-8", "replace");
    if (keep == nullptr) {
      PyErr_Clear();
      return "";
    }
    return {PyBytes_AS_STRING(keep), static_cast<std::size_t>(PyBytes_GET_SIZE(keep))};
  }
  PyObject* text = PyObject_Str(object);
  if (text == nullptr) text = name_of_failure();
  if (text == nullptr) {
    PyErr_Clear();
    return "";
  }
  const std::string_view view = text_of_any(text, keep);
  if (keep == nullptr) {
    keep = text;
  } else {
    Py_DECREF(text);
  }
  return view;
}

void set_member(std::string& members, PyObject* key, PyObject* value) {
  PyObject* keep = nullptr;
  const std::string_view name = text_of_any(key, keep);
  std::string quoted;
  append_json_string(quoted, name);
  quoted += ':';
  // The quoted name may stand inside a value as well; then the members are only copied.
  if (members.find(quoted) != std::string::npos) members = without(members, name);
  if (!members.empty()) members += ',';
  members += quoted;
  append_value(members, value);
  Py_XDECREF(keep);
}

}  // namespace rubriscope::binding
