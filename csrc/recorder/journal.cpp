#include "rubriscope/recorder/journal.h"

#include <errno.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "rubriscope/core/errors.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rubriscope {

namespace {

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::uint64_t choose_segment_bytes(const Journal::Options& options) {
  std::uint64_t bytes = options.segment_bytes;
  if (bytes == 0) {
    bytes = std::clamp(options.limit_bytes / 8, Journal::kLeastSegment, Journal::kMostSegment);
  }
  return bytes & ~std::uint64_t{4095};
}

void check(const Journal::Options& options) {
  if (options.limit_bytes < Journal::kLeastLimit) {
    throw ValueError("journal_limit_bytes is " + std::to_string(options.limit_bytes) +
                     ", expected at least " + std::to_string(Journal::kLeastLimit));
  }
  if (options.segment_bytes != 0 &&
      (options.segment_bytes < Journal::kLeastSegment || options.segment_bytes > options.limit_bytes / 2 ||
       options.segment_bytes > (std::uint64_t{1} << 30))) {
    throw ValueError("segment_bytes is " + std::to_string(options.segment_bytes) + ", expected 0 or " +
                     std::to_string(Journal::kLeastSegment) +
                     " … half of journal_limit_bytes, 1 GiB at most");
  }
}

/// Makes an empty folder, its parents too. Throws SystemError.
void make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder.parent_path(), error);
  if (error) throw SystemError(error.value(), "cannot make the journal folder", folder.parent_path());
  if (::mkdir(folder.c_str(), 0755) != 0) {
    throw SystemError(errno, "cannot make the journal folder", folder);
  }
}

}  // namespace

void SpinLock::lock_contended() noexcept {
  for (;;) {
    for (int spin = 0; spin < 64; ++spin) {
      if (!locked_.load(std::memory_order_relaxed) && !locked_.exchange(true, std::memory_order_acquire)) {
        return;
      }
      relax();
    }
    ::sched_yield();
  }
}

Journal::Journal(const Options& options, const SessionInfo& session, const WriterInfo& writer,
                 const std::vector<std::string>& targets, std::function<void()> wake_drain)
    : base_dir_(std::filesystem::absolute(options.base_dir)),
      limit_bytes_(options.limit_bytes),
      segment_bytes_(choose_segment_bytes(options)),
      writer_hash_(writer_hash(writer.id)),
      wake_drain_(std::move(wake_drain)) {
  check(options);
  if (targets.size() > Cursors::kMost) {
    throw ValueError(std::to_string(targets.size()) + " sinks, expected at most " +
                     std::to_string(Cursors::kMost));
  }
  // Everything is made under a name that recovery does not take for a journal, and renamed when it is whole
  // and locked. A recovery that sweeps up in between makes take() or the rename fail: then again.
  const std::filesystem::path staging = base_dir_ / ("." + writer.id + ".new");
  for (int attempt = 1;; ++attempt) {
    path_ = staging;
    try {
      make_folder(staging);
      RUBRISCOPE_FAULT_POINT("open.folder");
      ownership_ = Ownership::take(staging);
      if (!ownership_) throw SystemError(EAGAIN, "the new journal folder was taken", staging);
      RUBRISCOPE_FAULT_POINT("open.locked");
      definitions_.emplace(staging);
      definitions_->add(session);
      definitions_->add(writer);
      for (std::size_t i = 0; i < targets.size(); ++i) {
        definitions_->add_target(static_cast<std::uint32_t>(i), targets[i]);
      }
      cursors_ = Cursors::create(staging / "cursors");
      RUBRISCOPE_FAULT_POINT("open.definitions");
      make_spare();
      make_spare();
      RUBRISCOPE_FAULT_POINT("open.segments");
      const std::filesystem::path final_path = base_dir_ / writer.id;
      rename_file(staging, final_path);
      path_ = final_path;
      break;
    } catch (const SystemError& error) {
      free_segments();
      definitions_.reset();
      std::error_code ignored;  // the first error is the one to tell
      if (ownership_ || error.code != EAGAIN) std::filesystem::remove_all(staging, ignored);
      ownership_.reset();
      if (attempt == 3 || (error.code != ENOENT && error.code != EAGAIN && error.code != EEXIST)) throw;
    }
  }
  RUBRISCOPE_FAULT_POINT("open.renamed");
  for (Segment* spare = first_spare_; spare != nullptr; spare = spare->next_spare) {
    spare->path = path_ / spare->path.filename();
  }
  oldest_ = pop_spare();
  start_ = {oldest_, sizeof(SegmentHeader), 0};
  activate(oldest_);
}

Journal::~Journal() { free_segments(); }

void Journal::free_segments() noexcept {
  while (oldest_ != nullptr) {
    Segment* const next = oldest_->next.load(std::memory_order_relaxed);
    delete oldest_;
    oldest_ = next;
  }
  while (first_spare_ != nullptr) delete pop_spare();
  next_index_ = 0;
  total_bytes_ = 0;
}

void Journal::activate(Segment* segment) noexcept {
  active_ = segment;
  base_ = segment->mapping.data();
  head_ = sizeof(SegmentHeader);
  size_ = segment_bytes_;
}

bool Journal::switch_segment(std::uint64_t length) noexcept {
  if (sealed_ || length > most_record_bytes() || spare_count_ == 0) return false;
  RUBRISCOPE_FAULT_POINT("switch.before");
  Segment* const next = pop_spare();
  Segment* const full = active_;
  activate(next);
  // Last: a reader that sees the next segment takes this one's head as final.
  full->next.store(next, std::memory_order_release);
  switched_.store(true, std::memory_order_relaxed);
  RUBRISCOPE_FAULT_POINT("switch.after");
  return true;
}

RecordHeader* Journal::reserve_in_next_segment(std::uint64_t length) noexcept {
  RecordHeader* const record = switch_segment(length) ? place(length) : nullptr;
  const bool low = spare_count_ == 0 && !sealed_;
  lock_.unlock();
  if (low) wake_drain_();
  return record;
}

void Journal::seal() noexcept {
  const std::lock_guard guard(lock_);
  sealed_ = true;
  size_ = 0;
}

bool Journal::has_room(std::size_t bytes) {
  const std::uint64_t length = padded(bytes);
  const std::lock_guard guard(lock_);
  if (sealed_ || length > most_record_bytes()) return false;
  return head_ + length <= size_ || spare_count_ > 0;
}

std::size_t Journal::spares() {
  const std::lock_guard guard(lock_);
  return spare_count_;
}

void Journal::push_spare(Segment* segment) noexcept {
  const std::lock_guard guard(lock_);
  segment->next_spare = nullptr;
  (last_spare_ == nullptr ? first_spare_ : last_spare_->next_spare) = segment;
  last_spare_ = segment;
  ++spare_count_;
}

Journal::Segment* Journal::pop_spare() noexcept {
  Segment* const segment = first_spare_;
  first_spare_ = segment->next_spare;
  if (first_spare_ == nullptr) last_spare_ = nullptr;
  --spare_count_;
  least_spares_ = std::min(least_spares_, spare_count_);
  return segment;
}

void Journal::start_lap(Segment& segment, std::uint64_t released) {
  // What is left in the file has sequences below `released`, so any order of these stores is right: whichever
  // identity a kill leaves, the old records are either behind the cursors or below the floor.
  const std::uint64_t most_records = limit_bytes_ / sizeof(RecordHeader);
  const SegmentIdentity identity =
      make_segment_identity(next_index_, segment_bytes_, released, released + 8 * most_records, writer_hash_);
  SegmentHeader* const header = segment.header();
  header->first = identity;
  RUBRISCOPE_FAULT_POINT("lap.half");
  header->second = identity;
  RUBRISCOPE_FAULT_POINT("lap.identity");
  std::atomic_ref(header->head).store(sizeof(SegmentHeader), std::memory_order_relaxed);
  header->next_sequence = released;
  segment.index = next_index_;
  segment.next.store(nullptr, std::memory_order_relaxed);
  ++next_index_;
}

void Journal::make_spare() {
  auto segment = std::make_unique<Segment>();
  const std::filesystem::path fresh = path_ / "fresh.new";
  remove_file(fresh);
  segment->mapping = Mapping::create(fresh, segment_bytes_);
  RUBRISCOPE_FAULT_POINT("grow.created");
  start_lap(*segment, released_.load(std::memory_order_relaxed));
  segment->path = path_ / segment_name(segment->index);
  try {
    rename_file(fresh, segment->path);
  } catch (...) {
    std::error_code ignored;  // the rename's error is the one to tell
    std::filesystem::remove(fresh, ignored);
    throw;
  }
  RUBRISCOPE_FAULT_POINT("grow.renamed");
  total_bytes_.fetch_add(segment_bytes_, std::memory_order_relaxed);
  push_spare(segment.release());
}

bool Journal::grow() {
  const std::lock_guard guard(growth_mutex_);
  if (bytes() + segment_bytes_ > limit_bytes_) return false;
  make_spare();
  return true;
}

void Journal::recycle(Segment* segment, std::uint64_t released) {
  RUBRISCOPE_FAULT_POINT("recycle.before");
  start_lap(*segment, released);
  RUBRISCOPE_FAULT_POINT("recycle.lap");
  // The name is for people; recovery goes by the identity. So a rename that fails costs nothing.
  std::filesystem::path renamed = path_ / segment_name(segment->index);
  std::error_code error;
  std::filesystem::rename(segment->path, renamed, error);
  if (!error) segment->path = std::move(renamed);
  RUBRISCOPE_FAULT_POINT("recycle.renamed");
  push_spare(segment);
}

std::size_t Journal::release(const std::vector<Cursor>& cursors) {
  std::uint64_t released = ~std::uint64_t{0};
  const Segment* needed = nullptr;
  for (const Cursor& cursor : cursors) {
    released = std::min(released, cursor.sequence);
    if (needed == nullptr || cursor.segment->index < needed->index) needed = cursor.segment;
  }
  if (oldest_ == needed) return 0;
  const std::lock_guard guard(growth_mutex_);
  released_.store(released, std::memory_order_relaxed);
  std::size_t count = 0;
  for (; oldest_ != needed; ++count) {
    Segment* const drained = oldest_;
    oldest_ = drained->next.load(std::memory_order_acquire);
    recycle(drained, released);
  }
  return count;
}

void Journal::trim(std::size_t keep) {
  const std::lock_guard guard(growth_mutex_);
  for (;;) {
    std::unique_ptr<Segment> surplus;
    {
      const std::lock_guard spares_guard(lock_);
      if (least_spares_ <= keep) {
        least_spares_ = spare_count_;
        return;
      }
      surplus.reset(pop_spare());
    }
    total_bytes_.fetch_sub(segment_bytes_, std::memory_order_relaxed);
    remove_file(surplus->path);
    RUBRISCOPE_FAULT_POINT("trim.removed");
  }
}

void Journal::read(Cursor& cursor, std::size_t most, std::uint64_t until,
                   std::vector<const RecordHeader*>& out) {
  const std::size_t goal = out.size() + most;
  for (;;) {
    // Before the head: if there is a next segment, the head read below is final.
    Segment* const next = cursor.segment->next.load(std::memory_order_acquire);
    const std::uint64_t head =
        std::atomic_ref(cursor.segment->header()->head).load(std::memory_order_acquire);
    while (cursor.offset < head && out.size() < goal && cursor.sequence < until) {
      auto* const record = reinterpret_cast<RecordHeader*>(cursor.segment->mapping.data() + cursor.offset);
      const std::uint32_t length_and_state =
          std::atomic_ref(record->length_and_state).load(std::memory_order_acquire);
      if ((length_and_state & RecordHeader::kStateMask) != RecordHeader::kCommitted) return;
      out.push_back(record);
      cursor.offset += length_and_state & ~RecordHeader::kStateMask;
      ++cursor.sequence;
    }
    if (cursor.offset < head || next == nullptr) return;
    cursor = {next, sizeof(SegmentHeader), cursor.sequence};
  }
}

void Journal::add_schema(std::uint32_t id, std::string_view definition_json) {
  if (definitions_) definitions_->add_schema(id, definition_json);
}

void Journal::remove() {
  RUBRISCOPE_FAULT_POINT("close.drained");
  const std::filesystem::path gone = base_dir_ / ("." + path_.filename().string() + ".gone");
  rename_file(path_, gone);
  path_ = gone;
  RUBRISCOPE_FAULT_POINT("close.renamed");
  free_segments();
  definitions_.reset();
  cursors_ = {};
  remove_journal_folder(gone);
  ownership_.reset();
  remove_empty_base(base_dir_);
}

void Journal::leave() {
  free_segments();
  definitions_.reset();
  cursors_ = {};
  ownership_.reset();
}

void Journal::abandon_after_fork() noexcept {
  if (ownership_) ownership_->abandon_after_fork();
  if (definitions_) definitions_->close();
}

void remove_journal_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) files.push_back(entry.path());
  for (const auto& file : files) {
    if (file.filename() == "owner.lock") continue;
    remove_file(file);
    RUBRISCOPE_FAULT_POINT("close.removing");
  }
  remove_file(folder / "owner.lock");
  // Another recovery may sweep up the same remains: it has removed the folder, or has put its lock there and
  // will.
  if (::rmdir(folder.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) {
    throw SystemError(errno, "cannot remove the journal folder", folder);
  }
}

void remove_empty_base(const std::filesystem::path& base_dir) {
  // Only a folder named by journal_dir_for(), never one the user made; rmdir refuses when it is not empty.
  if (base_dir.extension() == ".rubriscope") ::rmdir(base_dir.c_str());
}

}  // namespace rubriscope
