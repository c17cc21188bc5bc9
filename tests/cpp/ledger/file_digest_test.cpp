#include "rubriscope/ledger/file_digest.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "rubriscope/core/errors.h"
#include "support/temporary_folder.h"

namespace rubriscope::ledger {
namespace {

using testing::TemporaryFolder;

std::filesystem::path file_with(const TemporaryFolder& folder, const std::string& content) {
  const std::filesystem::path path = folder.path() / "file";
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

// FIPS 180-4's examples.
TEST(FileDigest, IsTheSha256OfTheBytes) {
  TemporaryFolder folder;
  FileDigest digest = digest_file(file_with(folder, ""));
  EXPECT_EQ(digest.bytes, 0u);
  EXPECT_EQ(to_hex(digest.sha256), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  digest = digest_file(file_with(folder, "abc"));
  EXPECT_EQ(digest.bytes, 3u);
  EXPECT_EQ(to_hex(digest.sha256), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  digest = digest_file(file_with(folder, std::string(1'000'000, 'a')));
  EXPECT_EQ(to_hex(digest.sha256), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(FileDigest, SaysHowFarItIsAndCanBeStopped) {
  TemporaryFolder folder;
  const auto path = file_with(folder, std::string((std::size_t{130} << 20), 'x'));
  std::vector<std::uint64_t> seen;
  digest_file(path, [&](std::uint64_t bytes) { seen.push_back(bytes); });
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{64 << 20, 128 << 20}));
  EXPECT_THROW(digest_file(path, [](std::uint64_t) { throw std::runtime_error("stop"); }),
               std::runtime_error);
}

TEST(FileDigest, WhatIsNoFileIsAnError) {
  TemporaryFolder folder;
  const auto code_of = [](const std::filesystem::path& path) {
    try {
      digest_file(path);
    } catch (const SystemError& error) {
      return error.code;
    }
    return 0;
  };
  EXPECT_EQ(code_of(folder.path() / "nothing"), ENOENT);
  EXPECT_EQ(code_of(folder.path()), EISDIR);
  ASSERT_EQ(::mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(code_of(folder.path() / "pipe"), EINVAL);
}

}  // namespace
}  // namespace rubriscope::ledger
