// How a kernel uses threads: torch's own under the torch operators, the calling one elsewhere.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <type_traits>

namespace rubriscope::ops {

/// A pool of threads that kernels may use. Kernels never start threads of their own.
class Parallel {
 public:
  virtual ~Parallel() = default;

  /// The most workers that may run at once.
  virtual int threads() const = 0;

  /// Calls work(worker) for every worker in [0, workers), at most threads() at once; returns when all have.
  /// An exception of a worker is thrown here.
  template <class Work>
  void run(int workers, Work&& work) const {
    if (workers <= 1) {
      if (workers == 1) work(0);
      return;
    }
    using Function = std::remove_reference_t<Work>;
    run_workers(
        workers, [](void* data, int worker) { (*static_cast<Function*>(data))(worker); },
        const_cast<void*>(static_cast<const void*>(&work)));
  }

 protected:
  virtual void run_workers(int workers, void (*work)(void*, int), void* data) const = 0;
};

/// The calling thread alone.
const Parallel& serial();

/// What code without torch uses: torch's threads once the operators are loaded, the calling thread before.
const Parallel& default_parallel();
/// Sets it; `parallel` must live as long as the process.
void set_default_parallel(const Parallel& parallel);

/// Calls work(begin, end) for consecutive pieces of [0, count) of `piece` elements (the last may be shorter).
/// Pieces do not depend on the number of threads, so a result that is combined in piece order does not
/// either; whoever is free takes the next piece. As a third argument `work` may take the worker's number.
template <class Work>
void for_pieces(const Parallel& parallel, std::int64_t count, std::int64_t piece, Work&& work) {
  if (count <= 0) return;
  const std::int64_t pieces = (count + piece - 1) / piece;
  const int workers = static_cast<int>(std::min<std::int64_t>(pieces, parallel.threads()));
  std::atomic<std::int64_t> next{0};
  parallel.run(workers, [&](int worker) {
    for (;;) {
      const std::int64_t index = next.fetch_add(1, std::memory_order_relaxed);
      if (index >= pieces) return;
      const std::int64_t begin = index * piece;
      const std::int64_t end = std::min(begin + piece, count);
      if constexpr (std::is_invocable_v<Work&, std::int64_t, std::int64_t, int>) {
        work(begin, end, worker);
      } else {
        work(begin, end);
      }
    }
  });
}

}  // namespace rubriscope::ops
