#include "rubriscope/sinks/jsonl/jsonl_sink.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/core/json.h"
#include "support/random_record.h"
#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;
namespace fs = std::filesystem;

std::vector<std::string> lines_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

std::vector<OwnedRecord> make_records(std::uint64_t first, std::size_t count) {
  const SchemaPtr schema = make_tree(3);
  std::vector<OwnedRecord> records;
  for (std::size_t i = 0; i < count; ++i) {
    RecordBuilder builder(schema);
    builder.sequence(first + i).step(static_cast<std::int64_t>(i)).score(0, 0.5, 7).score(1, 1, 2);
    records.push_back(builder.build());
  }
  return records;
}

class JsonlSinkTest : public ::testing::Test {
 protected:
  void write(Sink& sink, const std::vector<OwnedRecord>& records, bool recovered = false) {
    const std::vector<RecordView> batch = views(records);
    sink.write({session_, writer_, batch, recovered});
  }
  /// The sequences in the file, in order; -1 for a session line.
  std::vector<int> sequences() {
    std::vector<int> found;
    for (const std::string& line : lines_of(path_)) {
      const std::size_t at = line.find("\"sequence\":");
      found.push_back(at == std::string::npos ? -1 : std::stoi(line.substr(at + 11)));
    }
    return found;
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() / "run.jsonl";
  SessionInfo session_ = make_session("run");
  WriterInfo writer_ = make_writer(1, 3);
};

TEST_F(JsonlSinkTest, TargetNamesTheFile) {
  EXPECT_EQ(JsonlSink("/a/../b.jsonl").target(), "jsonl:/b.jsonl");
}

TEST_F(JsonlSinkTest, WritesTheDocumentedLines) {
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  Schema schema;
  schema.slots = {{{"root"}, "Sum"}, {{"a", "b.a"}, "Shared"}, {{"c"}, "Gate"}, {{"d"}, "Leaf"}};
  RecordBuilder builder(std::make_shared<const Schema>(schema));
  builder.sequence(0).step(5).episode("ep \"1\"").group(9).sample(2).time(1000);
  builder.score(0, 0.5, 30).score(1, 1, 10).failed(3, "boom\n", 4);
  builder.extra(ExtraTag::action, "42", 1).extra(ExtraTag::observation, "inf", 2);
  builder.extra(ExtraTag::explanation, "old", 0, 1).extra(ExtraTag::explanation, "why", 0, 1);
  builder.extra(ExtraTag::metadata, "{\"k\":\n1}").extra(ExtraTag::score_metadata, "{\"n\":2}", 0, 0);
  builder.extra(ExtraTag::calls, "3", 0, 1);
  std::vector<OwnedRecord> records;
  records.push_back(builder.build());
  RecordBuilder scalars(make_scalars({"loss", "kl"}));
  records.push_back(scalars.sequence(1).step(6).time(2000).score(0, 0.25).score(1, std::nan("")).build());
  write(sink, records, true);
  sink.close();

  const std::vector<std::string> lines = lines_of(path_);
  ASSERT_EQ(lines.size(), 3u);
  const std::string id = "{\"writer\":\"" + writer_.id + "\"";
  const std::string of_session = ",\"session\":\"" + session_.id + "\",\"session_name\":\"run\"";
  EXPECT_EQ(lines[0],
            id + ",\"kind\":\"session\",\"format\":1" + of_session +
                ",\"created_ns\":1700000000123456789,\"metadata\":{\"lr\": 0.1},\"rank\":3,\"world_size\":1,"
                "\"host\":\"host\",\"pid\":42,\"started_ns\":1700000000000000001}");
  EXPECT_EQ(
      lines[1],
      id + ",\"sequence\":0,\"kind\":\"snapshot\"" + of_session +
          ",\"rank\":3,\"episode\":\"ep \\\"1\\\"\",\"step\":5,\"group\":9,\"sample\":2,\"time_ns\":1000,"
          "\"reward\":0.5,\"scores\":{\"root\":0.5,\"a\":1.0,\"b.a\":1.0},"
          "\"statuses\":{\"c\":\"skipped\",\"d\":\"failed\"},"
          "\"durations_ns\":{\"root\":30,\"a\":10,\"b.a\":10,\"d\":4},\"action\":42,\"observation\":null,"
          "\"explanations\":{\"a\":\"why\",\"b.a\":\"why\"},\"reasons\":{\"d\":\"boom\\n\"},"
          "\"metadata\":{\"k\": 1},\"score_metadata\":{\"root\":{\"n\":2}},\"calls\":{\"a\":3,\"b.a\":3},"
          "\"recovered\":true}");
  EXPECT_EQ(lines[2], id + ",\"sequence\":1,\"kind\":\"scalars\"" + of_session +
                          ",\"rank\":3,\"step\":6,\"time_ns\":2000,\"values\":{\"loss\":0.25,\"kl\":null},"
                          "\"recovered\":true}");
}

TEST_F(JsonlSinkTest, SaysWhatCapturesLack) {
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  std::vector<OwnedRecord> records;
  RecordBuilder builder(make_tree(1));
  builder.sequence(0).extra(ExtraTag::action, "[1]", 3).extra(ExtraTag::observation, "abc", kCaptureCut);
  records.push_back(builder.build());
  RecordBuilder second(make_tree(1));
  second.sequence(1).extra(ExtraTag::action, "1", 1).extra(ExtraTag::observation, "<o", 3 | kCaptureCut);
  records.push_back(second.build());
  write(sink, records);
  sink.close();
  const std::vector<std::string> lines = lines_of(path_);
  EXPECT_NE(lines[1].find(",\"captures\":{\"action\":\"repr\",\"observation\":\"cut\"}"), std::string::npos);
  EXPECT_NE(lines[2].find(",\"captures\":{\"observation\":\"cut repr\"}"), std::string::npos);
}

TEST_F(JsonlSinkTest, RandomRecordsAreValidJsonOnOneLineEach) {
  std::mt19937_64 random(8);
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  std::uint64_t sequence = 0;
  for (std::uint32_t id = 0; const std::size_t slots : {0, 1, 4, 15, 500}) {
    const SchemaPtr schema = make_tree(slots, id++);
    std::vector<OwnedRecord> records;
    for (int i = 0; i < 100; ++i) records.push_back(random_record(random, schema, sequence++));
    write(sink, records);
  }
  std::vector<OwnedRecord> events;
  for (int i = 0; i < 100; ++i) {
    events.push_back(random_record(random, make_event(2, {"a", "b", "c", "d"}, 9), sequence++));
  }
  write(sink, events);
  const std::vector<std::string> lines = lines_of(path_);
  ASSERT_EQ(lines.size(), 601u);
  for (const std::string& line : lines) ASSERT_TRUE(is_valid_json(line)) << line;
}

TEST_F(JsonlSinkTest, StoredThroughAndOnce) {
  {
    JsonlSink sink(path_);
    EXPECT_EQ(sink.stored_through(writer_), std::nullopt);
    sink.open(session_, writer_);
    EXPECT_EQ(sink.stored_through(writer_), std::nullopt);
    write(sink, make_records(0, 3));
    EXPECT_EQ(sink.stored_through(writer_), 2u);
    EXPECT_EQ(sink.stored_through(make_writer(2)), std::nullopt);
  }
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  EXPECT_EQ(sink.stored_through(writer_), 2u);
  write(sink, make_records(1, 4), true);
  EXPECT_EQ(sequences(), (std::vector<int>{-1, 0, 1, 2, 3, 4}));
}

// The search goes backwards through chunks of a megabyte; a match must be found wherever it lies.
TEST_F(JsonlSinkTest, StoredThroughIsFoundAcrossChunks) {
  const WriterInfo other = make_writer(2);
  for (const std::size_t filler :
       {std::size_t{0}, std::size_t{1000}, (std::size_t{1} << 20) - 600, (std::size_t{1} << 20) - 560,
        (std::size_t{1} << 20) - 500, std::size_t{3} << 20}) {
    fs::remove(path_);
    JsonlSink sink(path_);
    sink.open(session_, writer_);
    write(sink, make_records(0, 12));
    // One long line of another writer whose texts look like a line of the first; its metadata does so
    // verbatim.
    const std::string line = "{\"writer\":\"" + writer_.id + "\",\"sequence\":99,";
    const std::string bait = "\n" + line;
    std::vector<OwnedRecord> records;
    RecordBuilder builder(make_tree(1));
    builder.extra(ExtraTag::metadata, line + "\"k\":1}");
    records.push_back(builder.extra(ExtraTag::action, bait + std::string(filler, 'x') + bait).build());
    const std::vector<RecordView> batch = views(records);
    sink.open(session_, other);
    sink.write({session_, other, batch});
    EXPECT_EQ(sink.stored_through(writer_), 11u) << filler;
    EXPECT_EQ(sink.stored_through(other), 0u) << filler;
  }
}

TEST_F(JsonlSinkTest, EveryChunkBorderFindsTheSequence) {
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(1234567, 1));
  const auto size = static_cast<std::ptrdiff_t>(fs::file_size(path_));
  const auto last_line = static_cast<std::ptrdiff_t>(lines_of(path_).back().size()) + 1;
  // Move the border of the first chunk over the identity of the last line.
  for (std::ptrdiff_t after = (1 << 20) - last_line - 2; after <= (1 << 20) - last_line + 80; ++after) {
    fs::resize_file(path_, static_cast<std::uintmax_t>(size));
    {
      std::ofstream file(path_, std::ios::app | std::ios::binary);
      file << std::string(static_cast<std::size_t>(after - 1), ' ') << '\n';
    }
    ASSERT_EQ(sink.stored_through(writer_), 1234567u) << after;
  }
}

TEST_F(JsonlSinkTest, ATornLastLineIsRemoved) {
  {
    JsonlSink sink(path_);
    sink.open(session_, writer_);
    write(sink, make_records(0, 3));
  }
  const auto whole = fs::file_size(path_);
  const std::string last = lines_of(path_).back() + "\n";
  for (std::size_t cut = 1; cut < last.size(); ++cut) {
    fs::resize_file(path_, whole - cut);
    JsonlSink sink(path_);
    sink.open(session_, writer_);
    ASSERT_EQ(sink.stored_through(writer_), 1u) << cut;
    write(sink, make_records(2, 1), true);
    ASSERT_EQ(sequences(), (std::vector<int>{-1, 0, 1, 2})) << cut;
    // The recovered line is marked; go back to the state before.
    fs::resize_file(path_, whole - last.size());
    std::ofstream(path_, std::ios::app | std::ios::binary) << last;
  }
}

TEST_F(JsonlSinkTest, ATornFirstLineIsRemoved) {
  std::ofstream(path_) << "{\"writer\":\"2222";
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  EXPECT_EQ(sequences(), (std::vector<int>{-1}));
}

TEST_F(JsonlSinkTest, AStrangersFileIsLeftUntouched) {
  for (const std::string content : {"dear diary\n", "{\"step\": 1}\n", "x"}) {
    std::ofstream(path_, std::ios::trunc) << content;
    JsonlSink sink(path_);
    EXPECT_THROW(sink.open(session_, writer_), FormatError);
    std::ifstream file(path_);
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), content);
  }
}

TEST_F(JsonlSinkTest, SeveralProcessesAppendToOneFile) {
  std::vector<pid_t> children;
  for (int process = 0; process < 4; ++process) {
    const pid_t child = fork();
    if (child == 0) {
      const WriterInfo writer = make_writer(10 + process);
      try {
        JsonlSink sink(path_);
        sink.open(session_, writer);
        for (int i = 0; i < 30; ++i) {
          const std::vector<OwnedRecord> records = make_records(static_cast<std::uint64_t>(i) * 50, 50);
          sink.write({session_, writer, views(records)});
        }
      } catch (const std::exception& error) {
        std::fprintf(stderr, "writer %d: %s\n", process, error.what());
        _exit(1);
      }
      _exit(0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  std::map<std::string, int> next;
  for (const std::string& line : lines_of(path_)) {
    ASSERT_TRUE(is_valid_json(line)) << line;
    const std::string writer = line.substr(11, 36);
    const std::size_t at = line.find("\"sequence\":");
    if (at == std::string::npos) continue;
    ASSERT_EQ(std::stoi(line.substr(at + 11)), next[writer]++);
  }
  EXPECT_EQ(next.size(), 4u);
  for (const auto& [writer, count] : next) EXPECT_EQ(count, 1500);
}

TEST_F(JsonlSinkTest, ARotatedFileIsNoticed) {
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 2));
  fs::rename(path_, path_ + ".1");
  write(sink, make_records(2, 2));
  EXPECT_EQ(sequences(), (std::vector<int>{-1, 2, 3}));
}

TEST_F(JsonlSinkTest, AFullDiskTakesNothingAndIsTransient) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small disk needs root";
  const fs::path disk = folder_.path() / "disk";
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=256k") != 0) GTEST_SKIP() << "cannot mount a tmpfs here";
  {
    path_ = disk / "run.jsonl";
    JsonlSink sink(path_);
    sink.open(session_, writer_);
    write(sink, make_records(0, 10));
    const auto before = fs::file_size(path_);
    try {
      write(sink, make_records(10, 4000));
      ADD_FAILURE() << "a quarter of a megabyte took one";
    } catch (const SinkError& error) {
      EXPECT_TRUE(error.transient) << error.what();
      EXPECT_NE(std::string(error.what()).find("No space left"), std::string::npos) << error.what();
    }
    EXPECT_EQ(fs::file_size(path_), before);
    EXPECT_EQ(mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=16m"), 0);
    sink.open(session_, writer_);
    write(sink, make_records(10, 4000));
    EXPECT_EQ(sink.stored_through(writer_), 4009u);
  }
  umount2(disk.c_str(), MNT_DETACH);
}

TEST_F(JsonlSinkTest, AMissingFolderIsTransient) {
  JsonlSink sink(folder_.path() / "missing" / "run.jsonl");
  try {
    sink.open(session_, writer_);
    FAIL();
  } catch (const SinkError& error) {
    EXPECT_TRUE(error.transient) << error.what();
  }
}

TEST_F(JsonlSinkTest, AForkedChildWritesBesideItsParent) {
  JsonlSink sink(path_);
  sink.open(session_, writer_);
  const pid_t child = fork();
  if (child == 0) {
    sink.abandon_after_fork();
    const WriterInfo own = make_writer(9);
    int status = 0;
    try {
      sink.open(session_, own);
      const std::vector<OwnedRecord> records = make_records(0, 2);
      sink.write({session_, own, views(records)});
    } catch (const std::exception&) {
      status = 1;
    }
    _exit(status);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  write(sink, make_records(0, 1));
  EXPECT_EQ(sequences(), (std::vector<int>{-1, -1, 0, 1, 0}));
}

}  // namespace
}  // namespace rubriscope
