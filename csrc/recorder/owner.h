// Who owns a writer's folder: a living process holds an fcntl lock on its owner.lock.
//
// POSIX drops a process's locks on a file when it closes any descriptor of that file, so a process never
// opens an owner.lock of its own a second time: it keeps a list of the folders it owns.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "rubriscope/recorder/file.h"

namespace rubriscope {

/// Ownership of one folder. Move-only; gives the lock up when destroyed.
class Ownership {
 public:
  /// Takes a folder nobody owns; nullopt when somebody does, this process included, or when it has vanished.
  /// Throws SystemError when it cannot tell.
  static std::optional<Ownership> take(const std::filesystem::path& folder);

  /// Whether a living process owns the folder. Throws SystemError.
  static bool is_owned(const std::filesystem::path& folder);

  Ownership(Ownership&& other) noexcept;
  Ownership& operator=(Ownership&& other) noexcept;
  ~Ownership() { release(); }

  void release() noexcept;

  /// In a forked child: the lock is the parent's.
  void abandon_after_fork() noexcept;

 private:
  struct Key {
    std::uint64_t device{};
    std::uint64_t inode{};
    bool operator==(const Key&) const = default;
  };
  struct Registry;
  static Registry& registry();

  friend struct OwnershipForkHandlers;

  Ownership(Key key, File lock) : key_(key), lock_(std::move(lock)), held_(true) {}

  Key key_;
  File lock_;
  bool held_{false};
};

/// The list of owned folders must not be in the middle of a change when the process forks; a child owns none.
struct OwnershipForkHandlers {
  static void prepare();
  static void parent();
  static void child();
};

}  // namespace rubriscope
