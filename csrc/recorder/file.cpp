#include "rubriscope/recorder/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "rubriscope/core/errors.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace rubriscope {

File File::open(const std::filesystem::path& path, int flags) {
  for (;;) {
    const int descriptor = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
    if (descriptor >= 0) return File(descriptor);
    if (errno != EINTR) throw SystemError(errno, "cannot open", path);
  }
}

void File::close() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void File::append(const void* data, std::size_t bytes, const std::filesystem::path& path) {
  const auto* at = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, at, bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw SystemError(errno, "cannot write", path);
    }
    at += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

FileBytes read_file(const std::filesystem::path& path, std::size_t most) {
  const File file = File::open(path, O_RDONLY);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw SystemError(errno, "cannot read the size of", path);
  const std::size_t size = std::min(static_cast<std::size_t>(status.st_size), most);
  FileBytes content;
  content.words.resize((size + 7) / 8);
  auto* const to = reinterpret_cast<std::byte*>(content.words.data());
  while (content.bytes < size) {
    const ssize_t got =
        ::pread(file.get(), to + content.bytes, size - content.bytes, static_cast<off_t>(content.bytes));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw SystemError(errno, "cannot read", path);
    }
    if (got == 0) break;
    content.bytes += static_cast<std::size_t>(got);
  }
  return content;
}

Mapping Mapping::map(int descriptor, const std::filesystem::path& path, std::size_t bytes) {
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (at == MAP_FAILED) throw SystemError(errno, "cannot map", path);
  Mapping mapping;
  mapping.data_ = static_cast<std::byte*>(at);
  mapping.bytes_ = bytes;
  if (::madvise(at, bytes, MADV_DONTFORK) != 0) {
    throw SystemError(errno, "cannot keep the map from forked children", path);
  }
  return mapping;
}

Mapping Mapping::create(const std::filesystem::path& path, std::size_t bytes) {
  const File file = File::open(path, O_RDWR | O_CREAT | O_EXCL);
  try {
    int error;
    do {
      error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes));
    } while (error == EINTR);
    if (error != 0) {
      throw SystemError(error, "cannot allocate " + std::to_string(bytes) + " bytes for the journal", path);
    }
    Mapping mapping = map(file.get(), path, bytes);
    if (::madvise(mapping.data(), bytes, MADV_POPULATE_WRITE) != 0) {
      // Kernels before 5.14: touch each page instead.
      for (std::size_t at = 0; at < bytes; at += 4096) {
        *reinterpret_cast<volatile std::byte*>(mapping.data() + at) = std::byte{0};
      }
    }
    return mapping;
  } catch (...) {
    ::unlink(path.c_str());
    throw;
  }
}

Mapping Mapping::open(const std::filesystem::path& path, std::size_t bytes) {
  const File file = File::open(path, O_RDWR);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw SystemError(errno, "cannot read the size of", path);
  if (static_cast<std::size_t>(status.st_size) < bytes) {
    throw FormatError(path.string() + ": " + std::to_string(status.st_size) + " bytes, expected at least " +
                      std::to_string(bytes));
  }
  return map(file.get(), path, bytes);
}

void Mapping::unmap() noexcept {
  if (data_ != nullptr) ::munmap(std::exchange(data_, nullptr), std::exchange(bytes_, 0));
}

void rename_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw SystemError(errno, "cannot rename to " + to.string(), from);
  }
}

void remove_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw SystemError(errno, "cannot remove", path);
}

}  // namespace rubriscope
