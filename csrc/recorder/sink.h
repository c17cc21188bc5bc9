// Where batches of records go. One folder under csrc/sinks implements one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"

namespace rubriscope {

struct Batch {
  const SessionInfo& session;
  const WriterInfo& writer;
  std::span<const RecordView> records;  ///< ascending sequence, one writer
  bool recovered{false};                ///< replayed from the journal of a process that died
};

/// Called on the drain thread only, never concurrently.
class Sink {
 public:
  virtual ~Sink() = default;

  /// A target that a later process can open again ("sqlite:///abs/runs.db", "jsonl:/abs/run.jsonl"), or a
  /// name of the form "python:ClassName" where there is none.
  virtual std::string target() const = 0;

  /// Makes the session and writer known. Called before the first batch of each writer, and again after a
  /// failed write. Throws SinkError.
  virtual void open(const SessionInfo& session, const WriterInfo& writer) = 0;

  /// Takes the whole batch or nothing; when it returns, the batch is durable. Throws SinkError.
  virtual void write(const Batch& batch) = 0;

  /// The highest sequence of this writer that is stored, for sinks that store (writer, sequence) with the
  /// data and so can be written exactly once; nullopt when none is stored.
  virtual std::optional<std::uint64_t> stored_through(const WriterInfo& writer) {
    (void)writer;
    return std::nullopt;
  }

  /// Whether stored_through() is meaningful.
  virtual bool stores_identity() const { return false; }

  /// Whether recovered records are delivered (the console says no).
  virtual bool wants_recovered() const { return true; }

  /// Whether a batch that keeps failing is kept and retried for ever (stores), or given up and counted as
  /// failed after a few attempts (a user's Python sink with a bug must not fill the journal).
  virtual bool keeps_failed_batches() const { return true; }

  /// Ends the session for this writer (its end time, its final counts) and lets go of files. Throws
  /// SinkError.
  virtual void close() {}

  /// Whether write() needs Python's GIL. A fork waits for a running write to end, so that the child does not
  /// inherit a library's locks half way; it cannot wait for one that needs the lock the forking thread holds.
  virtual bool takes_gil() const { return false; }

  /// In a forked child, before its first open(): let go of what the parent holds without touching its files.
  /// Another thread may have been in the middle of write(): replace state, do not read it.
  virtual void abandon_after_fork() {}
};

}  // namespace rubriscope
