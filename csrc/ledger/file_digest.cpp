#include "rubriscope/ledger/file_digest.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "rubriscope/core/errors.h"
#include "rubriscope/recorder/file.h"

namespace rubriscope::ledger {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;
constexpr std::uint64_t kBetweenReports = std::uint64_t{64} << 20;

}  // namespace

FileDigest digest_file(const std::filesystem::path& path,
                       const std::function<void(std::uint64_t)>& progress) {
  // Without O_NONBLOCK a pipe that nobody writes to would be waited for.
  const File file = File::open(path, O_RDONLY | O_NONBLOCK);
  struct stat info{};
  if (::fstat(file.get(), &info) != 0) throw SystemError(errno, "Reading", path.string());
  if (S_ISDIR(info.st_mode)) throw SystemError(EISDIR, "Reading", path.string());
  if (!S_ISREG(info.st_mode)) throw SystemError(EINVAL, "Reading what is no file", path.string());
  ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_SEQUENTIAL);

  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> state(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
  if (state == nullptr || EVP_DigestInit_ex(state.get(), EVP_sha256(), nullptr) != 1) {
    throw Error("OpenSSL has no SHA-256 here");
  }
  FileDigest digest{};
  std::vector<std::uint8_t> piece(kPiece);
  std::uint64_t next_report = kBetweenReports;
  while (true) {
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw SystemError(errno, "Reading", path.string());
    if (got == 0) break;
    if (EVP_DigestUpdate(state.get(), piece.data(), static_cast<std::size_t>(got)) != 1) {
      throw Error("OpenSSL failed to compute a SHA-256");
    }
    digest.bytes += static_cast<std::uint64_t>(got);
    if (progress && digest.bytes >= next_report) {
      next_report = digest.bytes + kBetweenReports;
      progress(digest.bytes);
    }
  }
  if (EVP_DigestFinal_ex(state.get(), digest.sha256.data(), nullptr) != 1) {
    throw Error("OpenSSL failed to compute a SHA-256");
  }
  return digest;
}

}  // namespace rubriscope::ledger
