// What a sink wrote of a record, the ledger's check finds to say what the record's canonical bytes say: for
// records of every kind, in both databases. And of a row that was changed it names the column.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "rubriscope/core/cbor.h"
#include "rubriscope/film/copy_rows.h"
#include "rubriscope/film/ledger_reader.h"
#include "rubriscope/sinks/postgres/copy_encoder.h"
#include "rubriscope/sinks/sqlite/sqlite_sink.h"
#include "support/random_record.h"
#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

using postgres::CopyEncoder;
using postgres::CopyStream;
using testing::make_event;
using testing::make_scalars;
using testing::make_session;
using testing::make_tree;
using testing::make_writer;
using testing::OwnedRecord;
using testing::random_record;
using testing::RecordBuilder;

constexpr std::int64_t kSession = 3;
constexpr std::int64_t kWriter = 5;

std::vector<SchemaPtr> schemas() {
  return {make_tree(4, 0), make_scalars({"loss", "kl"}, 1), make_event(2, {"trace_id", "text"}, 2)};
}

/// A record's row as PostgreSQL would give it back.
std::string copied(const RecordView& record) {
  static CopyEncoder encoder(make_session(), make_writer(), kSession, kWriter);
  CopyStream stream;
  stream.begin();
  if (record.header->kind == RecordKind::snapshot) {
    const rows::Columns columns = rows::columns_of(record);
    std::string episode;
    if (columns.episode.data() != nullptr) postgres::append_text(episode, columns.episode);
    encoder.step(record, 9, columns,
                 columns.episode.data() != nullptr ? std::string_view(episode) : std::string_view(), stream);
  } else if (record.header->kind == RecordKind::scalars) {
    encoder.scalars(record, 9, stream);
  } else {
    encoder.event(record, 9, stream);
  }
  stream.end();
  return std::string(stream.bytes());
}

/// Checks a row against the canonical bytes in it.
void check(const std::string& row, const SchemaPtr& schema, RecordKind kind) {
  CopyRows rows(table_of(kind), 0, std::int64_t{1} << 60,
                [&](LedgerTable, std::int64_t, std::int64_t) { return row; });
  ASSERT_FALSE(rows.at_end());
  EXPECT_EQ(rows.schema_key(), 9);
  DecodedRecord decoded = decode_cbor(rows.bytes());
  decoded.schema = schema;
  rows.check(decoded.view(), kSession);
  rows.advance();
  EXPECT_TRUE(rows.at_end());
}

TEST(LedgerRows, OfPostgresSayWhatTheirBytesSay) {
  std::mt19937_64 random(7);
  std::uint64_t sequence = 0;
  for (int turn = 0; turn < 400; ++turn) {
    for (const SchemaPtr& schema : schemas()) {
      const OwnedRecord record = random_record(random, schema, sequence++);
      ASSERT_NO_THROW(check(copied(record.view()), schema, record.view().header->kind)) << sequence;
    }
  }
}

TEST(LedgerRows, OfSqliteSayWhatTheirBytesSay) {
  const testing::TemporaryFolder folder;
  const std::string path = folder.path() / "runs.db";
  std::mt19937_64 random(11);
  std::vector<OwnedRecord> records;
  for (int turn = 0; turn < 400; ++turn) {
    for (const SchemaPtr& schema : schemas()) {
      records.push_back(random_record(random, schema, records.size()));
    }
  }
  SqliteSink sink(path);
  const SessionInfo session = make_session();
  const WriterInfo writer = make_writer();
  sink.open(session, writer);
  const auto views = testing::views(records);
  sink.write({session, writer, views, false});
  sink.close();
  const LedgerReader reader(path);
  const LogVerdict verdict = reader.verify(reader.logs(1).at(0), {}, {}, {});
  EXPECT_EQ(verdict.problem, "");
  EXPECT_EQ(verdict.records, records.size());
}

std::string problem_of(const std::string& row, const SchemaPtr& schema, RecordKind kind) {
  try {
    check(row, schema, kind);
  } catch (const LedgerProblem& problem) {
    return problem.what();
  }
  return "";
}

TEST(LedgerRows, AChangedColumnIsNamed) {
  const SchemaPtr tree = make_tree(2);
  const auto record = RecordBuilder(tree)
                          .sequence(17)
                          .step(2)
                          .score(0, 0.5)
                          .score(1, 1)
                          .episode("ep")
                          .extra(ExtraTag::action, "yes")
                          .build();
  const std::string row = copied(record.view());
  const auto changed = [&](std::string_view from, std::string_view to) {
    std::string other = row;
    other.replace(other.find(from), from.size(), to);
    return problem_of(other, tree, RecordKind::snapshot);
  };
  EXPECT_EQ(problem_of(row, tree, RecordKind::snapshot), "");
  EXPECT_EQ(changed("yes", "yea"), "record 17: its column action is 'yea', its signed bytes say 'yes'");
  EXPECT_EQ(changed("ep", "pe"), "record 17: its column episode_id is 'pe', its signed bytes say 'ep'");
  const std::string one("\0\0\0\10\x3F\xF0\0\0\0\0\0\0", 12);  // the second score
  EXPECT_EQ(changed(one, std::string("\0\0\0\10\x40\0\0\0\0\0\0\0", 12)),
            "record 17: its column scores is [0.5,2.0], its signed bytes say [0.5,1.0]");
  const std::string reward("\0\0\0\10\x3F\xE0\0\0\0\0\0\0", 12);
  EXPECT_EQ(changed(reward, "\xFF\xFF\xFF\xFF"),
            "record 17: its column reward is NULL, its signed bytes say 0.5");
}

TEST(LedgerRows, CutShortIsNoRow) {
  const SchemaPtr tree = make_tree(1);
  const std::string row = copied(RecordBuilder(tree).score(0, 1).build().view());
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{10}, std::size_t{30}, row.size() - 1}) {
    EXPECT_THROW(check(row.substr(0, bytes), tree, RecordKind::snapshot), FormatError) << bytes;
  }
}

TEST(LedgerRows, ComeInPieces) {
  const SchemaPtr tree = make_tree(1);
  const std::int64_t first = kWriter << rows::kSequenceBits;
  const std::uint64_t count = CopyRows::kRowsAPiece * 2;
  int pieces = 0;
  CopyRows all(LedgerTable::entries, first, first + 99'999,
               [&](LedgerTable, std::int64_t from, std::int64_t) {
                 ++pieces;
                 CopyStream stream;
                 stream.begin();
                 for (std::size_t i = 0;
                      i < CopyRows::kRowsAPiece && from - first < static_cast<std::int64_t>(count); ++i) {
                   stream.row(2);
                   stream.int8(from++);
                   stream.bytea({});
                 }
                 stream.end();
                 return std::string(stream.bytes());
               });
  std::uint64_t seen = 0;
  for (; !all.at_end(); all.advance()) EXPECT_EQ(all.key(), first + static_cast<std::int64_t>(seen++));
  EXPECT_EQ(seen, count);
  EXPECT_EQ(pieces, 3);
}

}  // namespace
}  // namespace rubriscope
