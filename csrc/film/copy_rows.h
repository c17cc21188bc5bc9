// Rows of a PostgreSQL database as `COPY … TO STDOUT WITH (FORMAT binary)` gives them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rubriscope/film/ledger_source.h"
#include "rubriscope/sinks/postgres/copy_encoder.h"

namespace rubriscope {

class CopyRows final : public LedgerRows {
 public:
  /// How many rows a piece has where more follow.
  static constexpr std::size_t kRowsAPiece = 8192;
  /// The first kRowsAPiece rows of a table with keys from `first` to `last`, by key: the bytes of a COPY.
  using Copy = std::function<std::string(LedgerTable table, std::int64_t first, std::int64_t last)>;

  CopyRows(LedgerTable table, std::int64_t first, std::int64_t last, Copy copy);

  void advance() override;
  std::span<const std::byte> bytes() override;
  std::int64_t schema_key() override;
  void check(const RecordView& record, std::int64_t session) override;

 private:
  void fetch(std::int64_t first);
  std::string_view take(std::size_t bytes);
  std::int64_t take_integer(std::size_t bytes);
  void columns(const RecordView& record, std::int64_t session);

  const LedgerTable table_;
  const std::int64_t last_;
  const Copy copy_;
  std::string piece_;
  std::string_view left_;  // of the piece
  std::size_t rows_{0};    // of the piece, so far
  std::string_view row_;
  std::vector<std::string_view> fields_;  // data() is null for NULL
  std::optional<postgres::CopyColumns> columns_;
  postgres::CopyStream expected_;
  std::string episode_;
};

}  // namespace rubriscope
