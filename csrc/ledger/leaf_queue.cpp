#include "rubriscope/ledger/leaf_queue.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace rubriscope::ledger {

LeafQueue::~LeafQueue() { stop(); }

void LeafQueue::add(Bytes entry, std::uint64_t place) {
  if (!open_) {
    const std::lock_guard lock(mutex_);
    if (spare_.empty()) {
      open_ = std::make_unique<Piece>();
    } else {
      open_ = std::move(spare_.back());
      spare_.pop_back();
    }
    open_->whole = place % kTileWidth == 0;
  }
  Piece& piece = *open_;
  piece.messages.push_back(kLeafPrefix);
  piece.messages.insert(piece.messages.end(), entry.begin(), entry.end());
  piece.ends.push_back(piece.messages.size());
  const bool tile_ends = (place + 1) % kTileWidth == 0;
  if (!tile_ends && piece.messages.size() < kPieceBytes) return;
  piece.whole = piece.whole && tile_ends;
  publish();
}

void LeafQueue::publish() {
  std::unique_lock lock(mutex_);
  pieces_.push_back(std::move(open_));
  if (pieces_.size() == 2) start();
  changed_.notify_one();
  while (pieces_.size() - next_ > kAhead && hash_next(lock, hasher_)) {
  }
}

void LeafQueue::start() {
  if (std::thread::hardware_concurrency() < 2) return;
  // Signals are for the program's threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {
    // No more threads may be had: the caller hashes all.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void LeafQueue::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
  ending_ = false;
}

void LeafQueue::work() {
  pthread_setname_np(pthread_self(), "rubriscope-hash");
  // It interrupts none of the program's threads when there is something to do. Not a lower priority: on a
  // busy machine the caller would wait long for the piece that this thread has begun.
  const sched_param none{};
  pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
  std::unique_lock lock(mutex_);
  try {
    Hasher hasher;
    for (;;) {
      changed_.wait(lock, [&] { return ending_ || next_ < pieces_.size(); });
      if (ending_) return;
      hash_next(lock, hasher);
    }
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    error_ = std::current_exception();
    changed_.notify_all();
  }
}

bool LeafQueue::hash_next(std::unique_lock<std::mutex>& lock, Hasher& hasher) {
  if (next_ == pieces_.size()) return false;
  Piece& piece = *pieces_[next_++];
  lock.unlock();
  std::size_t begin = 0;
  piece.hashes.clear();
  piece.hashes.reserve(piece.ends.size());
  for (const std::size_t end : piece.ends) {
    piece.hashes.push_back(hasher.plain(Bytes(piece.messages).subspan(begin, end - begin)));
    begin = end;
  }
  if (piece.whole) piece.root = subtree_root(piece.hashes.data(), kTileHeight, hasher);
  // The buffers go on to the next piece; what is kept until the end is the hashes.
  auto emptied = std::make_unique<Piece>();
  emptied->messages = std::exchange(piece.messages, {});
  emptied->ends = std::exchange(piece.ends, {});
  emptied->messages.clear();
  emptied->ends.clear();
  lock.lock();
  if (emptied->messages.capacity() <= 2 * kPieceBytes) spare_.push_back(std::move(emptied));
  piece.done = true;
  changed_.notify_all();
  return true;
}

void LeafQueue::append_to(LogTail& tail) {
  if (open_) {
    const std::lock_guard lock(mutex_);
    open_->whole = false;
    pieces_.push_back(std::move(open_));
  }
  {
    std::unique_lock lock(mutex_);
    while (hash_next(lock, hasher_)) {
    }
    changed_.wait(lock, [&] {
      return error_ ||
             std::all_of(pieces_.begin(), pieces_.end(), [](const auto& piece) { return piece->done; });
    });
  }
  stop();
  const auto pieces = std::exchange(pieces_, {});
  next_ = 0;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  for (const std::unique_ptr<Piece>& piece : pieces) {
    if (piece->root) {
      tail.append_tile(std::move(piece->hashes), *piece->root);
    } else {
      for (const Hash& hash : piece->hashes) tail.append_hash(hash);
    }
  }
}

}  // namespace rubriscope::ledger
