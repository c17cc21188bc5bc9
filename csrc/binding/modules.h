// The parts of the extension module, one function a file.
#pragma once

#include <pybind11/pybind11.h>

namespace rubriscope::binding {

void bind_recorder(pybind11::module_& m);
void bind_open_recorders(pybind11::module_& m);
void bind_native(pybind11::module_& m);
void bind_film(pybind11::module_& m);
void bind_ledger(pybind11::module_& m);
void bind_film_scan(pybind11::module_& m);
void bind_postgres(pybind11::module_& m);
void bind_vault(pybind11::module_& m);
void bind_trace(pybind11::module_& m);
void bind_trace_file(pybind11::module_& m);
void bind_sight(pybind11::module_& m);
void bind_sight_injections(pybind11::module_& m);

}  // namespace rubriscope::binding
