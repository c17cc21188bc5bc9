// The parts of the extension module, one function a file.
#pragma once

#include <pybind11/pybind11.h>

namespace rubriscope::binding {

void bind_recorder(pybind11::module_& m);
void bind_native(pybind11::module_& m);
void bind_film(pybind11::module_& m);

}  // namespace rubriscope::binding
