// Reads recorded sessions back from our SQLite file. Read-only, on a connection of its own, and while a
// recorder is writing: each call sees one consistent state of the file.
//
// Rows come writer by writer, writers in the order they were registered, each writer's in the order recorded.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/vault/vault.h"

namespace rubriscope {

struct FilmSession {
  std::int64_t id{};  ///< the row's number in this file
  SessionInfo info;   ///< the metadata of one that is encrypted and cannot be opened is {"encrypted":true}
  std::string created_at;                 ///< ISO 8601, UTC
  std::optional<std::int64_t> closed_ns;  ///< none while a writer is open, or was killed
  std::int64_t steps{};
  std::int64_t scalars{};
  std::int64_t events{};
  std::int64_t episodes{};  ///< 0 where they are encrypted: FilmReader::episodes() looks for them
  std::int64_t writers{};
  std::vector<std::int32_t> ranks;       ///< of its writers, ascending
  std::optional<std::int64_t> first_ns;  ///< wall clock of the earliest record
  std::optional<std::int64_t> last_ns;
};

struct FilmEpisode {
  std::string name;
  std::int64_t started_ns{};  ///< wall clock of its first record
};

/// Which records; everything where nothing is set.
struct FilmFilter {
  std::optional<std::string> episode;
  std::optional<std::int64_t> start;  ///< first step index
  std::optional<std::int64_t> stop;   ///< step index after the last
  std::optional<std::size_t> writer;  ///< index into writers()
};

/// Which events; all where nothing is set.
struct EventFilter {
  std::optional<std::string> kind;  ///< kind_name()
  std::optional<std::string> name;  ///< of the schema
  std::optional<std::int64_t> start;
  std::optional<std::int64_t> stop;
  std::optional<std::size_t> writer;
};

/// Where each record of a result stands. All columns have one entry a record.
struct PositionColumns {
  std::vector<std::int64_t> step;
  std::vector<std::int64_t> time_ns;
  std::vector<std::int64_t> sequence;
  std::vector<std::int32_t> writer;  ///< index into writers()
  std::vector<std::int32_t> rank;
  std::vector<std::int64_t> group;    ///< kNoGroup where there is none
  std::vector<std::int32_t> sample;   ///< kNoSample where there is none
  std::vector<std::int32_t> episode;  ///< index into episodes(), -1 where there is none

  std::size_t size() const { return step.size(); }
};

/// One rubric's scores, or one scalar's values.
struct ScoreColumns {
  PositionColumns at;
  std::vector<double> score;              ///< NaN where there is none
  std::vector<std::uint8_t> status;       ///< Status
  std::vector<std::int64_t> duration_ns;  ///< empty for scalars
};

struct ScoreMatrix {
  PositionColumns at;
  std::vector<std::string> paths;
  std::vector<double> scores;          ///< (records, paths), row-major; NaN where the node was not scored
  std::vector<std::uint8_t> statuses;  ///< likewise; skipped where the record's tree has no such node
};

/// One node's figures over a session.
struct PathSummary {
  std::string path;
  std::int64_t scored{};
  std::int64_t skipped{};
  std::int64_t failed{};
  double mean{};     ///< of the scores
  double squares{};  ///< sum of squared differences from the mean
  double least{};
  double greatest{};
  double duration_ns{};       ///< sum over the calls that were not skipped
  std::vector<double> curve;  ///< mean score in each equal share of the steps; NaN where there is none
};

/// A snapshot, or an event.
struct FilmRecord {
  DecodedRecord record;  ///< with its schema
  const SessionInfo* session;
  const WriterInfo* writer;  ///< both live as long as the cursor
};

/// Any thread, one call at a time (calls from several threads wait for each other).
class FilmReader {
 public:
  /// `kek` opens what is encrypted; without it sessions are listed, and what they hold throws SealedError.
  /// Throws SystemError when there is no such file, FormatError when it is not ours, newer or damaged,
  /// SealedError when `kek` is not the file's.
  explicit FilmReader(const std::string& path, const std::optional<vault::Kek>& kek = {});
  ~FilmReader();

  const std::string& path() const;

  /// In the order they were made.
  std::vector<FilmSession> sessions() const;

  /// The number of the session with this UUID; else of the newest with this name; else, for decimal digits,
  /// the number itself. Throws KeyError naming what there is.
  std::int64_t find_session(std::string_view uuid_or_name) const;

  /// Of every tree and in pre-order, "root" first.
  std::vector<std::string> paths(std::int64_t session) const;
  std::vector<std::string> scalar_names(std::int64_t session) const;

  /// In the order they were registered.
  std::vector<WriterInfo> writers(std::int64_t session) const;

  /// In the order they began.
  std::vector<FilmEpisode> episodes(std::int64_t session) const;

  /// One node's scores over the records whose tree has it. Throws KeyError for an unknown session or path.
  ScoreColumns scores(std::int64_t session, std::string_view path, const FilmFilter& filter = {}) const;

  /// All nodes' scores over all records.
  ScoreMatrix score_matrix(std::int64_t session, const FilmFilter& filter = {}) const;

  /// Figures of every node, from one scan in bounded memory. `bins` is the length of the curves at most.
  std::vector<PathSummary> summaries(std::int64_t session, std::size_t bins,
                                     const FilmFilter& filter = {}) const;

  /// One scalar's values. The episode of `filter` is not used: scalars belong to none. Throws KeyError.
  ScoreColumns scalars(std::int64_t session, std::string_view name, const FilmFilter& filter = {}) const;

  /// Goes through the records in steps that leave the file free in between; records that arrive meanwhile at
  /// the end are seen.
  class Cursor {
   public:
    ~Cursor();
    Cursor(Cursor&&) noexcept;
    Cursor& operator=(Cursor&&) noexcept;

    /// The next record, or nothing at the end.
    std::optional<FilmRecord> next();

   private:
    friend class FilmReader;
    struct Plan;
    explicit Cursor(std::unique_ptr<Plan> plan);
    std::unique_ptr<Plan> plan_;
  };
  Cursor snapshots(std::int64_t session, const FilmFilter& filter = {}) const;
  Cursor events(std::int64_t session, const EventFilter& filter = {}) const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace rubriscope
