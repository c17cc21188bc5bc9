// What one transaction stores, as statements on a connection.
#pragma once

#include <cstdint>

#include "rubriscope/sinks/postgres/libpq.h"
#include "rubriscope/sinks/postgres/postgres_sink.h"

namespace rubriscope::postgres {

/// One transaction: the streams, then what goes with them; durable when it returns. Throws ServerError, and
/// what the portion throws: the transaction may then be open, and the connection is to be closed.
void store(Connection& connection, std::int64_t session_id, std::int64_t writer_key, Portion& portion);

}  // namespace rubriscope::postgres
