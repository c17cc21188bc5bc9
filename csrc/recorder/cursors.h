// How far each sink has come, in a small mapped file: what recovery of sinks without identity goes by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "rubriscope/recorder/file.h"

namespace rubriscope {

/// One cursor per sink: the sequence of the next record it is to get. Each is stored twice with a check, so
/// that a kill between the stores or a flipped byte leaves one that is right.
class Cursors {
 public:
  static constexpr std::size_t kMost = 64;
  static constexpr std::size_t kFileBytes = kMost * 64;

  /// Makes the file, all cursors 0. Throws SystemError.
  static Cursors create(const std::filesystem::path& path);

  /// Opens a dead writer's file; one that is missing or cut short is made anew with all cursors 0. Throws
  /// SystemError.
  static Cursors recover(const std::filesystem::path& path);

  /// Reads the cursors of a file without changing it: kMost values, 0 where there is none.
  static std::vector<std::uint64_t> read(const std::filesystem::path& path);

  void store(std::size_t sink, std::uint64_t sequence);
  std::uint64_t load(std::size_t sink) const;

 private:
  Mapping mapping_;
};

}  // namespace rubriscope
