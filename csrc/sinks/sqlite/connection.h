// An open database and what is known of its rows: the statements that SqliteSink's transactions are made of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/ledger/writer_log.h"
#include "rubriscope/sinks/rows.h"
#include "rubriscope/sinks/sqlite/database.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"

namespace rubriscope {

struct SqliteSink::Connection {
  struct Writer {
    Writer(const SessionInfo& session, const WriterInfo& writer) : encoder(session, writer) {}

    CborEncoder encoder;
    std::int64_t session_id{};
    std::int64_t writer_key{};
    bool may_repeat{true};  // a batch of before may have been stored
    std::unordered_map<std::uint32_t, std::int64_t> schema_keys;
    std::unordered_set<std::string> episodes;
    rows::Extent extent;
    std::optional<ledger::WriterLog> log;  // where the session has a ledger
  };

  explicit Connection(const std::string& path);

  void register_writer(const SessionInfo& session, const WriterInfo& writer);
  void insert(Writer& writer, const Batch& batch);
  std::int64_t schema_key(Writer& writer, const RecordView& record);
  void ensure_episode(Writer& writer, const std::string& episode, std::int64_t time_ns);
  std::optional<std::uint64_t> last_sequence(std::int64_t writer_key);
  bool is_stored(std::int64_t key);
  void add_event(Writer& writer, const RecordView& record, std::int64_t key, std::int64_t key_of_schema,
                 std::string_view values);
  void store_extent(Writer& writer);
  void close_writers();
  std::optional<ledger::LogTail> load_log(std::int64_t writer_key);
  void store_log(Writer& writer);

  sqlite::Database database;
  std::unordered_map<std::string, Writer> writers;  // by writer id
  sqlite::Statement insert_step;
  sqlite::Statement insert_scalar;
  sqlite::Statement insert_event;
  sqlite::Statement insert_episode;
  sqlite::Statement find_key;
  sqlite::Statement put_extent;
  sqlite::Statement put_tile;
  sqlite::Statement put_entry;
  sqlite::Statement put_log;

  // Scratch, kept for its memory.
  std::vector<std::byte> record_bytes;
  std::vector<char> scores_text;
  std::string statuses_text;
  std::string episode;
  std::string action;
  std::string observation;
  std::string metadata;
};

}  // namespace rubriscope
