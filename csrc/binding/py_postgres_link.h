// A connection to PostgreSQL that Python holds: rubriscope._postgres.Link over psycopg.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "rubriscope/sinks/postgres/postgres_sink.h"

namespace rubriscope::binding {

/// A sink whose connections are made by `connect()` (Python, returning a rubriscope._postgres.Link). Takes
/// the GIL for psycopg's calls only; records are encoded without it.
std::shared_ptr<PostgresSink> make_postgres_sink(const std::string& target, pybind11::object connect);

}  // namespace rubriscope::binding
