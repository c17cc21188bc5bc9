#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "rubriscope/core/ids.h"
#include "rubriscope/rubric/rubric.h"
#include "support/temporary_folder.h"

namespace rubriscope {
namespace {

struct Seen {
  std::map<std::string, double> scores;
  std::map<std::string, Status> statuses;
  std::map<std::string, std::string> reasons;
  std::map<std::string, std::string> explanations;
  std::string action;
  std::string observation;
  std::string episode;
  std::int64_t step{};
  std::uint64_t root_duration{};
  std::uint64_t longest_child{};
};

// Keeps every snapshot in memory.
class Memory : public Sink {
 public:
  std::string target() const override { return "memory:"; }
  void open(const SessionInfo&, const WriterInfo&) override {}
  void write(const Batch& batch) override {
    for (const auto& record : batch.records) {
      Seen one;
      for (std::size_t i = 0; i < record.header->slots; ++i) {
        for (const auto& path : record.schema->slots[i].paths) {
          one.statuses[path] = record.statuses()[i];
          if (record.statuses()[i] == Status::scored) one.scores[path] = record.scores()[i];
        }
        if (i != 0) one.longest_child = std::max(one.longest_child, record.durations_ns()[i]);
      }
      one.root_duration = record.durations_ns()[0];
      record.for_each_extra([&](const RecordView::Extra& extra) {
        const std::string path = record.schema->slots[extra.slot].paths.front();
        if (extra.tag == ExtraTag::reason) one.reasons[path] = extra.text;
        if (extra.tag == ExtraTag::explanation) one.explanations[path] = extra.text;
      });
      one.action = record.extra(ExtraTag::action);
      one.observation = record.extra(ExtraTag::observation);
      one.episode = record.extra(ExtraTag::episode);
      one.step = record.header->step;
      seen.push_back(one);
    }
  }
  std::vector<Seen> seen;
};

class ObserverTest : public ::testing::Test {
 protected:
  std::shared_ptr<Recorder> recorder() {
    RecorderOptions options;
    options.journal_dir = folder_.path() / "journal";
    options.journal_limit_bytes = 4 << 20;
    return std::make_shared<Recorder>(SessionInfo{make_uuid(), "test", 1, "{}"}, WriterInfo{},
                                      std::vector<std::shared_ptr<Sink>>{memory}, options);
  }
  testing::TemporaryFolder folder_;
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
};

struct Echo : Rubric {
  Score forward(const Value& action, const Value&) override { return {action.as<double>(), "echo"}; }
};
struct Fails : Rubric {
  Score forward(const Value&, const Value&) override { throw std::domain_error("broken here"); }
};

TEST_F(ObserverTest, OneSnapshotPerCallOfTheRoot) {
  auto root = std::make_shared<WeightedSum>(
      std::vector<RubricPtr>{std::make_shared<Gate>(std::make_shared<Echo>(), 0.5), std::make_shared<Echo>()},
      std::vector<double>{0.5, 0.5});
  const auto records = recorder();
  {
    RubricObserver observer(root, records);
    EXPECT_EQ((*root)(0.25, std::string("seen")), 0.125);
    EXPECT_EQ((*root)(1.0, 5), 1.0);
  }
  (*root)(1.0, 5);  // detached
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 2u);
  const Seen& first = memory->seen[0];
  EXPECT_EQ(first.scores,
            (std::map<std::string, double>{
                {"root", 0.125}, {"rubric_0", 0.0}, {"rubric_0.rubric", 0.25}, {"rubric_1", 0.25}}));
  EXPECT_EQ(first.action, "0.25");
  EXPECT_EQ(first.observation, "seen");
  EXPECT_EQ(first.explanations.at("rubric_0.rubric"), "echo");
  EXPECT_EQ(first.episode, "0");
  EXPECT_EQ(first.step, 0);
  EXPECT_EQ(memory->seen[1].step, 1);
  EXPECT_GE(first.root_duration, first.longest_child);
  records->close();
}

TEST_F(ObserverTest, AFailureLeavesFailedAndSkippedNodes) {
  auto root = std::make_shared<Sequential>(std::vector<RubricPtr>{
      std::make_shared<Echo>(), std::make_shared<Gate>(std::make_shared<Fails>()), std::make_shared<Echo>()});
  const auto records = recorder();
  RubricObserver observer(root, records);
  EXPECT_THROW((*root)(1.0, 0), std::domain_error);
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 1u);
  const Seen& seen = memory->seen[0];
  EXPECT_EQ(seen.statuses.at("rubric_0"), Status::scored);
  EXPECT_EQ(seen.statuses.at("rubric_1.rubric"), Status::failed);
  EXPECT_EQ(seen.statuses.at("rubric_1"), Status::failed);
  EXPECT_EQ(seen.statuses.at("rubric_2"), Status::skipped);
  EXPECT_EQ(seen.statuses.at("root"), Status::failed);
  EXPECT_EQ(seen.reasons.at("rubric_1.rubric"), "std::domain_error: broken here");
  EXPECT_EQ(current_context(), nullptr);
  records->close();
}

TEST_F(ObserverTest, ASharedChildIsListedUnderEveryPath) {
  const auto shared = std::make_shared<Echo>();
  auto root = std::make_shared<WeightedSum>(std::vector<RubricPtr>{shared, std::make_shared<Gate>(shared)},
                                            std::vector<double>{0.5, 0.5});
  const auto records = recorder();
  RubricObserver observer(root, records);
  (*root)(1.0, 0);
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 1u);
  EXPECT_EQ(memory->seen[0].scores.at("rubric_0"), 1.0);
  EXPECT_EQ(memory->seen[0].scores.at("rubric_1.rubric"), 1.0);
  records->close();
}

TEST_F(ObserverTest, AChangedTreeIsANewSchema) {
  struct Any : Rubric {
    Score forward(const Value& action, const Value& observation) override {
      double sum = 0;
      for (const auto& child : children())
        sum += static_cast<Rubric&>(*child.node)(action, observation).value;
      return sum;
    }
  };
  auto root = std::make_shared<Any>();
  root->add("a", std::make_shared<Echo>());
  const auto records = recorder();
  RubricObserver observer(root, records);
  (*root)(1.0, 0);
  root->add("b", std::make_shared<Echo>());
  (*root)(1.0, 0);
  root->remove("a");
  (*root)(1.0, 0);
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 3u);
  EXPECT_EQ(memory->seen[0].scores, (std::map<std::string, double>{{"root", 1}, {"a", 1}}));
  EXPECT_EQ(memory->seen[1].scores, (std::map<std::string, double>{{"root", 2}, {"a", 1}, {"b", 1}}));
  EXPECT_EQ(memory->seen[2].scores, (std::map<std::string, double>{{"root", 1}, {"b", 1}}));
  records->close();
}

TEST_F(ObserverTest, CallsFromOutsideTheRootAreCounted) {
  const auto leaf = std::make_shared<Echo>();
  auto root = std::make_shared<Gate>(leaf);
  const auto records = recorder();
  RubricObserver observer(root, records);
  (*leaf)(1.0, 0);
  EXPECT_EQ(records->stats().unattributed, 1u);
  EXPECT_EQ(records->stats().accepted, 0u);
  records->close();
}

TEST_F(ObserverTest, AnObservedSubtreeHasItsOwnSnapshots) {
  auto inner = std::make_shared<Gate>(std::make_shared<Echo>(), 0.0);
  auto outer = std::make_shared<Sequential>(std::vector<RubricPtr>{inner});
  const auto records = recorder();
  RubricObserver watches_outer(outer, records);
  RubricObserver watches_inner(inner, records);
  (*outer)(0.5, 0);
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 2u);
  EXPECT_EQ(memory->seen[0].scores, (std::map<std::string, double>{{"root", 0.5}, {"rubric", 0.5}}));
  EXPECT_EQ(memory->seen[1].scores,
            (std::map<std::string, double>{{"root", 0.5}, {"rubric_0", 0.5}, {"rubric_0.rubric", 0.5}}));
  records->close();
}

TEST_F(ObserverTest, ThreadsNeverMixTheirScores) {
  auto root = std::make_shared<WeightedSum>(
      std::vector<RubricPtr>{std::make_shared<Echo>(), std::make_shared<Gate>(std::make_shared<Echo>(), 0.0)},
      std::vector<double>{0.5, 0.5});
  const auto records = recorder();
  RubricObserver observer(root, records);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 250; ++i) (*root)(static_cast<double>(t * 1000 + i), 0);
    });
  }
  for (auto& thread : threads) thread.join();
  records->flush(10);
  ASSERT_EQ(memory->seen.size(), 2000u);
  for (const Seen& seen : memory->seen) {
    for (const auto& [path, score] : seen.scores) EXPECT_EQ(score, seen.scores.at("root")) << path;
    EXPECT_EQ(std::stod(seen.action), seen.scores.at("root"));
  }
  records->close();
}

}  // namespace
}  // namespace rubriscope
