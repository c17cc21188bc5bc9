// What a call's workers found out, waiting for the next call.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace rubriscope::ops::stencil {

/// Workers of a program. Their taps' weights hold scalars, which may differ from call to call.
template <class Worker, class T>
class Waiting {
 public:
  struct Kept {
    std::vector<T> scalars;
    double scale;
    std::unique_ptr<Worker> worker;
  };

  /// One of these scalars and scale, from `make(scalars)` where none waits.
  template <class Make>
  Kept take(const std::vector<T>& scalars, double scale, Make&& make) {
    {
      const std::lock_guard lock(mutex_);
      for (Kept& one : kept_) {
        if (one.scalars != scalars || one.scale != scale) continue;
        std::swap(one, kept_.back());
        Kept found = std::move(kept_.back());
        kept_.pop_back();
        return found;
      }
    }
    Kept made{scalars, scale, nullptr};
    made.worker = make(made.scalars.data());
    return made;
  }

  /// At most `most` wait; the oldest go.
  void give(std::vector<Kept>& workers, int most) {
    const std::lock_guard lock(mutex_);
    for (Kept& one : workers) {
      if (one.worker != nullptr) kept_.push_back(std::move(one));
    }
    const auto count = static_cast<std::int64_t>(kept_.size());
    if (count > most) kept_.erase(kept_.begin(), kept_.begin() + (count - most));
  }

 private:
  std::mutex mutex_;
  std::vector<Kept> kept_;
};

}  // namespace rubriscope::ops::stencil
