// The sink's own part, over a connection that is a few lists. The real server is in tests/python.
#include "rubriscope/sinks/postgres/postgres_sink.h"

#include <gtest/gtest.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include <map>

#include "rubriscope/core/errors.h"
#include "support/record_builder.h"

namespace rubriscope {
namespace {

using postgres::Episode;
using postgres::Portion;
using testing::make_scalars;
using testing::make_session;
using testing::make_tree;
using testing::make_writer;
using testing::OwnedRecord;
using testing::RecordBuilder;

/// What outlives a connection.
struct Server {
  struct Transaction {
    std::string steps;
    std::size_t pieces{0};
    std::string scalars;
    std::vector<rows::Extent> extents;
    std::vector<Episode> episodes;
    std::optional<ledger::LogChange> log;
  };

  std::vector<Transaction> stored;
  std::optional<std::uint64_t> stored_through;
  std::vector<std::uint64_t> stored_sequences;  ///< of a writer that is recovered
  std::map<std::pair<int, std::uint64_t>, ledger::Tile> tiles;
  std::optional<std::uint64_t> log_size;
  std::size_t most_bytes{1U << 30};   ///< more in a transaction times out
  bool loses_acknowledgement{false};  ///< of the next one
  int connections{0};
  int dead_connections{0};  ///< the first ones, at their end
  int abandoned{0};
  int schemas{0};
  std::vector<std::int64_t> closed;

  std::optional<ledger::LogTail> log() const {
    if (!log_size) return std::nullopt;
    std::vector<ledger::Tile> edge = ledger::edge_of(*log_size);
    for (ledger::Tile& tile : edge) {
      const auto found = tiles.find({tile.level, tile.index});
      if (found != tiles.end()) tile = found->second;
    }
    return ledger::LogTail(*log_size, std::move(edge));
  }
  /// The tree's root, as its stored leaves make it.
  ledger::Hash root_of_leaves() const {
    ledger::LogTail tree;
    for (const auto& [place, tile] : tiles) {
      if (place.first != 0) continue;
      for (const ledger::Hash& leaf : tile.hashes) tree.append_hash(leaf);
    }
    EXPECT_EQ(tree.size(), log_size);
    return tree.root();
  }
};

class FakeLink final : public postgres::Link {
 public:
  explicit FakeLink(Server& server) : server_(server) { ++server_.connections; }

  Registration register_writer(const SessionInfo&, const WriterInfo&) override {
    return {1, 2, server_.stored_through, server_.log()};
  }
  std::optional<std::uint64_t> stored_through(const std::string&) override { return server_.stored_through; }
  std::int64_t schema_key(std::int64_t, const Schema& schema) override {
    ++server_.schemas;
    return schema.id + 10;
  }
  std::vector<std::uint64_t> stored_between(std::int64_t, std::uint64_t, std::uint64_t) override {
    return server_.stored_sequences;
  }
  void store(std::int64_t, std::int64_t, Portion& portion) override {
    Server::Transaction made;
    for (std::string_view piece; !(piece = portion.steps()).empty(); ++made.pieces) made.steps += piece;
    made.scalars = portion.scalars();
    EXPECT_TRUE(portion.scalars().empty());
    made.extents = portion.extents();
    made.episodes = portion.episodes();
    if (portion.log() != nullptr) made.log = *portion.log();
    if (made.steps.size() > server_.most_bytes) throw postgres::StatementTimeout("timed out");
    server_.stored_through = static_cast<std::uint64_t>(made.extents.back().last_key) & rows::kSequenceMask;
    if (made.log) {
      for (const ledger::Tile& tile : made.log->tiles) server_.tiles[{tile.level, tile.index}] = tile;
      server_.log_size = made.log->size;
    }
    server_.stored.push_back(std::move(made));
    if (std::exchange(server_.loses_acknowledgement, false)) throw SinkError("lost", true);
  }
  void close_writers(const std::vector<std::int64_t>& keys) override {
    if (server_.connections <= server_.dead_connections) throw SinkError("gone", true);
    server_.closed = keys;
  }
  void abandon() noexcept override { ++server_.abandoned; }

 private:
  Server& server_;
};

class PostgresSinkTest : public ::testing::Test {
 protected:
  void write(const std::vector<OwnedRecord>& records) {
    const auto views = testing::views(records);
    sink.write({session, writer, views, false});
  }

  static std::vector<OwnedRecord> steps(std::uint64_t from, std::uint64_t to, std::size_t text = 0) {
    std::vector<OwnedRecord> records;
    for (std::uint64_t i = from; i < to; ++i) {
      RecordBuilder builder(make_tree(1));
      builder.sequence(i).step(static_cast<std::int64_t>(i)).score(0, 1);
      if (text != 0) builder.extra(ExtraTag::action, std::string(text, 'x'));
      records.push_back(builder.episode("ep-" + std::to_string(i % 3)).build());
    }
    return records;
  }

  Server server;
  SessionInfo session = make_session();
  WriterInfo writer = make_writer();
  PostgresSink sink{"postgresql://h/db", [this] { return std::make_unique<FakeLink>(server); }};
};

TEST_F(PostgresSinkTest, NothingIsOpenedBeforeOpen) {
  EXPECT_EQ(server.connections, 0);
  EXPECT_EQ(sink.target(), "postgresql://h/db");
  sink.open(session, writer);
  sink.open(session, writer);
  EXPECT_EQ(server.connections, 1);
}

TEST_F(PostgresSinkTest, ABatchIsOneTransactionInPieces) {
  sink.open(session, writer);
  write(steps(0, 3000, 1000));
  ASSERT_EQ(server.stored.size(), 1U);
  EXPECT_GT(server.stored[0].pieces, 2U);
  EXPECT_EQ(server.stored[0].scalars, "");
  ASSERT_EQ(server.stored[0].extents.size(), 12U);
  EXPECT_EQ(server.stored[0].extents.back().steps, 3000 - 11 * 256);
  ASSERT_EQ(server.stored[0].episodes.size(), 3U);
  EXPECT_EQ(server.stored[0].episodes[0].name, "ep-0");
  EXPECT_EQ(server.schemas, 1);
}

TEST_F(PostgresSinkTest, ASpanGoesOnInTheNextBatchAndKnownNamesAreNotSentAgain) {
  sink.open(session, writer);
  write(steps(0, 100));
  write(steps(100, 300));
  ASSERT_EQ(server.stored.size(), 2U);
  EXPECT_TRUE(server.stored[1].episodes.empty());
  ASSERT_EQ(server.stored[1].extents.size(), 2U);
  EXPECT_EQ(server.stored[1].extents[0].first_key, server.stored[0].extents[0].first_key);
  EXPECT_EQ(server.stored[1].extents[0].steps, 256);
  EXPECT_EQ(server.stored[1].extents[1].steps, 44);
}

TEST_F(PostgresSinkTest, ScalarsAlone) {
  sink.open(session, writer);
  std::vector<OwnedRecord> records;
  for (std::uint64_t i = 0; i < 5; ++i) {
    records.push_back(RecordBuilder(make_scalars({"loss"})).sequence(i).score(0, 1).build());
  }
  write(records);
  ASSERT_EQ(server.stored.size(), 1U);
  EXPECT_EQ(server.stored[0].steps, "");
  EXPECT_EQ(server.stored[0].scalars.substr(0, 6), "PGCOPY");
  EXPECT_EQ(server.stored[0].extents[0].scalars, 5);
}

TEST_F(PostgresSinkTest, ALostAcknowledgementStoresOnce) {
  sink.open(session, writer);
  server.loses_acknowledgement = true;
  EXPECT_THROW(write(steps(0, 50)), SinkError);
  EXPECT_EQ(sink.stored_through(writer), 49U);
  write(steps(0, 60));  // offered again, and more
  EXPECT_EQ(server.connections, 2);
  ASSERT_EQ(server.stored.size(), 2U);
  EXPECT_EQ(server.stored[1].extents[0].steps, 10);
  write(steps(0, 60));
  EXPECT_EQ(server.stored.size(), 2U);
}

TEST_F(PostgresSinkTest, TheLogGoesOnFromWhatIsStored) {
  sink.open(session, writer);
  write(steps(0, 700));
  server.loses_acknowledgement = true;
  EXPECT_THROW(write(steps(700, 900)), SinkError);
  write(steps(700, 1000));
  EXPECT_EQ(server.connections, 2);
  // The writer, the schema once a connection, and the records, each once.
  EXPECT_EQ(server.log_size, 1U + 2U + 1000U);
  EXPECT_EQ(server.log()->root(), server.root_of_leaves());
  ASSERT_EQ(server.stored.size(), 3U);
  EXPECT_EQ(server.stored[0].log->entries.size(), 2U);
  EXPECT_EQ(server.stored[1].log->entries.size(), 0U);
  EXPECT_EQ(server.stored[2].log->entries.at(0).place, 902U);
}

TEST_F(PostgresSinkTest, ATransactionThatFailsLeavesNoTraceInTheLog) {
  sink.open(session, writer);
  server.most_bytes = 20'000;
  const auto records = steps(0, 300, 100);
  while (server.stored_through != 299U) {
    try {
      write(records);
    } catch (const postgres::StatementTimeout&) {
      sink.open(session, writer);
    }
  }
  EXPECT_EQ(server.log()->root(), server.root_of_leaves());
  for (const auto& transaction : server.stored) EXPECT_LE(transaction.log->size, *server.log_size);
}

TEST_F(PostgresSinkTest, WhatWasDamagedComesLateAndOnce) {
  sink.open(session, writer);
  write(steps(0, 5));
  write(steps(7, 8));  // 5 and 6 are lost to a damaged journal page
  server.stored_sequences = {3, 4, 7};
  const auto left = steps(3, 11);
  const auto views = testing::views(left);
  sink.write({session, writer, views, true});
  ASSERT_EQ(server.stored.size(), 3U);
  EXPECT_EQ(server.stored[1].log->entries.size(), 1U);  // a gap
  EXPECT_EQ(server.stored[2].log->entries.size(), 2U);  // two that come late
  EXPECT_EQ(server.log_size, 2U + 1U + 2U + 11U);
  EXPECT_EQ(server.log()->root(), server.root_of_leaves());
}

TEST_F(PostgresSinkTest, RecordsWithoutALedgerStayWithoutOne) {
  session.ledger = false;
  sink.open(session, writer);
  write(steps(0, 5));
  EXPECT_FALSE(server.stored[0].log);
  sink.close();
  session.ledger = true;
  sink.open(session, writer);
  write(steps(5, 9));
  EXPECT_FALSE(server.stored[1].log);
}

TEST_F(PostgresSinkTest, ATimeOutMakesTransactionsSmallerUntilTheyFit) {
  sink.open(session, writer);
  server.most_bytes = 20'000;
  const auto records = steps(0, 400, 100);
  int attempts = 0;
  for (; attempts < 20 && server.stored_through != 399U; ++attempts) {
    try {
      write(records);
    } catch (const postgres::StatementTimeout&) {
      sink.open(session, writer);
    }
  }
  EXPECT_EQ(server.stored_through, 399U);
  EXPECT_LE(attempts, 12);
  std::int64_t stored = 0;
  std::map<std::int64_t, std::int64_t> extents;
  for (const auto& transaction : server.stored) {
    EXPECT_LE(transaction.steps.size(), server.most_bytes);
    for (const auto& extent : transaction.extents) extents[extent.first_key] = extent.steps;
  }
  for (const auto& [key, count] : extents) stored += count;
  EXPECT_EQ(stored, 400);
}

TEST_F(PostgresSinkTest, TheEndIsNotedOverANewConnectionWhereTheOldOneIsGone) {
  sink.open(session, writer);
  server.dead_connections = 1;
  sink.close();
  EXPECT_EQ(server.connections, 2);
  EXPECT_EQ(server.closed, std::vector<std::int64_t>{2});
  sink.open(session, writer);
  server.dead_connections = 10;
  EXPECT_THROW(sink.close(), SinkError);
}

TEST_F(PostgresSinkTest, AForkedChildLetsGoWithoutAWord) {
#ifdef __SANITIZE_ADDRESS__
  const __lsan::ScopedDisabler leak_on_purpose;  // what a child lets go of is the parent's
#endif
  sink.open(session, writer);
  sink.abandon_after_fork();
  EXPECT_EQ(server.abandoned, 1);
  sink.close();
  EXPECT_TRUE(server.closed.empty());
  sink.open(session, writer);
  EXPECT_EQ(server.connections, 2);
  sink.close();
  EXPECT_EQ(server.closed, std::vector<std::int64_t>{2});
}

}  // namespace
}  // namespace rubriscope
