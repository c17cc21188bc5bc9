#include "rubriscope/sinks/sqlite/sqlite_sink.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/film/ledger_reader.h"
#include "support/random_record.h"
#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;
namespace fs = std::filesystem;

/// A connection of "another program": plain sqlite3, nothing of ours.
class Outsider {
 public:
  explicit Outsider(const std::string& path) {
    if (sqlite3_open(path.c_str(), &handle_) != SQLITE_OK) throw std::runtime_error(sqlite3_errmsg(handle_));
  }
  ~Outsider() { sqlite3_close(handle_); }

  /// Rows with '|' between columns and '\n' after each row, as the sqlite3 shell prints them.
  std::string query(const std::string& sql) {
    std::string out;
    char* message = nullptr;
    const int result = sqlite3_exec(
        handle_, sql.c_str(),
        [](void* to, int columns, char** values, char**) {
          auto& text = *static_cast<std::string*>(to);
          for (int i = 0; i < columns; ++i) {
            if (i != 0) text += '|';
            text += values[i] != nullptr ? values[i] : "NULL";
          }
          text += '\n';
          return 0;
        },
        &out, &message);
    if (result != SQLITE_OK) {
      const std::string what = message != nullptr ? message : "?";
      sqlite3_free(message);
      throw std::runtime_error(what);
    }
    return out;
  }

 private:
  sqlite3* handle_{};
};

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<OwnedRecord> make_records(std::uint64_t first, std::size_t count, std::size_t slots = 3) {
  const SchemaPtr schema = make_tree(slots);
  std::vector<OwnedRecord> records;
  for (std::size_t i = 0; i < count; ++i) {
    RecordBuilder builder(schema);
    const auto sequence = first + i;
    builder.sequence(sequence).step(static_cast<std::int64_t>(sequence)).episode("0");
    builder.time(1'700'000'000'000'000'000 + static_cast<std::int64_t>(sequence));
    for (std::size_t slot = 0; slot < slots; ++slot) {
      builder.score(slot, static_cast<double>(sequence) + 0.25 * static_cast<double>(slot), 10);
    }
    records.push_back(builder.build());
  }
  return records;
}

class SqliteSinkTest : public ::testing::Test {
 protected:
  void write(Sink& sink, const std::vector<OwnedRecord>& records, bool recovered = false) {
    const std::vector<RecordView> batch = views(records);
    sink.write({session_, writer_, batch, recovered});
  }
  std::string query(const std::string& sql) { return Outsider(path_).query(sql); }

  TemporaryFolder folder_;
  std::string path_ = folder_.path() / "runs.db";
  SessionInfo session_ = make_session("run");
  WriterInfo writer_ = make_writer(1, 3);
};

TEST_F(SqliteSinkTest, TargetIsAnAbsoluteUrl) {
  EXPECT_EQ(SqliteSink("/a/./b/../runs.db").target(), "sqlite:///a/runs.db");
  EXPECT_EQ(SqliteSink("runs.db").target(), "sqlite://" + (fs::current_path() / "runs.db").string());
}

TEST_F(SqliteSinkTest, AnybodyCanReadTheTrajectory) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  RecordBuilder builder(make_tree(3));
  builder.sequence(0).step(5).episode("ep").group(9).sample(2).score(0, 0.5).failed(2, "raised");
  builder.extra(ExtraTag::action, "42", 1).extra(ExtraTag::observation, "gr\xC3\xBC\xC3\x9F");
  builder.extra(ExtraTag::metadata, "{\"k\": 1}");
  std::vector<OwnedRecord> records;
  records.push_back(builder.build());
  write(sink, records);

  EXPECT_EQ(query("SELECT * FROM trajectory"),
            "1|ep|5|node_1|NULL|skipped|3|0|9|2\n1|ep|5|node_2|NULL|failed|3|0|9|2\n1|ep|5|root|0.5|scored|3|"
            "0|9|2\n");
  EXPECT_EQ(query("SELECT typeof(score) FROM trajectory WHERE rubric_path = 'root'"), "real\n");
  EXPECT_EQ(
      query("SELECT episode_id, step_index, reward, action, typeof(action), observation, metadata, group_id, "
            "sample_index, scores, statuses FROM steps"),
      "ep|5|0.5|42|integer|gr\xC3\xBC\xC3\x9F|{\"k\": 1}|9|2|[0.5,null,null]|skf\n");
  EXPECT_EQ(query("SELECT uuid, name, created_at, metadata FROM sessions"),
            session_.id + "|run|2023-11-14T22:13:20.123456Z|{\"lr\": 0.1}\n");
  EXPECT_EQ(query("SELECT writer_id, rank, world_size, host, pid FROM writers"),
            writer_.id + "|3|1|host|42\n");
  EXPECT_EQ(query("PRAGMA application_id") + query("PRAGMA user_version") + query("PRAGMA journal_mode"),
            "1381188432\n3\nwal\n");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok\n");
}

TEST_F(SqliteSinkTest, ScalarsHaveAViewOfTheirOwn) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  RecordBuilder builder(make_scalars({"loss", "kl"}));
  builder.sequence(4).step(2).score(0, 0.125).score(1, std::nan(""));
  std::vector<OwnedRecord> records;
  records.push_back(builder.build());
  write(sink, records);
  EXPECT_EQ(query("SELECT session_id, step_index, name, value, rank, sequence FROM scalar_values"),
            "1|2|kl|NULL|3|4\n1|2|loss|0.125|3|4\n");
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "0\n");
}

TEST_F(SqliteSinkTest, StoredThroughIsTheHighestSequenceOfBothTables) {
  SqliteSink sink(path_);
  EXPECT_EQ(sink.stored_through(writer_), std::nullopt);
  sink.open(session_, writer_);
  EXPECT_EQ(sink.stored_through(writer_), std::nullopt);
  write(sink, make_records(0, 3));
  EXPECT_EQ(sink.stored_through(writer_), 2u);
  RecordBuilder builder(make_scalars({"loss"}));
  std::vector<OwnedRecord> scalars;
  scalars.push_back(builder.sequence(3).score(0, 1).build());
  write(sink, scalars);
  EXPECT_EQ(sink.stored_through(writer_), 3u);
  EXPECT_EQ(SqliteSink(path_).stored_through(writer_), 3u);
  EXPECT_EQ(sink.stored_through(make_writer(2)), std::nullopt);
}

TEST_F(SqliteSinkTest, RecoveryStoresEachRecordOnce) {
  {
    SqliteSink sink(path_);
    sink.open(session_, writer_);
    write(sink, make_records(0, 5));
    // 5 and 6 are lost to a damaged journal page, 7 arrives.
    write(sink, make_records(7, 1));
  }
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(3, 8), true);
  EXPECT_EQ(
      query("SELECT group_concat(step_key & 0xFFFFFFFFFF, ' ') FROM (SELECT * FROM steps ORDER BY step_key)"),
      "0 1 2 3 4 5 6 7 8 9 10\n");
  EXPECT_EQ(query("SELECT coalesce(sum(steps), 0) FROM extents"), "11\n");
  EXPECT_EQ(sink.stored_through(writer_), 10u);
  // The ledger says that 5 and 6 were missing and came late, and holds.
  const LedgerReader ledger(path_);
  const LedgerLog log = ledger.logs(1).at(0);
  const LogVerdict verdict = ledger.verify(log, {}, {}, {});
  EXPECT_EQ(verdict.problem, "");
  EXPECT_EQ(verdict.records, 11u);
  const std::vector<std::string> entries = ledger.entries(log, 0, log.size);
  EXPECT_EQ(entries.size(), 11u + 6u);  // writer, schema twice (two connections), gap, two late ones
  for (std::uint64_t i = 0; i < log.size; ++i)
    EXPECT_EQ(ledger.entries(log, i, i + 1).at(0), entries[i]) << i;
}

TEST_F(SqliteSinkTest, ARepeatedSequenceOfALivingWriterIsAFault) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 5));
  try {
    write(sink, make_records(4, 2));
    FAIL();
  } catch (const SinkError& error) {
    EXPECT_FALSE(error.transient) << error.what();
  }
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "5\n");
}

TEST_F(SqliteSinkTest, ABatchIsTakenWholeOrNotAtAll) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  std::vector<OwnedRecord> records = make_records(0, 10);
  records[9].header().sequence = std::uint64_t{1} << 40;  // does not fit
  EXPECT_THROW(write(sink, records), SinkError);
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "0\n");
  EXPECT_EQ(query("SELECT coalesce(sum(steps), 0) FROM extents"), "0\n");
  sink.open(session_, writer_);
  write(sink, make_records(0, 10));
  EXPECT_EQ(
      query("SELECT count(*), (SELECT sum(steps) FROM extents), (SELECT count(*) FROM schemas) FROM steps"),
      "10|10|1\n");
}

TEST_F(SqliteSinkTest, WritersOfOneSessionShareItsSchemas) {
  const WriterInfo other = make_writer(2, 1);
  SqliteSink a(path_);
  SqliteSink b(path_);
  a.open(session_, writer_);
  b.open(session_, other);
  const std::vector<OwnedRecord> records = make_records(0, 2);
  const std::vector<RecordView> batch = views(records);
  a.write({session_, writer_, batch});
  b.write({session_, other, batch});
  a.write({session_, writer_, views(make_records(2, 2))});
  EXPECT_EQ(query("SELECT rank, sequence FROM trajectory WHERE rubric_path = 'root' ORDER BY rank, sequence"),
            "1|0\n1|1\n3|0\n3|1\n3|2\n3|3\n");
  EXPECT_EQ(query("SELECT count(*) FROM schemas"), "1\n");
  EXPECT_EQ(query("SELECT count(*) FROM episodes"), "1\n");
  // The session ends with its last writer.
  a.close();
  EXPECT_EQ(query("SELECT closed_ns IS NULL FROM sessions"), "1\n");
  b.close();
  EXPECT_EQ(query("SELECT closed_ns IS NULL FROM sessions"), "0\n");
}

TEST_F(SqliteSinkTest, CloseLeavesOneFile) {
  SqliteSink sink(path_);
  sink.close();  // nothing was opened: nothing is made
  EXPECT_FALSE(fs::exists(path_));
  sink.open(session_, writer_);
  write(sink, make_records(0, 100));
  EXPECT_TRUE(fs::exists(path_ + "-wal"));
  sink.close();
  EXPECT_FALSE(fs::exists(path_ + "-wal"));
  EXPECT_FALSE(fs::exists(path_ + "-shm"));
  sink.open(session_, writer_);
  write(sink, make_records(100, 1));
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "101\n");
}

TEST_F(SqliteSinkTest, SeveralProcessesWriteAtOnce) {
  constexpr int processes = 4;
  constexpr int batches = 25;
  std::vector<pid_t> children;
  for (int process = 0; process < processes; ++process) {
    const pid_t child = fork();
    if (child == 0) {
      int status = 0;
      try {
        const WriterInfo writer = make_writer(10 + process, process);
        SqliteSink sink(path_);
        sink.open(session_, writer);
        for (int i = 0; i < batches; ++i) {
          const std::vector<OwnedRecord> records = make_records(static_cast<std::uint64_t>(i) * 20, 20);
          const std::vector<RecordView> batch = views(records);
          for (;;) {
            try {
              sink.write({session_, writer, batch});
              break;
            } catch (const SinkError& error) {
              if (!error.transient) throw;
              sink.open(session_, writer);
            }
          }
        }
        sink.close();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "writer %d: %s\n", process, error.what());
        status = 1;
      }
      _exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(query("SELECT w.rank, count(*), min(step_key & 0xFFFFFFFFFF), max(step_key & 0xFFFFFFFFFF), "
                  "(SELECT sum(steps) FROM extents WHERE first_key >> 40 = w.writer_key) "
                  "FROM steps JOIN writers w ON w.writer_key = step_key >> 40 GROUP BY w.rank"),
            "0|500|0|499|500\n1|500|0|499|500\n2|500|0|499|500\n3|500|0|499|500\n");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok\n");
}

// ---- files that are not ours ----

TEST_F(SqliteSinkTest, AStrangersDatabaseIsLeftUntouched) {
  {
    Outsider(path_).query("CREATE TABLE precious(x); INSERT INTO precious VALUES(1)");
  }
  const std::string before = read_file(path_);
  SqliteSink sink(path_);
  EXPECT_THROW(sink.open(session_, writer_), FormatError);
  EXPECT_EQ(read_file(path_), before);
  EXPECT_FALSE(fs::exists(path_ + "-wal") || fs::exists(path_ + "-shm") || fs::exists(path_ + "-journal"));
}

TEST_F(SqliteSinkTest, AStrangersDatabaseWhoseTablesAreStillInItsLogIsLeftUntouched) {
  const Outsider stranger(path_);
  auto& writing = const_cast<Outsider&>(stranger);
  writing.query("PRAGMA journal_mode = WAL; CREATE TABLE precious(x); INSERT INTO precious VALUES(1)");
  const std::string before = read_file(path_);
  const std::string log = read_file(path_ + "-wal");
  ASSERT_FALSE(log.empty());
  SqliteSink sink(path_);
  EXPECT_THROW(sink.open(session_, writer_), FormatError);
  EXPECT_EQ(read_file(path_), before);
  EXPECT_EQ(read_file(path_ + "-wal"), log);
  EXPECT_EQ(writing.query("SELECT * FROM precious"), "1\n");
}

TEST_F(SqliteSinkTest, AnEmptyDatabaseIsTaken) {
  {
    Outsider(path_).query("VACUUM");
  }
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  EXPECT_EQ(query("SELECT count(*) FROM sessions"), "1\n");
}

TEST_F(SqliteSinkTest, AnotherProgramsIdIsRefusedEvenWithoutTables) {
  {
    Outsider(path_).query("PRAGMA application_id = 12345; VACUUM");
  }
  SqliteSink sink(path_);
  EXPECT_THROW(sink.open(session_, writer_), FormatError);
}

TEST_F(SqliteSinkTest, ANewerFormatIsLeftUntouched) {
  {
    SqliteSink sink(path_);
    sink.open(session_, writer_);
    sink.close();
    Outsider(path_).query("PRAGMA user_version = 4");
    Outsider(path_).query("PRAGMA wal_checkpoint(TRUNCATE)");
  }
  const std::string before = read_file(path_);
  SqliteSink sink(path_);
  try {
    sink.open(session_, writer_);
    FAIL();
  } catch (const FormatError& error) {
    EXPECT_NE(std::string(error.what()).find("version 4"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find(path_), std::string::npos) << error.what();
  }
  EXPECT_EQ(read_file(path_), before);
}

TEST_F(SqliteSinkTest, AFileThatIsNoDatabaseIsLeftUntouched) {
  std::ofstream(path_) << "dear diary";
  SqliteSink sink(path_);
  EXPECT_THROW(sink.open(session_, writer_), FormatError);
  EXPECT_EQ(read_file(path_), "dear diary");
  std::ofstream(path_) << std::string(5000, 'x');
  EXPECT_THROW(sink.open(session_, writer_), FormatError);
}

TEST_F(SqliteSinkTest, InspectingKeepsTheLocksOfOtherConnectionsOfThisProcess) {
  // POSIX locks belong to the process: a plain open() and close() of the file would drop them.
  SqliteSink first(path_);
  first.open(session_, writer_);
  write(first, make_records(0, 1));
  SqliteSink second(path_);
  second.open(session_, make_writer(2));
  second.close();
  // Another process tries to take the file for itself, as the last to close would.
  const pid_t child = fork();
  if (child == 0) {
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = 0x40000002;  // SQLite's range of shared locks
    lock.l_len = 510;
    const int file = ::open(path_.c_str(), O_RDWR);
    _exit(fcntl(file, F_SETLK, &lock) == 0 ? 1 : 0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << "the lock was gone";
}

// ---- trouble that passes ----

TEST_F(SqliteSinkTest, ALockedDatabaseIsTransientAndThenTaken) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 2));
  {
    Outsider other(path_);
    other.query("BEGIN IMMEDIATE");
    try {
      write(sink, make_records(2, 2));
      FAIL();
    } catch (const SinkError& error) {
      EXPECT_TRUE(error.transient);
      EXPECT_NE(std::string(error.what()).find("another process holds its lock"), std::string::npos)
          << error.what();
    }
    other.query("COMMIT");
  }
  sink.open(session_, writer_);
  write(sink, make_records(2, 2));
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "4\n");
}

TEST_F(SqliteSinkTest, AMissingFolderIsTransient) {
  SqliteSink sink(folder_.path() / "missing" / "runs.db");
  try {
    sink.open(session_, writer_);
    FAIL();
  } catch (const SinkError& error) {
    EXPECT_TRUE(error.transient) << error.what();
  }
  fs::create_directory(folder_.path() / "missing");
  sink.open(session_, writer_);
}

TEST_F(SqliteSinkTest, ACorruptedDatabaseIsReportedAndItsReplacementTaken) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 5000, 15));
  sink.close();
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(16384);
    const std::string noise(16384 * 3, '\xA5');
    file.write(noise.data(), static_cast<std::streamsize>(noise.size()));
  }
  try {
    sink.open(session_, writer_);
    write(sink, make_records(5000, 10, 15));
    FAIL();
  } catch (const SinkError& error) {
    EXPECT_FALSE(error.transient) << error.what();
    EXPECT_NE(std::string(error.what()).find("damaged"), std::string::npos) << error.what();
  }
  sink.close();
  fs::rename(path_, path_ + ".aside");
  sink.open(session_, writer_);
  write(sink, make_records(5000, 10, 15));
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "10\n");
}

TEST_F(SqliteSinkTest, ADeletedFileIsNoticedAndMadeAnew) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 2));
  fs::remove(path_);
  fs::remove(path_ + "-wal");
  fs::remove(path_ + "-shm");
  EXPECT_THROW(write(sink, make_records(2, 2)), SinkError);
  sink.open(session_, writer_);
  write(sink, make_records(2, 2));
  EXPECT_EQ(query("SELECT count(*) FROM steps"), "2\n");
}

TEST_F(SqliteSinkTest, AFullDiskIsTransientAndLosesNothing) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small disk needs root";
  const fs::path disk = folder_.path() / "disk";
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=1536k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs here";
  {
    const std::string path = disk / "runs.db";
    SqliteSink sink(path);
    sink.open(session_, writer_);
    write(sink, make_records(0, 10, 15));
    const std::vector<OwnedRecord> large = make_records(10, 4096, 15);
    try {
      write(sink, large);
      ADD_FAILURE() << "a megabyte took more than two";
    } catch (const SinkError& error) {
      EXPECT_TRUE(error.transient) << error.what();
    }
    EXPECT_EQ(mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=64m"), 0);
    sink.open(session_, writer_);
    write(sink, large);
    EXPECT_EQ(sink.stored_through(writer_), 4105u);
    EXPECT_EQ(Outsider(path).query("SELECT count(*) FROM steps"), "4106\n");
    EXPECT_EQ(Outsider(path).query("PRAGMA integrity_check"), "ok\n");
  }
  umount2(disk.c_str(), MNT_DETACH);
}

// ---- fork ----

TEST_F(SqliteSinkTest, AForkedChildWritesBesideItsParent) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  write(sink, make_records(0, 3));
  int parent_closed[2];
  int child_opened[2];
  ASSERT_EQ(pipe(parent_closed), 0);
  ASSERT_EQ(pipe(child_opened), 0);
  const pid_t child = fork();
  if (child == 0) {
    ::close(parent_closed[1]);
    int status = 0;
    try {
      sink.abandon_after_fork();
      const WriterInfo own = make_writer(7, 7);
      sink.open(session_, own);
      const std::vector<OwnedRecord> first = make_records(0, 2);
      sink.write({session_, own, views(first)});
      char byte = 'x';
      if (::write(child_opened[1], &byte, 1) != 1) status = 2;
      // The parent is the last to close, as far as it can see: were our lock not there, it would take the log
      // away.
      if (::read(parent_closed[0], &byte, 1) != 1) status = 3;
      const std::vector<OwnedRecord> second = make_records(2, 2);
      sink.write({session_, own, views(second)});
      sink.close();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "child: %s\n", error.what());
      status = 1;
    }
    _exit(status);
  }
  char byte = 'x';
  ASSERT_EQ(::read(child_opened[0], &byte, 1), 1);
  write(sink, make_records(3, 3));
  sink.close();
  ASSERT_EQ(::write(parent_closed[1], &byte, 1), 1);
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(
      query("SELECT w.rank, count(*) FROM steps JOIN writers w ON w.writer_key = step_key >> 40 GROUP BY 1"),
      "3|6\n7|4\n");
  EXPECT_EQ(query("PRAGMA integrity_check"), "ok\n");
  for (const int end : {parent_closed[0], parent_closed[1], child_opened[0], child_opened[1]}) ::close(end);
}

// ---- texts and sizes ----

TEST_F(SqliteSinkTest, TextsAreValidUtf8AndCutsAreMarked) {
  session_.name = "bad \xFF name";
  session_.metadata_json = "not json";
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  RecordBuilder builder(make_tree(1));
  builder.score(0, 1).episode("e\xFF").extra(ExtraTag::action, "abc\xFF", kCaptureCut);
  builder.extra(ExtraTag::observation, "0.5", 2).extra(ExtraTag::metadata, "{broken");
  std::vector<OwnedRecord> records;
  records.push_back(builder.build());
  write(sink, records);
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(query("SELECT name, metadata FROM sessions"), "bad " + r + " name|\"not json\"\n");
  EXPECT_EQ(query("SELECT episode_id, action, observation, typeof(observation), metadata FROM steps"),
            "e" + r + "|abc" + r + "\xE2\x80\xA6|0.5|real|\"{broken\"\n");
}

TEST_F(SqliteSinkTest, NoSlotsAndManySlots) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  std::vector<OwnedRecord> records;
  records.push_back(RecordBuilder(make_tree(0, 0)).sequence(0).build());
  RecordBuilder large(make_tree(5000, 1));
  large.sequence(1);
  for (std::size_t i = 0; i < 5000; ++i) large.score(i, static_cast<double>(i));
  records.push_back(large.build());
  write(sink, records);
  EXPECT_EQ(query("SELECT count(*), sum(score) FROM trajectory"), "5000|12497500.0\n");
  EXPECT_EQ(query("SELECT reward FROM steps ORDER BY step_key"), "NULL\n0.0\n");
}

TEST_F(SqliteSinkTest, SpansCoverTheSteps) {
  SqliteSink sink(path_);
  sink.open(session_, writer_);
  for (int i = 0; i < 7; ++i) write(sink, make_records(static_cast<std::uint64_t>(i) * 100, 100));
  EXPECT_EQ(query("SELECT first_key & 0xFFFFFFFFFF, last_key & 0xFFFFFFFFFF, steps, scalars, episode_id, "
                  "first_step, last_step FROM "
                  "extents ORDER BY first_key"),
            "0|255|256|0|0|0|255\n256|511|256|0|0|256|511\n512|699|188|0|0|512|699\n");
}

}  // namespace
}  // namespace rubriscope
