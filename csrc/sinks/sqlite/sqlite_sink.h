// Stores records in one SQLite file, laid out as docs/formats.md says. Several processes may write to a file.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "rubriscope/recorder/sink.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope {

class SqliteSink : public Sink {
 public:
  /// `path` is made absolute; nothing is opened before open().
  explicit SqliteSink(const std::string& path);
  ~SqliteSink() override;

  /// "sqlite:///abs/runs.db"
  std::string target() const override;

  /// Throws FormatError when the file is somebody else's or of a newer format (it is left untouched),
  /// SinkError when it cannot be opened now.
  void open(const SessionInfo& session, const WriterInfo& writer) override;

  /// One transaction, synchronous=FULL.
  void write(const Batch& batch) override;

  std::optional<std::uint64_t> stored_through(const WriterInfo& writer) override;
  bool stores_identity() const override { return true; }
  void close() override;
  void abandon_after_fork() override;

  /// The keys of this database, made (and the file with them) where there are none. Throws SealedError when
  /// they were wrapped by another key, and like open().
  vault::VaultPtr open_vault(const vault::Kek& kek);

  /// Whether there is a database already and it has such keys.
  bool is_encrypted();

 private:
  struct Connection;

  Connection& connection();

  const std::string path_;
  std::unique_ptr<Connection> connection_;
  std::atomic<bool> busy_{false};  // inside a call; read by a forked child
  bool unusable_after_fork_{false};
};

}  // namespace rubriscope
