// The short crash campaign: a recording process killed at random times. tests/crash/campaign.py is the long
// one.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <random>

#include "recorder/testing.h"

namespace rubriscope {
namespace {

using namespace rubriscope::testing;

#ifdef RUBRISCOPE_TEST_PROGRAMS

/// Starts crash_child_main in a process group of its own.
pid_t start(const std::vector<std::string>& arguments) {
  std::fflush(stdout);  // or the child would print it again
  const pid_t child = ::fork();
  if (child != 0) return child;
  ::setpgid(0, 0);
  const std::string program = std::string(RUBRISCOPE_TEST_PROGRAMS) + "/crash_child_main";
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  if (::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(126);
  ::execv(program.c_str(), argv.data());
  ::_exit(127);
}

int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

/// Kills the process and what it forked, and waits until all are gone: a dying one may still hold its lock.
void kill_group(pid_t child) {
  ::setpgid(child, child);  // in case the child has not come so far
  ::kill(-child, SIGKILL);
  while (::waitpid(-child, nullptr, 0) > 0) {
  }
}

TEST(RandomKill, NothingAcceptedIsLostOrComesTwice) {
  // Orphans of a killed process come to this one, which waits for them.
  ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  const unsigned first_seed = std::random_device{}();
  for (unsigned round = 0; round < 15; ++round) {
    const unsigned seed = (first_seed + round) & 0x7fffffff;
    SCOPED_TRACE("seed " + std::to_string(seed));
    TemporaryFolder folder;
    std::mt19937 random(seed);
    const pid_t recording = start({"record", folder.path(), std::to_string(seed)});
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 150));
    ASSERT_EQ(::waitpid(recording, nullptr, WNOHANG), 0) << "the recording process ended by itself";
    kill_group(recording);
    if (random() % 3 == 0) {
      const pid_t recovery = start({"recover", folder.path()});
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 15));
      kill_group(recovery);
    }
    ASSERT_EQ(wait_for(start({"recover", folder.path()})), 0);
    ASSERT_EQ(wait_for(start({"check", folder.path()})), 0);
  }
}

#endif

}  // namespace
}  // namespace rubriscope
