#include "rubriscope/ops/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "rubriscope/ops/isa.h"

namespace rubriscope::ops {
namespace {

// A thread per worker, as any pool may behave.
class Threads final : public Parallel {
 public:
  explicit Threads(int count) : count_(count) {}
  int threads() const override { return count_; }

 protected:
  void run_workers(int workers, void (*work)(void*, int), void* data) const override {
    std::vector<std::thread> threads;
    for (int worker = 0; worker < workers; ++worker) threads.emplace_back(work, data, worker);
    for (auto& thread : threads) thread.join();
  }

 private:
  int count_;
};

TEST(Parallel, PiecesCoverTheRangeOnceWhateverTheThreads) {
  for (const std::int64_t count : {0, 1, 7, 8, 9, 1000}) {
    std::vector<std::pair<std::int64_t, std::int64_t>> alone;
    for_pieces(serial(), count, 8,
               [&](std::int64_t begin, std::int64_t end) { alone.emplace_back(begin, end); });
    std::int64_t next = 0;
    for (const auto& [begin, end] : alone) {
      EXPECT_EQ(begin, next);
      EXPECT_GT(end, begin);
      next = end;
    }
    EXPECT_EQ(next, count);
    std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
    std::atomic<std::int64_t> pieces{0};
    for_pieces(Threads(4), count, 8, [&](std::int64_t begin, std::int64_t end, int worker) {
      EXPECT_LT(worker, 4);
      pieces.fetch_add(1);
      for (std::int64_t i = begin; i < end; ++i) seen[static_cast<std::size_t>(i)].fetch_add(1);
    });
    EXPECT_EQ(pieces.load(), static_cast<std::int64_t>(alone.size()));
    for (const auto& times : seen) EXPECT_EQ(times.load(), 1);
  }
}

TEST(Parallel, AnExceptionReachesTheCaller) {
  EXPECT_THROW(for_pieces(serial(), 3, 1,
                          [](std::int64_t begin, std::int64_t) {
                            if (begin == 1) throw std::runtime_error("one");
                          }),
               std::runtime_error);
}

TEST(Isa, HasANameThatTheVariableTakes) {
  const std::string name = isa_name();
  EXPECT_TRUE(name == "baseline" || name == "avx2" || name == "avx512") << name;
}

}  // namespace
}  // namespace rubriscope::ops
