#include "rubriscope/ops/parallel.h"

namespace rubriscope::ops {

namespace {

class Serial final : public Parallel {
 public:
  int threads() const override { return 1; }

 protected:
  void run_workers(int workers, void (*work)(void*, int), void* data) const override {
    for (int worker = 0; worker < workers; ++worker) work(data, worker);
  }
};

std::atomic<const Parallel*> g_default{nullptr};

}  // namespace

const Parallel& serial() {
  static const Serial pool;
  return pool;
}

const Parallel& default_parallel() {
  const Parallel* const parallel = g_default.load(std::memory_order_acquire);
  return parallel != nullptr ? *parallel : serial();
}

void set_default_parallel(const Parallel& parallel) { g_default.store(&parallel, std::memory_order_release); }

}  // namespace rubriscope::ops
