// What needs no server; the rest is in tests/python, with a real one.
#include "rubriscope/sinks/postgres/libpq.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include "rubriscope/core/errors.h"

namespace rubriscope::postgres {
namespace {

TEST(LibpqTest, AFunctionThatIsNotThereIsNamed) {
  void* const library = dlopen("libm.so.6", RTLD_NOW);
  ASSERT_NE(library, nullptr);
  try {
    Libpq::load(library);
    FAIL();
  } catch (const SinkError& error) {
    EXPECT_FALSE(error.transient);
    EXPECT_NE(std::string(error.what()).find("PQsendQuery"), std::string::npos) << error.what();
  }
  dlclose(library);
}

}  // namespace
}  // namespace rubriscope::postgres
