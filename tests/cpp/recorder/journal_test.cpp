// The journal by itself: segments, spares, cursors.
#include "rubriscope/recorder/journal.h"

#include <gtest/gtest.h>

#include "recorder/testing.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

class JournalParts : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSegment = 8 << 10;

  JournalParts() {
    writer_.id = make_uuid();
    journal_.emplace(Journal::Options{folder_ / "journal", 128 << 10, kSegment},
                     SessionInfo{make_uuid(), "journal", 0, "{}"}, writer_,
                     std::vector<std::string>{"memory:"}, [this] { ++wakes_; });
  }

  std::uint64_t publish() {
    RecordHeader* const record = journal_->reserve(kOneSlotBytes);
    if (record == nullptr) return ~std::uint64_t{0};
    fill(record, 0, 0, 0.5);
    Journal::commit(record);
    return record->sequence;
  }

  /// Reads everything and gives the segments back.
  std::size_t drain() {
    std::vector<const RecordHeader*> records;
    journal_->read(cursor(), 100000, ~std::uint64_t{0}, records);
    journal_->release({cursor()});
    return records.size();
  }
  Journal::Cursor& cursor() {
    if (!cursor_) cursor_ = journal_->start();
    return *cursor_;
  }

  TemporaryFolder folder_;
  WriterInfo writer_;
  int wakes_{0};
  std::optional<Journal> journal_;
  std::optional<Journal::Cursor> cursor_;
};

TEST_F(JournalParts, FillsUpItsSpareThenRefusesAndAsksForMore) {
  std::uint64_t accepted = 0;
  while (publish() != ~std::uint64_t{0}) ++accepted;
  EXPECT_EQ(accepted, 2 * ((kSegment - sizeof(SegmentHeader)) / kOneSlotBytes));
  EXPECT_GE(wakes_, 1);
  EXPECT_FALSE(journal_->has_room(kOneSlotBytes));
  EXPECT_TRUE(journal_->grow());
  EXPECT_TRUE(journal_->has_room(kOneSlotBytes));
  EXPECT_EQ(publish(), accepted);
}

TEST_F(JournalParts, GrowsToItsLimitOnly) {
  while (journal_->grow()) {
  }
  EXPECT_EQ(journal_->bytes(), 128u << 10);
  EXPECT_EQ(journal_->spares(), (128u << 10) / kSegment - 1);
}

TEST_F(JournalParts, DrainedSegmentsAreUsedAgain) {
  const std::uint64_t before = journal_->bytes();
  std::size_t drained = 0;
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(publish(), static_cast<std::uint64_t>(i));
    if (i % 50 == 49) drained += drain();
  }
  EXPECT_EQ(drained, 5000u);
  EXPECT_EQ(journal_->bytes(), before);
}

TEST_F(JournalParts, TrimsWhatABurstLeftOnceItIsNotNeeded) {
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(journal_->grow());
  for (int i = 0; i < 700; ++i) publish();
  drain();
  journal_->trim(2);  // the spares were few during the burst
  const std::size_t after_burst = journal_->spares();
  EXPECT_GT(after_burst, 6u);
  journal_->trim(2);  // and many ever since
  EXPECT_EQ(journal_->spares(), 2u);
  EXPECT_EQ(journal_->bytes(), 3 * kSegment);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_NE(publish(), ~std::uint64_t{0});
    if (i % 50 == 49) drain();
  }
}

TEST_F(JournalParts, ReadStopsAtARecordThatIsNotCommitted) {
  publish();
  RecordHeader* const open = journal_->reserve(kOneSlotBytes);
  publish();
  EXPECT_EQ(drain(), 1u);
  EXPECT_EQ(drain(), 0u);
  fill(open, 0, 0, 0.5);
  Journal::commit(open);
  EXPECT_EQ(drain(), 2u);
}

TEST_F(JournalParts, ReadTakesNoMoreThanAskedFor) {
  for (int i = 0; i < 20; ++i) publish();
  std::vector<const RecordHeader*> records;
  journal_->read(cursor(), 7, ~std::uint64_t{0}, records);
  EXPECT_EQ(records.size(), 7u);
  journal_->read(cursor(), 100, 10, records);
  EXPECT_EQ(records.size(), 10u);
  EXPECT_EQ(cursor().sequence, 10u);
}

TEST_F(JournalParts, ASealedJournalTakesNothing) {
  publish();
  journal_->seal();
  EXPECT_EQ(journal_->reserve(kOneSlotBytes), nullptr);
  EXPECT_FALSE(journal_->has_room(kOneSlotBytes));
  EXPECT_EQ(drain(), 1u);
}

TEST_F(JournalParts, RemoveLeavesNoFolder) {
  journal_->remove();
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "journal"));
}

TEST_F(JournalParts, TheBlocksOfASegmentAreAllocated) {
  // A sparse map on a full disk would be a SIGBUS.
  for (const auto& entry : std::filesystem::directory_iterator(journal_->path())) {
    if (!segment_index(entry.path())) continue;
    struct stat status;
    ASSERT_EQ(::stat(entry.path().c_str(), &status), 0);
    EXPECT_GE(static_cast<std::uint64_t>(status.st_blocks) * 512, kSegment);
  }
}

}  // namespace
}  // namespace rubriscope
