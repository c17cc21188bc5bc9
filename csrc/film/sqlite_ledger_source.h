// Ledgers in one of our SQLite files.
#pragma once

#include <memory>
#include <string>

#include "rubriscope/film/ledger_source.h"

namespace rubriscope {

/// Throws SystemError when there is no such file, FormatError when it is not ours.
std::unique_ptr<LedgerSource> open_sqlite_ledgers(const std::string& path);

}  // namespace rubriscope
