// Our SQLite file format: its tables, and how a file is recognised without touching it.
#pragma once

#include <cstdint>
#include <string>

#include "rubriscope/sinks/rows.h"
#include "rubriscope/sinks/sqlite/database.h"

namespace rubriscope::sqlite {

inline constexpr std::int64_t kApplicationId = 0x52534350;  // "RSCP"
inline constexpr std::int64_t kFormatVersion = 3;

using rows::kSequenceBits;
using rows::kSequenceMask;
using rows::tile_key;

/// Puts a note that says the same with more signatures in the place of a log's checkpoint; false when that
/// was replaced meanwhile. Throws DatabaseError.
bool replace_checkpoint(const std::string& path, const std::string& writer_id, const std::string& old_note,
                        const std::string& new_note);

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
