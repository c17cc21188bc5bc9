#include "rubriscope/ops/torch/tensors.h"

namespace rubriscope::ops {

namespace {

class TorchThreads final : public Parallel {
 public:
  int threads() const override { return static_cast<int>(torch::stable::get_num_threads()); }

 protected:
  void run_workers(int workers, void (*work)(void*, int), void* data) const override {
    torch::stable::parallel_for(0, workers, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t worker = begin; worker < end; ++worker) work(data, static_cast<int>(worker));
    });
  }
};

}  // namespace

const Parallel& torch_threads() {
  static const TorchThreads pool;
  return pool;
}

namespace {
[[maybe_unused]] const bool g_is_default = (set_default_parallel(torch_threads()), true);
}

}  // namespace rubriscope::ops
