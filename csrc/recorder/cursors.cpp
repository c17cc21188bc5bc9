#include "rubriscope/recorder/cursors.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/fault_point.h"

namespace rubriscope {

namespace {

struct Copy {
  std::uint64_t sequence;
  std::uint64_t check;
};

struct Line {
  Copy copies[2];
  std::uint64_t padding[4];
};
static_assert(sizeof(Line) == 64);

std::uint64_t check_of(std::uint64_t sequence) { return ~(sequence * 0x9E3779B97F4A7C15u); }

std::uint64_t newest(const Line& line) {
  std::uint64_t sequence = 0;
  for (const Copy& copy : line.copies) {
    if (copy.check == check_of(copy.sequence)) sequence = std::max(sequence, copy.sequence);
  }
  return sequence;
}

}  // namespace

Cursors Cursors::create(const std::filesystem::path& path) {
  Cursors cursors;
  cursors.mapping_ = Mapping::create(path, kFileBytes);
  return cursors;
}

Cursors Cursors::recover(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::file_size(path, error) < kFileBytes || error) {
    remove_file(path);
    return create(path);
  }
  Cursors cursors;
  cursors.mapping_ = Mapping::open(path, kFileBytes);
  return cursors;
}

std::vector<std::uint64_t> Cursors::read(const std::filesystem::path& path) {
  std::vector<std::uint64_t> sequences(kMost, 0);
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return sequences;
  const FileBytes content = read_file(path);
  for (std::size_t sink = 0; sink < kMost && (sink + 1) * sizeof(Line) <= content.bytes; ++sink) {
    Line line;
    std::memcpy(&line, content.data() + sink * sizeof line, sizeof line);
    sequences[sink] = newest(line);
  }
  return sequences;
}

void Cursors::store(std::size_t sink, std::uint64_t sequence) {
  auto& line = reinterpret_cast<Line*>(mapping_.data())[sink];
  for (Copy& copy : line.copies) {
    std::atomic_ref(copy.sequence).store(sequence, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    RUBRISCOPE_FAULT_POINT("cursor.half");
    std::atomic_ref(copy.check).store(check_of(sequence), std::memory_order_relaxed);
    // One copy is whole before the other is touched, whatever the compiler would like.
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
}

std::uint64_t Cursors::load(std::size_t sink) const {
  return newest(reinterpret_cast<const Line*>(mapping_.data())[sink]);
}

}  // namespace rubriscope
