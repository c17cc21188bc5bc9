// One writer's journal: a chain of mapped segments that many threads append to and one drain reads.
//
// Producers reserve under a spinlock held for a few nanoseconds, fill the record outside it and commit with a
// release store; none of it is a system call. Reserving writes length, sequence and the segment's head into
// the file, so the file of a killed process can be walked. Drained segments go back as spares.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "rubriscope/core/ids.h"
#include "rubriscope/core/record.h"
#include "rubriscope/recorder/cursors.h"
#include "rubriscope/recorder/definitions.h"
#include "rubriscope/recorder/fault_point.h"
#include "rubriscope/recorder/file.h"
#include "rubriscope/recorder/owner.h"
#include "rubriscope/recorder/segment.h"

namespace rubriscope {

/// A lock for a few instructions. A waiter gives its time slice away soon: on a busy machine the holder may
/// have been preempted.
class SpinLock {
 public:
  void lock() noexcept {
    if (!locked_.exchange(true, std::memory_order_acquire)) return;
    lock_contended();
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  void lock_contended() noexcept;
  std::atomic<bool> locked_{false};
};

class Journal {
 public:
  static constexpr std::uint64_t kLeastLimit = 64 << 10;
  static constexpr std::uint64_t kMostSegment = 8 << 20;
  static constexpr std::uint64_t kLeastSegment = 8 << 10;

  struct Options {
    std::filesystem::path base_dir;
    std::uint64_t limit_bytes;
    std::uint64_t segment_bytes;  ///< 0: an eighth of the limit, within bounds
  };

  /// Makes the writer's folder with its first segments. `wake_drain` is called, from whichever thread
  /// switches segments, when the spares run low. Throws SystemError, ValueError.
  Journal(const Options& options, const SessionInfo& session, const WriterInfo& writer,
          const std::vector<std::string>& targets, std::function<void()> wake_drain);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Producers, any thread.

  RecordHeader* reserve(std::size_t bytes) noexcept {
    const std::uint64_t length = padded(bytes);
    if (length < sizeof(RecordHeader)) [[unlikely]]
      return nullptr;
    lock_.lock();
    if (head_ + length > size_) [[unlikely]]
      return reserve_in_next_segment(length);
    RecordHeader* const record = place(length);
    lock_.unlock();
    RUBRISCOPE_FAULT_POINT("reserve.done");
    return record;
  }

  static void commit(RecordHeader* record) noexcept {
    const std::uint32_t length = record->length_and_state & ~RecordHeader::kStateMask;
    RUBRISCOPE_FAULT_POINT("commit.before");
    record->checksum = checksum(reinterpret_cast<const std::byte*>(record) + 8, length - 8);
    RUBRISCOPE_FAULT_POINT("commit.checksum");
    std::atomic_ref(record->length_and_state)
        .store(length | RecordHeader::kCommitted, std::memory_order_release);
    RUBRISCOPE_FAULT_POINT("commit.done");
  }

  /// No reservation succeeds from now on.
  void seal() noexcept;

  /// The largest record a segment can hold.
  std::uint64_t most_record_bytes() const { return segment_bytes_ - sizeof(SegmentHeader); }

  /// Reserved so far.
  std::uint64_t next_sequence() const { return next_sequence_.load(std::memory_order_relaxed); }

  // Cold paths, any thread.

  /// Adds a spare segment. false: at the limit. Throws SystemError.
  bool grow();

  /// Whether a record of this size would find room now.
  bool has_room(std::size_t bytes);

  std::size_t spares();
  std::uint64_t bytes() const { return total_bytes_.load(std::memory_order_relaxed); }
  bool has_switched() const { return switched_.load(std::memory_order_relaxed); }
  const std::filesystem::path& path() const { return path_; }

  /// Appends to the definitions; nothing once the journal is removed or left. The caller serialises. Throws
  /// SystemError.
  void add_schema(std::uint32_t id, std::string_view definition_json);

  // The drain, one thread.

 private:
  struct Segment;

 public:
  /// Where a reader stands.
  struct Cursor {
    Segment* segment{};
    std::uint64_t offset{};
    std::uint64_t sequence{};  ///< of the next record
  };
  Cursor start() const { return start_; }

  /// Appends committed records to `out`, up to `most` and with a sequence below `until`, and moves the cursor
  /// behind them. Stops at a record not yet committed.
  void read(Cursor& cursor, std::size_t most, std::uint64_t until, std::vector<const RecordHeader*>& out);

  /// Notes in the file how far a sink has come.
  void store_cursor(std::size_t sink, std::uint64_t sequence) {
    RUBRISCOPE_FAULT_POINT("cursor.before");
    cursors_.store(sink, sequence);
    RUBRISCOPE_FAULT_POINT("cursor.after");
  }

  /// Takes back every segment before the earliest of the cursors' segments: it becomes a spare. Returns how
  /// many.
  std::size_t release(const std::vector<Cursor>& cursors);

  /// Removes the spares beyond `keep` that have not been needed since the last trim(). Throws SystemError.
  void trim(std::size_t keep);

  /// Removes the folder (everything was delivered). Throws SystemError.
  void remove();

  /// Lets go of the folder and leaves it for recovery.
  void leave();

  /// In a forked child: the files are the parent's.
  void abandon_after_fork() noexcept;

 private:
  struct Segment {
    Mapping mapping;
    std::filesystem::path path;
    std::uint64_t index{};
    std::atomic<Segment*> next{nullptr};  ///< set when a producer has moved on; the head is final then
    Segment* next_spare{nullptr};
    SegmentHeader* header() const { return reinterpret_cast<SegmentHeader*>(mapping.data()); }
  };

  /// Under lock_, with room for the record in the active segment.
  RecordHeader* place(std::uint64_t length) noexcept {
    auto* const record = reinterpret_cast<RecordHeader*>(base_ + head_);
    auto* const header = reinterpret_cast<SegmentHeader*>(base_);
    const std::uint64_t sequence = next_sequence_.load(std::memory_order_relaxed);
    // Reserved first: from here on the bytes of an earlier lap cannot pass for a committed record. The signal
    // fences keep the compiler from reordering what a kill would show.
    std::atomic_ref(record->length_and_state)
        .store(static_cast<std::uint32_t>(length) | RecordHeader::kReserved, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    RUBRISCOPE_FAULT_POINT("reserve.length");
    record->sequence = sequence;
    record->outcome = Outcome::success;
    record->duration_ns = 0;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    RUBRISCOPE_FAULT_POINT("reserve.sequence");
    head_ += length;
    std::atomic_ref(header->head).store(head_, std::memory_order_release);
    RUBRISCOPE_FAULT_POINT("reserve.head");
    next_sequence_.store(sequence + 1, std::memory_order_relaxed);
    header->next_sequence = sequence + 1;
    return record;
  }

  RecordHeader* reserve_in_next_segment(
      std::uint64_t length) noexcept;  // enters with lock_ held, leaves without
  bool switch_segment(std::uint64_t length) noexcept;
  void activate(Segment* segment) noexcept;
  void make_spare();                                       // under growth_mutex_
  void recycle(Segment* segment, std::uint64_t released);  // under growth_mutex_
  void start_lap(Segment& segment, std::uint64_t released);
  void push_spare(Segment* segment) noexcept;
  Segment* pop_spare() noexcept;  // under lock_
  void free_segments() noexcept;

  // Touched by every producer.
  alignas(64) SpinLock lock_;
  bool sealed_{false};
  std::byte* base_{nullptr};
  std::uint64_t head_{0};
  std::uint64_t size_{0};
  std::atomic<std::uint64_t> next_sequence_{0};
  Segment* active_{nullptr};

  // Under lock_, touched once a segment. Spares are taken in the order of their indices.
  alignas(64) Segment* first_spare_{nullptr};
  Segment* last_spare_{nullptr};
  std::size_t spare_count_{0};
  std::size_t least_spares_{0};  // since the last trim()

  Segment* oldest_{nullptr};  // the drain's: head of the chain of segments in use, which ends at active_

  std::filesystem::path base_dir_;
  std::filesystem::path path_;
  std::uint64_t limit_bytes_;
  std::uint64_t segment_bytes_;
  std::uint64_t writer_hash_;
  std::function<void()> wake_drain_;
  std::optional<Ownership> ownership_;
  std::optional<DefinitionsWriter> definitions_;
  Cursors cursors_;
  Cursor start_;
  std::atomic<std::uint64_t> total_bytes_{0};
  std::atomic<std::uint64_t> released_{0};
  std::atomic<bool> switched_{false};

  std::mutex growth_mutex_;  // numbers segments and hands them over in that order
  std::uint64_t next_index_{0};
};

/// Removes a writer's folder and its files, the lock last. Throws SystemError.
void remove_journal_folder(const std::filesystem::path& folder);

/// Removes a base folder of ours that holds no journal any more.
void remove_empty_base(const std::filesystem::path& base_dir);

}  // namespace rubriscope
