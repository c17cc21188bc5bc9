// Every truncation and every flipped byte of a small journal: only what was hit is lost, and it is said.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>

#include "recorder/testing.h"
#include "rubriscope/recorder/journal.h"
#include "rubriscope/recorder/segment.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

/// A journal as a killed process leaves it: some laps old, `kPending` records not delivered, over two
/// segments.
class Damage : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kSegment = 8 << 10;
  static constexpr int kRecords = 150;

  void SetUp() override {
    original_ = folder_ / "original";
    const pid_t child = ::fork();
    if (child == 0) {
      auto sink = std::make_shared<MemorySink>();
      std::atomic<bool> works{true};
      sink->set_before_write([&](const Batch&) {
        if (!works) throw SinkError("down", true);
      });
      set_report([](std::string_view, std::string_view) {});
      RecorderOptions options = options_in(original_);
      options.journal_limit_bytes = 64 << 10;
      options.segment_bytes = kSegment;
      SessionInfo session;
      session.name = "damaged";
      Recorder recorder(session, {}, {sink}, options);
      const std::uint32_t schema = recorder.define(one_slot_schema());
      // Some laps first, so that old records lie about in every segment.
      for (int i = 0; i < 2000; ++i) publish(recorder, schema, -1);
      recorder.flush(10);
      works = false;
      for (int i = 0; i < kRecords; ++i) publish(recorder, schema, i);
      ::kill(::getpid(), SIGKILL);
    }
    ::waitpid(child, nullptr, 0);
    for (const auto& entry : std::filesystem::directory_iterator(original_))
      writer_ = entry.path().filename();
    ASSERT_FALSE(writer_.empty());
  }

  /// Recovers a copy of the journal after `damage` was done to one of its files.
  struct Outcome {
    std::vector<std::int64_t> steps;
    RecoveryReport report;
    bool folder_gone{};
  };
  Outcome recover_after(const std::function<void(const std::filesystem::path& writer_folder)>& damage) {
    const auto copy = folder_ / "copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(original_, copy, std::filesystem::copy_options::recursive);
    damage(copy / writer_);
    auto sink = std::make_shared<MemorySink>();
    Outcome outcome;
    outcome.report = recover(copy, std::vector<std::shared_ptr<Sink>>{sink});
    for (const Seen& seen : sink->all()) outcome.steps.push_back(seen.step);
    outcome.folder_gone = std::filesystem::is_empty(copy);
    return outcome;
  }

  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> names;
    for (const auto& entry : std::filesystem::directory_iterator(original_ / writer_)) {
      names.push_back(entry.path().filename());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  /// The segments that hold pending records, with the offsets of their records.
  struct Placed {
    std::filesystem::path name;
    std::vector<std::uint64_t> offsets;  // of pending records; the last entry is the end
    std::vector<std::int64_t> steps;
  };
  std::vector<Placed> placed() const {
    std::vector<Placed> all;
    for (const auto& name : files()) {
      if (!segment_index(name)) continue;
      const FileBytes content = read_file(original_ / writer_ / name);
      const auto* header = reinterpret_cast<const SegmentHeader*>(content.data());
      Placed segment{name, {}, {}};
      std::uint64_t at = sizeof(SegmentHeader);
      while (at < header->head) {
        const auto* record = reinterpret_cast<const RecordHeader*>(content.data() + at);
        if (record->step >= 0) {
          segment.offsets.push_back(at);
          segment.steps.push_back(record->step);
        }
        at += record->length();
      }
      segment.offsets.push_back(at);
      if (!segment.steps.empty()) all.push_back(std::move(segment));
    }
    std::sort(all.begin(), all.end(),
              [](const Placed& a, const Placed& b) { return a.steps.front() < b.steps.front(); });
    return all;
  }

  /// The bytes of every segment.
  const std::map<std::filesystem::path, FileBytes>& contents() {
    if (contents_.empty()) {
      for (const auto& name : files()) {
        if (segment_index(name)) contents_[name] = read_file(original_ / writer_ / name);
      }
    }
    return contents_;
  }

  /// What a walk over all segments finds when one has other bytes; much faster than a recovery.
  struct Walked {
    std::vector<std::int64_t> steps;
    WalkCounts counts;
    std::vector<std::filesystem::path> bad;
  };
  Walked walk_with(const std::filesystem::path& name, FileBytes& damaged) {
    const std::uint64_t writer = writer_hash(writer_.string());
    const std::uint64_t released = Cursors::read(original_ / writer_ / "cursors").at(0);
    std::vector<std::pair<std::uint64_t, std::filesystem::path>> order;
    for (const auto& [file, content] : contents()) {
      const auto identity = read_segment_identity(file == name ? damaged : content, writer);
      order.emplace_back(identity ? identity->index : *segment_index(file), file);
    }
    std::sort(order.begin(), order.end());
    Walked walked;
    SegmentWalk walk(writer, released);
    for (const auto& [index, file] : order) {
      FileBytes clean;
      if (file != name) clean = contents().at(file);
      const bool good = walk.walk(file == name ? damaged : clean, index, [&](const RecordHeader* record) {
        if (record->sequence >= released) walked.steps.push_back(record->step);
      });
      if (!good) walked.bad.push_back(file);
    }
    walked.counts = walk.counts();
    return walked;
  }

  static std::vector<std::int64_t> steps_after_cut(const Placed& segment, std::uint64_t cut) {
    std::vector<std::int64_t> steps;
    for (const std::int64_t step : all_steps()) {
      const auto here = std::find(segment.steps.begin(), segment.steps.end(), step);
      const auto index = static_cast<std::size_t>(here - segment.steps.begin());
      if (here == segment.steps.end() || segment.offsets[index + 1] <= cut) steps.push_back(step);
    }
    return steps;
  }

  static std::vector<std::int64_t> all_steps() {
    std::vector<std::int64_t> steps(kRecords);
    for (int i = 0; i < kRecords; ++i) steps[static_cast<std::size_t>(i)] = i;
    return steps;
  }

  static void flip(const std::filesystem::path& file, std::uint64_t offset, std::uint8_t mask) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(offset));
    const int byte = stream.get();
    stream.seekp(static_cast<std::streamoff>(offset));
    stream.put(static_cast<char>(byte ^ mask));
  }

  TemporaryFolder folder_;
  std::filesystem::path original_;
  std::filesystem::path writer_;
  std::map<std::filesystem::path, FileBytes> contents_;
};

TEST_F(Damage, NoneIsFoundWhereNoneWasDone) {
  const Outcome outcome = recover_after([](const auto&) {});
  EXPECT_EQ(outcome.steps, all_steps());
  EXPECT_EQ(outcome.report.damaged, 0u);
  EXPECT_EQ(outcome.report.torn, 0u);
  EXPECT_TRUE(outcome.report.set_aside.empty());
  EXPECT_TRUE(outcome.report.messages.empty());
  EXPECT_TRUE(outcome.folder_gone);
  EXPECT_GE(placed().size(), 2u);  // the test is worth something only with several segments
}

TEST_F(Damage, EveryFlippedByteOfASegmentLosesAtMostItsRecord) {
  const std::vector<Placed> all = placed();
  for (std::size_t which = 0; which < all.size(); ++which) {
    const Placed& segment = all[which];
    const FileBytes& clean = contents().at(segment.name);
    for (std::uint64_t offset = 0; offset < clean.bytes; ++offset) {
      // All bits, and one bit: the second makes values that are nearly right.
      for (const int mask : {0xff, 1 << (offset % 8)}) {
        FileBytes damaged = clean;
        reinterpret_cast<std::uint8_t*>(damaged.words.data())[offset] ^= static_cast<std::uint8_t>(mask);
        const Walked walked = walk_with(segment.name, damaged);
        std::vector<std::int64_t> expected = all_steps();
        const auto behind = std::upper_bound(segment.offsets.begin(), segment.offsets.end(), offset);
        const bool in_record = behind != segment.offsets.begin() && behind != segment.offsets.end();
        if (in_record && walked.steps != expected) {
          // Lost: exactly this record, counted, and the file known to be bad.
          const auto index = static_cast<std::size_t>(behind - segment.offsets.begin() - 1);
          expected.erase(std::find(expected.begin(), expected.end(), segment.steps[index]));
          ASSERT_EQ(walked.counts.damaged, 1u) << segment.name << " byte " << offset;
          ASSERT_EQ(walked.bad, std::vector<std::filesystem::path>{segment.name}) << " byte " << offset;
        } else {
          ASSERT_EQ(walked.counts.damaged, 0u) << segment.name << " byte " << offset << " mask " << mask;
        }
        ASSERT_EQ(walked.steps, expected) << segment.name << " byte " << offset << " mask " << mask;
      }
    }
  }
}

TEST_F(Damage, AFlippedByteIsRecoveredFromAsAWhole) {
  // The same through recover(), for bytes of every field and some of every record.
  for (const Placed& segment : placed()) {
    for (std::uint64_t offset = 0; offset < kSegment; offset += offset < 500 ? 5 : 61) {
      const Outcome outcome =
          recover_after([&](const auto& writer) { flip(writer / segment.name, offset, 0xff); });
      std::vector<std::int64_t> expected = all_steps();
      const auto behind = std::upper_bound(segment.offsets.begin(), segment.offsets.end(), offset);
      if (outcome.steps != expected && behind != segment.offsets.begin() && behind != segment.offsets.end()) {
        const auto index = static_cast<std::size_t>(behind - segment.offsets.begin() - 1);
        expected.erase(std::find(expected.begin(), expected.end(), segment.steps[index]));
        ASSERT_EQ(outcome.report.damaged, 1u) << segment.name << " byte " << offset;
        ASSERT_EQ(outcome.report.set_aside.size(), 1u) << segment.name << " byte " << offset;
      }
      ASSERT_EQ(outcome.steps, expected) << segment.name << " byte " << offset;
      ASSERT_TRUE(outcome.report.kept.empty());
    }
  }
}

TEST_F(Damage, AFlippedByteInABodyDoesLoseTheRecord) {
  // Guards the test above against a recovery that does not look at checksums.
  const Placed segment = placed().front();
  const Outcome outcome = recover_after([&](const auto& writer) {
    flip(writer / segment.name, segment.offsets[3] + sizeof(RecordHeader), 0x10);
  });
  EXPECT_EQ(outcome.steps.size(), static_cast<std::size_t>(kRecords - 1));
  EXPECT_EQ(outcome.report.damaged, 1u);
  ASSERT_EQ(outcome.report.set_aside.size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(outcome.report.set_aside[0] / (segment.name.string() + ".damaged")));
  EXPECT_FALSE(outcome.folder_gone);
}

TEST_F(Damage, ABurstOverARecordsHeaderIsSkippedByLookingForTheNextRecord) {
  // Length, counts and sequence are all gone: nothing leads on but the next valid record itself.
  for (const Placed& segment : placed()) {
    for (std::size_t index = 0; index < segment.steps.size(); ++index) {
      FileBytes damaged = contents().at(segment.name);
      std::memset(reinterpret_cast<std::byte*>(damaged.words.data()) + segment.offsets[index], 0xa5, 40);
      const Walked walked = walk_with(segment.name, damaged);
      std::vector<std::int64_t> expected = all_steps();
      expected.erase(std::find(expected.begin(), expected.end(), segment.steps[index]));
      ASSERT_EQ(walked.steps, expected) << segment.name << " record " << index;
      ASSERT_EQ(walked.counts.damaged, 1u) << segment.name << " record " << index;
    }
  }
}

TEST_F(Damage, EitherCopyOfASegmentsIdentityIsEnough) {
  const std::uint64_t writer = writer_hash(writer_.string());
  for (const auto& [name, content] : contents()) {
    const auto whole = read_segment_identity(content, writer);
    ASSERT_TRUE(whole);
    for (const std::size_t lost : {offsetof(SegmentHeader, first), offsetof(SegmentHeader, second)}) {
      FileBytes damaged = content;
      std::memset(reinterpret_cast<std::byte*>(damaged.words.data()) + lost, 0xa5, sizeof(SegmentIdentity));
      const auto identity = read_segment_identity(damaged, writer);
      ASSERT_TRUE(identity) << name;
      EXPECT_EQ(identity->index, whole->index);
    }
    EXPECT_FALSE(read_segment_identity(content, writer + 1)) << "another writer's segment";
  }
}

TEST_F(Damage, EveryTruncationOfASegmentLosesOnlyWhatWasCutOff) {
  for (const Placed& segment : placed()) {
    const FileBytes& clean = contents().at(segment.name);
    for (std::uint64_t cut = 0; cut < clean.bytes; ++cut) {
      FileBytes damaged = clean;
      damaged.bytes = cut;
      const Walked walked = walk_with(segment.name, damaged);
      const std::vector<std::int64_t> expected = steps_after_cut(segment, cut);
      ASSERT_EQ(walked.steps, expected) << segment.name << " cut at " << cut;
      const std::uint64_t lost = static_cast<std::uint64_t>(kRecords) - expected.size();
      if (lost > 0) {
        // A header that is gone cannot say how many records there were; the next segment can.
        const bool counts = cut >= sizeof(SegmentHeader) || segment.steps.back() != kRecords - 1;
        ASSERT_EQ(walked.counts.damaged, counts ? lost : 0) << segment.name << " cut at " << cut;
      }
      ASSERT_EQ(walked.bad, std::vector<std::filesystem::path>{segment.name}) << " cut at " << cut;
    }
  }
}

TEST_F(Damage, ATruncationIsRecoveredFromAsAWhole) {
  for (const Placed& segment : placed()) {
    for (std::uint64_t cut = 0; cut < kSegment; cut += cut < 500 ? 13 : 97) {
      const Outcome outcome = recover_after(
          [&](const auto& writer) { std::filesystem::resize_file(writer / segment.name, cut); });
      ASSERT_EQ(outcome.steps, steps_after_cut(segment, cut)) << segment.name << " cut at " << cut;
      ASSERT_EQ(outcome.report.set_aside.size(), 1u) << segment.name << " cut at " << cut;
    }
  }
}

TEST_F(Damage, EveryFlippedByteOfTheSmallFilesLosesNothing) {
  for (const auto& name : files()) {
    if (segment_index(name)) continue;
    const std::uint64_t size = std::filesystem::file_size(original_ / writer_ / name);
    for (std::uint64_t offset = 0; offset < size; offset += name == "cursors" && offset >= 64 ? 64 : 1) {
      const Outcome outcome = recover_after([&](const auto& writer) { flip(writer / name, offset, 0xff); });
      ASSERT_EQ(outcome.steps, all_steps()) << name << " byte " << offset;
      ASSERT_EQ(outcome.report.damaged, 0u) << name << " byte " << offset;
    }
  }
}

TEST_F(Damage, EveryTruncationOfTheDefinitionsLosesNothing) {
  for (const auto& name : files()) {
    if (segment_index(name) || name == "cursors") continue;
    const std::uint64_t size = std::filesystem::file_size(original_ / writer_ / name);
    for (std::uint64_t cut = 0; cut < size; ++cut) {
      const Outcome outcome =
          recover_after([&](const auto& writer) { std::filesystem::resize_file(writer / name, cut); });
      ASSERT_EQ(outcome.steps, all_steps()) << name << " cut at " << cut;
    }
  }
}

TEST_F(Damage, WithoutCursorsEverythingStillThereComesAgain) {
  // At least once: the sink has no identity, and how far it had come is not known any more.
  const Outcome outcome =
      recover_after([&](const auto& writer) { std::filesystem::remove(writer / "cursors"); });
  ASSERT_GE(outcome.steps.size(), static_cast<std::size_t>(kRecords));
  EXPECT_TRUE(std::equal(outcome.steps.end() - kRecords, outcome.steps.end(), all_steps().begin()));
}

TEST_F(Damage, ALostSegmentIsCounted) {
  const Placed segment = placed().front();
  const Outcome outcome =
      recover_after([&](const auto& writer) { std::filesystem::remove(writer / segment.name); });
  EXPECT_EQ(outcome.steps.size(), kRecords - segment.steps.size());
  EXPECT_EQ(outcome.report.damaged, segment.steps.size());
}

TEST_F(Damage, LostDefinitionsSetTheJournalAside) {
  const Outcome outcome = recover_after([&](const auto& writer) {
    std::filesystem::resize_file(writer / "definitions", 0);
    std::filesystem::resize_file(writer / "definitions.copy", 0);
  });
  EXPECT_TRUE(outcome.steps.empty());
  ASSERT_EQ(outcome.report.set_aside.size(), 1u);
  EXPECT_TRUE(std::filesystem::exists(outcome.report.set_aside[0]));
}

TEST_F(Damage, WhatWasSetAsideIsNotRecoveredAgain) {
  const Placed segment = placed().front();
  const Outcome first = recover_after([&](const auto& writer) {
    flip(writer / segment.name, segment.offsets[0] + sizeof(RecordHeader), 0xff);
  });
  ASSERT_EQ(first.report.set_aside.size(), 1u);
  auto sink = std::make_shared<MemorySink>();
  const RecoveryReport second = recover(folder_ / "copy", std::vector<std::shared_ptr<Sink>>{sink});
  EXPECT_EQ(second.journals, 0u);
  EXPECT_TRUE(sink->all().empty());
  const std::vector<JournalInfo> listed = list_journals(folder_ / "copy");
  ASSERT_EQ(listed.size(), 1u);
  EXPECT_TRUE(listed[0].set_aside);
  EXPECT_EQ(listed[0].session.name, "damaged");
}

}  // namespace
}  // namespace rubriscope
