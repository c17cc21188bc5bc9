// Ledgers in a PostgreSQL database that Python reads: rubriscope.postgres_ledger.PostgresLedgers.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "rubriscope/film/ledger_source.h"

namespace rubriscope::binding {

/// Takes the GIL for Python's calls only.
std::unique_ptr<LedgerSource> make_py_ledger_source(pybind11::object ledgers);

}  // namespace rubriscope::binding
