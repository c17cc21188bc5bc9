// Reading one of our files: without changing it, and while others write it.
#pragma once

#include <string>

#include "rubriscope/sinks/sqlite/database.h"

namespace rubriscope::sqlite {

/// Throws SystemError when there is no such file, FormatError when it is not ours, newer or older,
/// DatabaseError when it cannot be read.
Database open_read_only(const std::string& path);

/// Throws a DatabaseError on as what a reader can do something about: FormatError, TimeoutError, SystemError.
[[noreturn]] void rethrow(const DatabaseError& error, const std::string& path);

/// One consistent state of the file over several statements.
class ReadTransaction {
 public:
  explicit ReadTransaction(Database& database) : database_(database) { database_.execute("BEGIN"); }
  ~ReadTransaction() { sqlite3_exec(database_.handle(), "COMMIT", nullptr, nullptr, nullptr); }
  ReadTransaction(const ReadTransaction&) = delete;
  ReadTransaction& operator=(const ReadTransaction&) = delete;

 private:
  Database& database_;
};

}  // namespace rubriscope::sqlite
