// rubriscope._C: the extension module.
#include <pybind11/pybind11.h>

#include "rubriscope/binding/async_call.h"
#include "rubriscope/binding/modules.h"
#include "rubriscope/binding/publish.h"
#include "rubriscope/binding/py_node.h"
#include "rubriscope/binding/sight.h"
#include "rubriscope/core/errors.h"
#include "rubriscope/core/version.h"
#include "rubriscope/ops/isa.h"

namespace py = pybind11;

namespace {

PyMethodDef g_functions[] = {
    {"_publish_deferred", rubriscope::binding::publish_deferred, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

PYBIND11_MODULE(_C, m) {
  using namespace rubriscope::binding;
  m.doc() = "The native part of rubriscope: rubric engine, recorder, sinks, film.";
  m.attr("__version__") = rubriscope::version();
  m.attr("_sqlite_origin") = rubriscope::sqlite_origin();
  m.def("isa_name", &rubriscope::ops::isa_name,
        "The instruction set the CPU kernels use: avx512, avx2 or baseline (RUBRISCOPE_ISA lowers it).");
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const rubriscope::Error&) {
      raise_current_exception();
    }
  });
  if (!add_rubric_type(m.ptr()) || !add_async_types(m.ptr()) || !add_sight_type(m.ptr()) ||
      PyModule_AddFunctions(m.ptr(), g_functions) != 0) {
    throw py::error_already_set();
  }
  bind_vault(m);
  bind_recorder(m);
  bind_open_recorders(m);
  bind_native(m);
  bind_film(m);
  bind_ledger(m);
  bind_film_scan(m);
  bind_postgres(m);
  bind_trace(m);
  bind_trace_file(m);
  bind_sight(m);
  bind_sight_injections(m);
}
