// The SHA-256 of a file: what ties a model's checkpoint on disk to the record that tells of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "rubriscope/ledger/hash.h"

namespace rubriscope::ledger {

struct FileDigest {
  Hash sha256;
  std::uint64_t bytes;
};

/// Reads the file from its beginning to its end. `progress` gets the bytes read so far, every 64 MiB; what it
/// throws comes through. Throws SystemError, also for what is no regular file.
FileDigest digest_file(const std::filesystem::path& path,
                       const std::function<void(std::uint64_t)>& progress = {});

}  // namespace rubriscope::ledger
