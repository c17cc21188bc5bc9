#include "rubriscope/recorder/report.h"

#include <atomic>
#include <cstdio>
#include <exception>
#include <memory>
#include <mutex>
#include <vector>

namespace rubriscope {

namespace {

void print(std::string_view level, std::string_view message) {
  std::fprintf(stderr, "rubriscope: %.*s: %.*s\n", static_cast<int>(level.size()), level.data(),
               static_cast<int>(message.size()), message.data());
}

// Read without a lock, so that a report right after a fork cannot hang; replaced ones are kept for readers
// that still hold them.
std::atomic<const Report*> g_report{nullptr};

}  // namespace

void set_report(Report new_report) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<std::unique_ptr<const Report>>;
  const std::lock_guard lock(mutex);
  const Report* installed = nullptr;
  if (new_report) {
    kept->push_back(std::make_unique<const Report>(std::move(new_report)));
    installed = kept->back().get();
  }
  g_report.store(installed, std::memory_order_release);
}

void report(std::string_view level, std::string_view message) noexcept {
  const Report* const installed = g_report.load(std::memory_order_acquire);
  if (installed == nullptr) {
    print(level, message);
    return;
  }
  try {
    (*installed)(level, message);
  } catch (const std::exception& error) {
    print(level, message);
    print("error", error.what());
  } catch (...) {
    print(level, message);
  }
}

}  // namespace rubriscope
