#include "rubriscope/film/film_reader.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"
#include "support/random_record.h"
#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;
namespace fs = std::filesystem;

class FilmReaderTest : public ::testing::Test {
 protected:
  void record(SqliteSink& sink, const SessionInfo& session, const WriterInfo& writer,
              const std::vector<OwnedRecord>& records) {
    sink.open(session, writer);
    const std::vector<RecordView> all = views(records);
    for (std::size_t at = 0; at < all.size(); at += 100) {
      sink.write({session, writer, std::span(all).subspan(at, std::min<std::size_t>(100, all.size() - at))});
    }
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() / "runs.db";
};

struct SchemaPair {
  SchemaPtr tree = make_tree(5, 0);
  SchemaPtr other = make_tree(2, 1);
  SchemaPtr scalars = make_scalars({"loss", "kl"}, 2);
};

std::vector<OwnedRecord> random_stream(std::mt19937_64& random, std::size_t count, std::uint64_t first = 0) {
  static const SchemaPair schemas;
  std::vector<OwnedRecord> records;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& schema = i % 7 == 3 ? schemas.scalars : i % 5 == 1 ? schemas.other : schemas.tree;
    records.push_back(random_record(random, schema, first + i));
  }
  return records;
}

TEST_F(FilmReaderTest, SnapshotsComeBackAsTheyWereRecorded) {
  std::mt19937_64 random(21);
  SqliteSink sink(path_);
  const SessionInfo session = make_session();
  const std::vector<OwnedRecord> first = random_stream(random, 1000);
  const std::vector<OwnedRecord> second = random_stream(random, 300);
  record(sink, session, make_writer(1, 0), first);
  record(sink, session, make_writer(2, 1), second);

  const FilmReader film(path_);
  FilmReader::Cursor cursor = film.snapshots(1);
  for (const auto* stream : {&first, &second}) {
    for (const OwnedRecord& expected : *stream) {
      if (expected.view().header->kind != RecordKind::snapshot) continue;
      const auto found = cursor.next();
      ASSERT_TRUE(found);
      ASSERT_EQ(content(found->record.view()), content(expected.view()));
      ASSERT_EQ(found->record.schema->definition_json(), expected.view().schema->definition_json());
      ASSERT_EQ(found->writer->rank, stream == &first ? 0 : 1);
      ASSERT_EQ(found->session->name, "run");
    }
  }
  EXPECT_FALSE(cursor.next());
  EXPECT_FALSE(cursor.next());
}

// The extents must never hide a record: whatever the filter, the same as filtering everything by hand.
TEST_F(FilmReaderTest, FiltersAgreeWithTheFullScan) {
  std::mt19937_64 random(22);
  SqliteSink sink(path_);
  const SessionInfo session = make_session();
  std::vector<OwnedRecord> all;
  for (int writer = 0; writer < 3; ++writer) {
    std::vector<OwnedRecord> records = random_stream(random, 900);
    for (std::size_t i = 0; i < records.size(); ++i) {
      // Steps that ascend in part, so that some extents can be left out.
      if (i % 3 != 0) records[i].header().step = static_cast<std::int64_t>(i);
    }
    record(sink, session, make_writer(writer + 1, writer), records);
    for (auto& r : records) all.push_back(std::move(r));
  }
  const FilmReader film(path_);
  const ScoreColumns everything = film.scores(1, "root");
  const std::vector<FilmEpisode> episodes = film.episodes(1);
  for (int trial = 0; trial < 60; ++trial) {
    FilmFilter filter;
    if (random() % 2) filter.start = static_cast<std::int64_t>(random() % 1000) - 100;
    if (random() % 2) filter.stop = filter.start.value_or(0) + static_cast<std::int64_t>(random() % 300);
    if (random() % 2) filter.episode = "ep-" + std::to_string(random() % 6);
    if (random() % 3 == 0) filter.writer = random() % 3;
    std::vector<std::pair<int, std::int64_t>> expected;
    for (std::size_t i = 0; i < everything.at.size(); ++i) {
      if (filter.start && everything.at.step[i] < *filter.start) continue;
      if (filter.stop && everything.at.step[i] >= *filter.stop) continue;
      if (filter.writer && everything.at.writer[i] != static_cast<int>(*filter.writer)) continue;
      if (filter.episode &&
          (everything.at.episode[i] < 0 ||
           episodes[static_cast<std::size_t>(everything.at.episode[i])].name != *filter.episode)) {
        continue;
      }
      expected.emplace_back(everything.at.writer[i], everything.at.sequence[i]);
    }
    const ScoreColumns found = film.scores(1, "root", filter);
    std::vector<std::pair<int, std::int64_t>> identities;
    for (std::size_t i = 0; i < found.at.size(); ++i)
      identities.emplace_back(found.at.writer[i], found.at.sequence[i]);
    ASSERT_EQ(identities, expected);
    std::size_t streamed = 0;
    for (FilmReader::Cursor cursor = film.snapshots(1, filter); cursor.next();) ++streamed;
    ASSERT_EQ(streamed, expected.size());
  }
}

TEST_F(FilmReaderTest, ScoresHoldWhatTheRecordsSay) {
  std::mt19937_64 random(23);
  SqliteSink sink(path_);
  const std::vector<OwnedRecord> records = random_stream(random, 700);
  record(sink, make_session(), make_writer(1, 4), records);
  const FilmReader film(path_);
  EXPECT_EQ(film.paths(1), (std::vector<std::string>{"root", "node_1", "node_2", "node_3", "node_4"}));
  const ScoreMatrix matrix = film.score_matrix(1);
  ASSERT_EQ(matrix.paths, film.paths(1));
  for (std::size_t slot = 0; slot < 5; ++slot) {
    const ScoreColumns columns = film.scores(1, matrix.paths[slot]);
    std::size_t row = 0;
    std::size_t at = 0;
    for (const OwnedRecord& expected : records) {
      const RecordView view = expected.view();
      if (view.header->kind != RecordKind::snapshot) continue;
      const double in_matrix = matrix.scores[row * 5 + slot];
      const auto status_in_matrix = static_cast<Status>(matrix.statuses[row * 5 + slot]);
      ++row;
      if (slot >= view.header->slots) {  // the other tree has no such node
        ASSERT_TRUE(std::isnan(in_matrix));
        ASSERT_EQ(status_in_matrix, Status::skipped);
        continue;
      }
      ASSERT_LT(at, columns.at.size());
      const double score = view.scores()[slot];
      for (const double found : {columns.score[at], in_matrix}) {
        ASSERT_TRUE(found == score || (std::isnan(found) && std::isnan(score)));
      }
      ASSERT_EQ(static_cast<Status>(columns.status[at]), view.statuses()[slot]);
      ASSERT_EQ(status_in_matrix, view.statuses()[slot]);
      ASSERT_EQ(static_cast<std::uint64_t>(columns.duration_ns[at]), view.durations_ns()[slot]);
      ASSERT_EQ(columns.at.step[at], view.header->step);
      ASSERT_EQ(columns.at.time_ns[at], view.header->time_ns);
      ASSERT_EQ(static_cast<std::uint64_t>(columns.at.sequence[at]), view.header->sequence);
      ASSERT_EQ(columns.at.rank[at], 4);
      ASSERT_EQ(columns.at.group[at], view.header->group);
      ASSERT_EQ(columns.at.sample[at], view.header->sample);
      ++at;
    }
    ASSERT_EQ(at, columns.at.size());
    ASSERT_EQ(row, matrix.at.size());
  }
}

TEST_F(FilmReaderTest, Scalars) {
  SqliteSink sink(path_);
  const SchemaPtr schema = make_scalars({"loss", "kl"});
  std::vector<OwnedRecord> records;
  for (int i = 0; i < 5; ++i) {
    RecordBuilder builder(schema);
    builder.sequence(static_cast<std::uint64_t>(i)).step(10 * i).score(0, i == 2 ? std::nan("") : 0.5 * i);
    records.push_back(builder.build());
  }
  record(sink, make_session(), make_writer(), records);
  const FilmReader film(path_);
  EXPECT_EQ(film.scalar_names(1), (std::vector<std::string>{"loss", "kl"}));
  EXPECT_TRUE(film.paths(1).empty());
  const ScoreColumns loss = film.scalars(1, "loss", {{}, 10, 40, {}});
  EXPECT_EQ(loss.at.step, (std::vector<std::int64_t>{10, 20, 30}));
  EXPECT_EQ(loss.score[0], 0.5);
  EXPECT_TRUE(std::isnan(loss.score[1]));
  EXPECT_EQ(static_cast<Status>(loss.status[1]), Status::scored);
  EXPECT_EQ(static_cast<Status>(film.scalars(1, "kl").status[0]), Status::skipped);
}

TEST_F(FilmReaderTest, SessionsAndTheirCounts) {
  std::mt19937_64 random(24);
  SqliteSink sink(path_);
  record(sink, make_session("a", 1), make_writer(1, 0), random_stream(random, 70));
  record(sink, make_session("a", 1), make_writer(2, 5), random_stream(random, 7));
  record(sink, make_session("b", 2), make_writer(3), {});
  SessionInfo newer = make_session("a", 3);
  newer.created_ns += 10;
  record(sink, newer, make_writer(4), random_stream(random, 14));

  const FilmReader film(path_);
  const std::vector<FilmSession> sessions = film.sessions();
  ASSERT_EQ(sessions.size(), 3u);
  EXPECT_EQ(sessions[0].info.name, "a");
  EXPECT_EQ(sessions[0].steps, 66);
  EXPECT_EQ(sessions[0].scalars, 11);
  EXPECT_EQ(sessions[0].writers, 2);
  EXPECT_EQ(sessions[0].ranks, (std::vector<std::int32_t>{0, 5}));
  EXPECT_EQ(sessions[0].info.metadata_json, "{\"lr\": 0.1}");
  EXPECT_EQ(sessions[0].created_at, "2023-11-14T22:13:20.123456Z");
  EXPECT_FALSE(sessions[0].closed_ns);
  EXPECT_LT(*sessions[0].first_ns, *sessions[0].last_ns);
  EXPECT_EQ(sessions[1].steps, 0);
  EXPECT_FALSE(sessions[1].first_ns);
  EXPECT_EQ(film.writers(1).at(1).rank, 5);
  sink.close();
  EXPECT_TRUE(film.sessions()[0].closed_ns);

  EXPECT_EQ(film.find_session(make_session("a", 1).id), 1);
  EXPECT_EQ(film.find_session("a"), 3) << "the newest of a name";
  EXPECT_EQ(film.find_session("2"), 2);
  try {
    film.find_session("c");
    FAIL();
  } catch (const KeyError& error) {
    EXPECT_NE(std::string(error.what()).find("\"a\", \"b\""), std::string::npos) << error.what();
  }
}

TEST_F(FilmReaderTest, UnknownNamesAreKeyErrorsThatSayWhatThereIs) {
  std::mt19937_64 random(25);
  SqliteSink sink(path_);
  record(sink, make_session(), make_writer(), random_stream(random, 10));
  const FilmReader film(path_);
  for (const auto& [call, expected] : std::vector<std::pair<std::function<void()>, std::string>>{
           {[&] { film.scores(1, "grounding"); }, "rubrics: \"root\", \"node_1\""},
           {[&] { film.scalars(1, "reward"); }, "scalars: \"loss\", \"kl\""},
           {[&] { film.scores(9, "root"); }, "session number 9"},
           {[&] { film.snapshots(9); }, "session number 9"},
           {[&] { film.score_matrix(9); }, "session number 9"},
           {[&] { film.paths(9); }, "session number 9"}}) {
    try {
      call();
      ADD_FAILURE() << expected;
    } catch (const KeyError& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  }
}

TEST_F(FilmReaderTest, ReadsWhileARecorderWrites) {
  std::mt19937_64 random(26);
  SqliteSink sink(path_);
  record(sink, make_session(), make_writer(), random_stream(random, 600));
  const FilmReader film(path_);
  const std::size_t before = film.scores(1, "root").at.size();
  FilmReader::Cursor cursor = film.snapshots(1);
  ASSERT_TRUE(cursor.next());
  // The cursor holds nothing: the recorder may write and tidy up its log.
  record(sink, make_session(), make_writer(), random_stream(random, 700, 600));
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(other, "PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr), SQLITE_OK);
  int in_log = -1;
  int checkpointed = -1;
  EXPECT_EQ(sqlite3_wal_checkpoint_v2(other, nullptr, SQLITE_CHECKPOINT_TRUNCATE, &in_log, &checkpointed),
            SQLITE_OK);
  EXPECT_EQ(in_log, 0);
  sqlite3_close(other);
  std::size_t seen = 1;
  while (cursor.next()) ++seen;
  EXPECT_GT(seen, before);
  EXPECT_EQ(seen, film.scores(1, "root").at.size());
}

TEST_F(FilmReaderTest, LeavesNothingBehind) {
  {
    SqliteSink sink(path_);
    sink.open(make_session(), make_writer());
    sink.close();
  }
  {
    EXPECT_EQ(FilmReader(path_).sessions().size(), 1u);
  }
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_.path())) ++files;
  EXPECT_EQ(files, 1u);
}

TEST_F(FilmReaderTest, RefusesWhatIsNoFilm) {
  EXPECT_THROW(FilmReader{path_}, SystemError);
  std::ofstream(path_) << "dear diary";
  EXPECT_THROW(FilmReader{path_}, FormatError);
  fs::remove(path_);
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(path_.c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "CREATE TABLE t(x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(other);
  EXPECT_THROW(FilmReader{path_}, FormatError);
}

TEST_F(FilmReaderTest, ADamagedFileIsAFormatError) {
  std::mt19937_64 random(27);
  {
    SqliteSink sink(path_);
    record(sink, make_session(), make_writer(), random_stream(random, 3000));
    sink.close();
  }
  const auto size = static_cast<std::streamoff>(fs::file_size(path_));
  std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
  for (std::streamoff page = 16384; page < size; page += 16384) {
    file.seekp(page);
    file.write("\xA5\xA5\xA5\xA5\xA5\xA5\xA5\xA5", 8);
  }
  file.close();
  EXPECT_THROW(
      {
        const FilmReader film(path_);
        film.scores(1, "root");
      },
      FormatError);
}

}  // namespace
}  // namespace rubriscope
