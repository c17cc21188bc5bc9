#include "rubriscope/sinks/lines_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

namespace rubriscope::lines {

SinkError sink_error(const std::string& what, const std::string& path, int error_number) {
  const char* remedy = "";
  if (error_number == ENOSPC || error_number == EDQUOT) remedy = "; free some space";
  return SinkError(what + " " + path + " failed: " + std::strerror(error_number) + remedy, true);
}

std::size_t read_at(int file, const std::string& path, char* to, std::size_t bytes, off_t offset) {
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t got = pread(file, to + have, bytes - have, offset + static_cast<off_t>(have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw sink_error("Reading", path, errno);
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return have;
}

off_t size_of(int file, const std::string& path) {
  struct stat info{};
  if (fstat(file, &info) != 0) throw sink_error("Reading", path, errno);
  return info.st_size;
}

namespace {

/// What follows the last line break was never finished.
void truncate_torn_line(int file, const std::string& path) {
  const off_t size = size_of(file, path);
  off_t keep = 0;
  for_each_chunk_backwards(file, path, 0, [&](std::string_view chunk, off_t start) {
    const std::size_t line_break = chunk.rfind('\n');
    if (line_break == std::string_view::npos) return false;
    keep = start + static_cast<off_t>(line_break) + 1;
    return true;
  });
  if (keep != size && ftruncate(file, keep) != 0) throw sink_error("Truncating a torn line of", path, errno);
}

}  // namespace

bool open_for_lines(int& file, const std::string& path, std::string_view first, const std::string& holds) {
  if (file >= 0) {
    // A file that was rotated or deleted would swallow what is written to it.
    struct stat mine{};
    struct stat named{};
    if (fstat(file, &mine) == 0 && stat(path.c_str(), &named) == 0 && mine.st_ino == named.st_ino &&
        mine.st_dev == named.st_dev) {
      return false;
    }
    ::close(std::exchange(file, -1));
  }
  file = ::open(path.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
  if (file < 0) throw sink_error("Opening", path, errno);
  try {
    const FileLock lock(file, path);
    std::string start(first.size(), '\0');
    start.resize(read_at(file, path, start.data(), start.size(), 0));
    if (start != first.substr(0, start.size())) {
      throw FormatError(path + " does not hold " + holds + " (they start with " + std::string(first) +
                        "). The file was left as it was; name another target");
    }
    truncate_torn_line(file, path);
  } catch (...) {
    ::close(std::exchange(file, -1));
    throw;
  }
  return true;
}

void append_durably(int file, const std::string& path, const std::string& text) {
  const FileLock lock(file, path);
  const off_t before = size_of(file, path);
  std::size_t written = 0;
  int failure = 0;
  while (written < text.size() && failure == 0) {
    const ssize_t got = ::write(file, text.data() + written, text.size() - written);
    if (got >= 0) {
      written += static_cast<std::size_t>(got);
    } else if (errno != EINTR) {
      failure = errno;
    }
  }
  if (failure == 0 && fdatasync(file) != 0) failure = errno;
  if (failure == 0) return;
  // All or nothing: nobody else can have appended since, the lock is ours. Where even this fails, the next
  // open() drops a torn line and the lines before it are recognised by their sequence.
  const bool undone = ftruncate(file, before) == 0;
  throw sink_error(undone ? "Writing to" : "Writing to (and then truncating)", path, failure);
}

}  // namespace rubriscope::lines
