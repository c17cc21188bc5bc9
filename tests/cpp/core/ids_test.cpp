// UUIDs and system errors.
#include "rubriscope/core/ids.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <regex>
#include <set>

#include "rubriscope/core/errors.h"

namespace rubriscope {
namespace {

TEST(Ids, AUuidIsOfVersionFourAndNeverTheSame) {
  const std::regex shape("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}");
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string uuid = make_uuid();
    ASSERT_TRUE(std::regex_match(uuid, shape)) << uuid;
    seen.insert(uuid);
  }
  EXPECT_EQ(seen.size(), 1000u);
}

TEST(Errors, ASystemErrorNamesWhatFailedAndWhereAndWhy) {
  const SystemError error(ENOSPC, "cannot write", "/some/file");
  EXPECT_STREQ(error.what(), "cannot write: /some/file: No space left on device");
  EXPECT_EQ(error.code, ENOSPC);
  EXPECT_EQ(error.path, "/some/file");
  EXPECT_STREQ(SystemError(EACCES, "cannot lock").what(), "cannot lock: Permission denied");
}

}  // namespace
}  // namespace rubriscope
