// Our SQLite file format: its tables, and how a file is recognised without touching it.
#pragma once

#include <cstdint>
#include <string>

#include "rubriscope/sinks/sqlite/database.h"

namespace rubriscope::sqlite {

inline constexpr std::int64_t kApplicationId = 0x52534350;  // "RSCP"
inline constexpr std::int64_t kFormatVersion = 1;

/// step_key and scalar_key are writer_key << kSequenceBits | sequence.
inline constexpr int kSequenceBits = 40;
inline constexpr std::uint64_t kSequenceMask = (std::uint64_t{1} << kSequenceBits) - 1;

/// The SQL that makes an empty database ours, without BEGIN and COMMIT.
extern const char* const kCreateSql;

enum class FileState {
  absent,  ///< no file, or an empty one: a new database may be made here
  ours,
};

/// Looks at the file's header only. Takes no lock, creates nothing and changes nothing. Throws FormatError
/// when the file is somebody else's or of a newer format, DatabaseError when it cannot be read.
FileState inspect_file(const std::string& path);

/// Looks again through an open connection, which also sees what is still in a write-ahead log. Returns absent
/// for a database without tables. Throws like inspect_file().
FileState inspect_database(Database& database, const std::string& path);

}  // namespace rubriscope::sqlite
