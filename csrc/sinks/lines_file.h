// A file of lines that several processes append to: opened for it, locked, written all or nothing.
#pragma once

#include <sys/file.h>
#include <sys/types.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "rubriscope/core/errors.h"

namespace rubriscope::lines {

inline constexpr std::size_t kChunk = std::size_t{1} << 20;

SinkError sink_error(const std::string& what, const std::string& path, int error_number);

/// Reads up to `bytes` at `offset`; fewer only at the end of the file. Throws SinkError.
std::size_t read_at(int file, const std::string& path, char* to, std::size_t bytes, off_t offset);

off_t size_of(int file, const std::string& path);

/// The only one to append while it lives. Held by the open file, so it ends with the process.
class FileLock {
 public:
  FileLock(int file, const std::string& path) : file_(file) {
    while (flock(file, LOCK_EX) != 0) {
      if (errno != EINTR) throw sink_error("Locking", path, errno);
    }
  }
  ~FileLock() { flock(file_, LOCK_UN); }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int file_;
};

/// Calls visit(chunk) from the end of the file to its start until it returns true. Neighbouring chunks
/// overlap by `overlap` bytes, so that a match across their border is seen.
template <class Visit>
void for_each_chunk_backwards(int file, const std::string& path, std::size_t overlap, Visit&& visit) {
  std::string chunk;
  off_t end = size_of(file, path);
  while (end > 0) {
    const off_t start = std::max<off_t>(0, end - static_cast<off_t>(kChunk));
    const std::size_t extra =
        std::min<std::size_t>(overlap, static_cast<std::size_t>(size_of(file, path) - end));
    chunk.resize(static_cast<std::size_t>(end - start) + extra);
    chunk.resize(read_at(file, path, chunk.data(), chunk.size(), start));
    if (visit(std::string_view(chunk), start)) return;
    end = start;
  }
}

/// Opens a file to append to, or keeps the one that is open while the name still means it. `first` is how
/// every such file starts: where it holds something else it is left as it is, and FormatError says what
/// `holds` would be. Removes a torn last line. `file` is -1 where it throws. True when it was opened anew.
bool open_for_lines(int& file, const std::string& path, std::string_view first, const std::string& holds);

/// One write() and one fdatasync(), all or nothing. Throws SinkError.
void append_durably(int file, const std::string& path, const std::string& text);

}  // namespace rubriscope::lines
