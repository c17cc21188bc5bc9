// A span's metadata as it grows: the members of a JSON object, made from Python values.
#pragma once

#include <Python.h>

#include <string>

namespace rubriscope::binding {

/// Adds `"key":value` to `members` (`"a":1,"b":2`, without braces); a key that is there is replaced. A value
/// that JSON does not know is its repr. Never leaves an exception set: where a value's own code fails, its
/// error's name stands for it.
void set_member(std::string& members, PyObject* key, PyObject* value);

/// The UTF-8 of a str, or of str(object); `keep` owns it. Never leaves an exception set.
std::string_view text_of_any(PyObject* object, PyObject*& keep);

}  // namespace rubriscope::binding
