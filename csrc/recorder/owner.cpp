#include "rubriscope/recorder/owner.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "rubriscope/core/errors.h"

namespace rubriscope {

struct Ownership::Registry {
  std::mutex mutex;
  std::vector<Key> owned;
};

Ownership::Registry& Ownership::registry() {
  static auto* const instance = new Registry;  // never destroyed: threads may outlive static destruction
  return *instance;
}

std::optional<Ownership> Ownership::take(const std::filesystem::path& folder) {
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  struct stat status;
  if (::stat(folder.c_str(), &status) != 0) {
    if (errno == ENOENT) return std::nullopt;
    throw SystemError(errno, "cannot look at", folder);
  }
  const Key key{status.st_dev, status.st_ino};
  if (std::find(all.owned.begin(), all.owned.end(), key) != all.owned.end()) return std::nullopt;

  const std::filesystem::path path = folder / "owner.lock";
  File file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    throw SystemError(errno, "cannot open", path);
  }
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) return std::nullopt;
    throw SystemError(errno, "cannot lock", path);
  }
  // Another process may have finished with the folder between open and lock: then this is a removed file.
  struct stat held, named;
  if (::fstat(file.get(), &held) != 0) throw SystemError(errno, "cannot look at", path);
  if (::stat(path.c_str(), &named) != 0 || held.st_ino != named.st_ino || held.st_dev != named.st_dev) {
    return std::nullopt;
  }
  all.owned.push_back(key);
  return Ownership(key, std::move(file));
}

bool Ownership::is_owned(const std::filesystem::path& folder) {
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  struct stat status;
  if (::stat(folder.c_str(), &status) != 0) {
    if (errno == ENOENT) return false;
    throw SystemError(errno, "cannot look at", folder);
  }
  if (std::find(all.owned.begin(), all.owned.end(), Key{status.st_dev, status.st_ino}) != all.owned.end()) {
    return true;
  }
  const std::filesystem::path path = folder / "owner.lock";
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return false;
    throw SystemError(errno, "cannot open", path);
  }
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(file.get(), F_GETLK, &lock) != 0) throw SystemError(errno, "cannot ask for the lock of", path);
  return lock.l_type != F_UNLCK;
}

Ownership::Ownership(Ownership&& other) noexcept
    : key_(other.key_), lock_(std::move(other.lock_)), held_(std::exchange(other.held_, false)) {}

Ownership& Ownership::operator=(Ownership&& other) noexcept {
  if (this != &other) {
    release();
    key_ = other.key_;
    lock_ = std::move(other.lock_);
    held_ = std::exchange(other.held_, false);
  }
  return *this;
}

void Ownership::release() noexcept {
  if (!held_) return;
  held_ = false;
  Registry& all = registry();
  const std::lock_guard guard(all.mutex);
  std::erase(all.owned, key_);
  lock_.close();
}

void Ownership::abandon_after_fork() noexcept {
  held_ = false;
  lock_.close();  // locks belong to a process: this drops none of the parent's
}

void OwnershipForkHandlers::prepare() { Ownership::registry().mutex.lock(); }
void OwnershipForkHandlers::parent() { Ownership::registry().mutex.unlock(); }
void OwnershipForkHandlers::child() {
  Ownership::registry().owned.clear();
  Ownership::registry().mutex.unlock();
}

}  // namespace rubriscope
