// A file descriptor with an owner, and the few file operations the journal needs; errors become SystemError.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

namespace rubriscope {

/// An open file. Move-only; closes what it owns.
class File {
 public:
  File() = default;
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() { close(); }
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  File& operator=(File&& other) noexcept {
    if (this != &other) {
      close();
      descriptor_ = std::exchange(other.descriptor_, -1);
    }
    return *this;
  }

  /// Opens with O_CLOEXEC. Throws SystemError.
  static File open(const std::filesystem::path& path, int flags);

  int get() const { return descriptor_; }
  explicit operator bool() const { return descriptor_ >= 0; }
  void close() noexcept;

  /// Appends all bytes. Throws SystemError.
  void append(const void* data, std::size_t bytes, const std::filesystem::path& path);

 private:
  int descriptor_{-1};
};

/// A file's bytes at 8-byte alignment; `bytes` may be less than the words hold.
struct FileBytes {
  std::vector<std::uint64_t> words;
  std::size_t bytes{};
  const std::byte* data() const { return reinterpret_cast<const std::byte*>(words.data()); }
};

/// Reads a file's first `most` bytes. Throws SystemError.
FileBytes read_file(const std::filesystem::path& path, std::size_t most = ~std::size_t{0});

/// Memory shared with a file. Not inherited by a forked child.
class Mapping {
 public:
  Mapping() = default;
  ~Mapping() { unmap(); }
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      unmap();
      data_ = std::exchange(other.data_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }

  /// Makes a new file of `bytes` with its blocks allocated (a hole on a full disk would be a SIGBUS later),
  /// maps it and touches its pages. Removes the file again when it fails. Throws SystemError.
  static Mapping create(const std::filesystem::path& path, std::size_t bytes);

  /// Maps an existing file of at least `bytes`. Throws SystemError.
  static Mapping open(const std::filesystem::path& path, std::size_t bytes);

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  void unmap() noexcept;

 private:
  static Mapping map(int descriptor, const std::filesystem::path& path, std::size_t bytes);

  std::byte* data_{};
  std::size_t bytes_{};
};

/// rename(2). Throws SystemError.
void rename_file(const std::filesystem::path& from, const std::filesystem::path& to);

/// unlink(2); a file that is not there is fine. Throws SystemError.
void remove_file(const std::filesystem::path& path);

}  // namespace rubriscope
