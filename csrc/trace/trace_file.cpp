#include "rubriscope/trace/trace_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <unordered_set>

#include "rubriscope/core/errors.h"

namespace rubriscope {

namespace {

constexpr std::size_t kBlock = std::size_t{1} << 20;
constexpr std::uint64_t kReportEvery = std::uint64_t{32} << 20;

std::size_t read_block(const File& file, const std::string& path, char* to, std::size_t bytes,
                       std::uint64_t offset) {
  std::size_t have = 0;
  while (have < bytes) {
    const ssize_t got = pread(file.get(), to + have, bytes - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw SystemError(errno, "cannot read " + path);
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  return have;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

/// What an id is compared by: a parent in another process may be known by its W3C span id alone.
std::string_view key_of(std::string_view id) {
  const std::size_t bar = id.rfind('_');
  return bar != std::string_view::npos && id.size() - bar - 1 >= 16 ? id.substr(bar + 1) : id;
}

}  // namespace

bool TraceFilter::takes(const TraceLine& line) const {
  if (!layer.empty() && line.layer != layer) return false;
  if (!status.empty() && line.status != status) return false;
  if (!since_ns) return true;
  const auto time = read_timestamp(line.timestamp);
  return time && *time >= *since_ns;
}

TraceFile::TraceFile(const std::string& path) : path_(path), file_(File::open(path, O_RDONLY)) {
  posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

std::uint64_t TraceFile::size() const {
  struct stat info{};
  if (fstat(file_.get(), &info) != 0) throw SystemError(errno, "cannot read " + path_);
  return static_cast<std::uint64_t>(info.st_size);
}

bool TraceFile::take(std::string_view line, const Visit& visit) {
  TraceLine event;
  if (read_trace_line(line, event)) return visit(event, line);
  if (!is_blank(line)) ++corrupt_;
  return true;
}

std::uint64_t TraceFile::forwards(std::uint64_t offset, const Visit& visit, const Progress& progress) {
  const std::uint64_t total = size();
  std::uint64_t told = offset;
  std::string buffer;
  std::size_t kept = 0;  // of a line that began in the block before
  for (;;) {
    buffer.resize(kept + kBlock);
    const std::size_t got = read_block(file_, path_, buffer.data() + kept, kBlock, offset + kept);
    if (got == 0) break;
    const std::string_view text(buffer.data(), kept + got);
    std::size_t start = 0;
    std::size_t search = kept;
    for (;;) {
      const auto* const found =
          static_cast<const char*>(std::memchr(text.data() + search, '\n', text.size() - search));
      if (found == nullptr) break;
      const auto end = static_cast<std::size_t>(found - text.data());
      if (!take(text.substr(start, end - start), visit)) return offset + end + 1;
      start = search = end + 1;
    }
    kept = text.size() - start;
    std::memmove(buffer.data(), buffer.data() + start, kept);
    offset += start;
    if (progress && offset - told >= kReportEvery) {
      told = offset;
      progress(offset, total);
    }
  }
  return offset;
}

void TraceFile::backwards(const Visit& visit, const Progress& progress) {
  const std::uint64_t total = size();
  std::uint64_t start = total;
  std::uint64_t told = total;
  std::string buffer;  // from `start` on; what has been visited is cut off
  while (start > 0) {
    const std::size_t bytes = static_cast<std::size_t>(std::min<std::uint64_t>(kBlock, start));
    start -= bytes;
    buffer.insert(0, bytes, '\0');
    if (read_block(file_, path_, buffer.data(), bytes, start) != bytes) {
      throw FormatError(path_ + " became shorter while it was read");
    }
    std::size_t end = buffer.size();
    std::size_t search = std::min(bytes, end);  // what lies behind has no line break but at its end
    if (end > 0 && buffer[end - 1] == '\n') --end, search = std::min(search, end);
    while (search > 0) {
      const auto* const found = static_cast<const char*>(memrchr(buffer.data(), '\n', search));
      if (found == nullptr) break;
      const auto line_break = static_cast<std::size_t>(found - buffer.data());
      if (!take(std::string_view(buffer).substr(line_break + 1, end - line_break - 1), visit)) return;
      end = search = line_break;
    }
    buffer.resize(end);
    if (start == 0 && !take(buffer, visit)) return;
    if (progress && told - start >= kReportEvery) {
      told = start;
      progress(total - start, total);
    }
  }
}

std::vector<std::string> TraceFile::tree(const std::string& id, const Progress& progress) {
  // Upwards: a parent ends after its children, so one pass mostly finds the root. Of processes that share
  // the file it may stand before: then again from the start.
  std::string root(key_of(id));
  bool known = false;
  std::unordered_set<std::string> climbed{root};  // a ring of parents ends where it began
  for (bool higher = true; higher;) {
    higher = false;
    bool at_root = false;
    forwards(
        0,
        [&](const TraceLine& line, std::string_view) {
          if (key_of(line.trace_id) != root) return true;
          known = true;
          at_root = line.parent_id.empty();
          if (!at_root) {
            const std::string parent(key_of(line.parent_id));
            if (!climbed.insert(parent).second) return false;
            root = parent;
            higher = true;
          }
          return !at_root;
        },
        progress);
    if (at_root) break;
  }
  if (!known) return {};
  // Downwards: children stand before their parents, so backwards; again until nothing more is found.
  std::unordered_set<std::string> inside{root};
  std::vector<std::string> lines;
  std::unordered_set<std::string> taken;
  for (bool more = true; more;) {
    more = false;
    backwards(
        [&](const TraceLine& line, std::string_view text) {
          const std::string key(key_of(line.trace_id));
          if (!inside.contains(key) &&
              (line.parent_id.empty() || !inside.contains(std::string(key_of(line.parent_id))))) {
            return true;
          }
          if (!taken.insert(key).second) return true;
          more = inside.insert(key).second || more;
          lines.emplace_back(text);
          return true;
        },
        progress);
  }
  return lines;
}

}  // namespace rubriscope
