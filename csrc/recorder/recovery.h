// Recovery: brings the records of writers that died into their sinks, and lists what journals there are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rubriscope/recorder/sink.h"

namespace rubriscope {

/// The sink for a target found in a journal, or nullptr when it cannot be opened here (a Python object of a
/// process that is gone). Throws when it should be possible and is not: the journal then stays.
using SinkFactory = std::function<std::shared_ptr<Sink>(const std::string& target)>;

/// Called as a writer's records are delivered.
using RecoveryProgress =
    std::function<void(const std::filesystem::path& journal, std::uint64_t done, std::uint64_t total)>;

struct RecoveryReport {
  std::uint64_t journals{};                       ///< ownerless writer folders taken
  std::uint64_t delivered{};                      ///< records that at least one sink newly took
  std::uint64_t torn{};                           ///< being written when the process died, so never accepted
  std::uint64_t damaged{};                        ///< accepted records whose bytes are bad
  std::vector<std::filesystem::path> set_aside;   ///< folders ("<writer>.damaged") with the damaged files
  std::vector<std::filesystem::path> kept;        ///< journals that still hold undelivered records
  std::vector<std::filesystem::path> left_alone;  ///< journals a living process owns
  std::vector<std::string> messages;              ///< what a person should know, one line each
};

/// Delivers every record of every ownerless journal under `base_dir`, in order, into the sinks of its
/// targets: once into sinks that store identity, at least once into others. Safe to kill and to run in
/// several processes at once. A sink's failure keeps its journal and is reported, not thrown. The sinks stay
/// open.
RecoveryReport recover(const std::filesystem::path& base_dir, const SinkFactory& sink_for_target,
                       const RecoveryProgress& progress = {});

/// The same into given sinks, matched by target().
RecoveryReport recover(const std::filesystem::path& base_dir, const std::vector<std::shared_ptr<Sink>>& sinks,
                       const RecoveryProgress& progress = {});

struct JournalInfo {
  std::filesystem::path path;
  bool owner_alive{};
  bool set_aside{};  ///< a "<writer>.damaged" folder
  std::uint64_t pending_records{};
  std::uint64_t bytes{};
  SessionInfo session;  ///< empty when the definitions cannot be read
  WriterInfo writer;
  std::vector<std::string> targets;
};

/// The journals under `base_dir`, oldest writer first. Reads only.
std::vector<JournalInfo> list_journals(const std::filesystem::path& base_dir);

/// Where a target's journals live: "<file>.rubriscope" beside a file target ("sqlite:///abs/runs.db",
/// "jsonl:/abs/run.jsonl"), else "$XDG_STATE_HOME/rubriscope/<hash of the target without its password>".
std::filesystem::path journal_dir_for(const std::string& target);

}  // namespace rubriscope
