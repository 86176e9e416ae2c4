#include "recipes/machine/interrupt.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

namespace lectern {
namespace {

int status_of(void (*child)()) {
  const pid_t pid = fork();
  if (pid == 0) {
    child();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return status;
}

TEST(Interrupt, FirstSignalOnlySetsTheFlag) {
  const int status = status_of([] {
    install_signal_handlers();
    if (stop_requested()) _exit(10);
    raise(SIGTERM);
    _exit(stop_signal() == SIGTERM ? 42 : 11);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

TEST(Interrupt, SecondSignalEndsTheProcess) {
  const int status = status_of([] {
    install_signal_handlers();
    raise(SIGINT);
    raise(SIGINT);
    _exit(0);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGINT);
}

TEST(Interrupt, FileSizeLimitIsAnErrorOfTheWrite) {
  const int status = status_of([] {
    install_signal_handlers();
    rlimit limit{16, 16};
    setrlimit(RLIMIT_FSIZE, &limit);
    char name[] = "/tmp/lectern-limit-XXXXXX";
    const int file = mkstemp(name);
    unlink(name);
    char bytes[64] = {};
    const bool short_write = write(file, bytes, sizeof bytes) == 16;
    _exit(short_write && write(file, bytes, sizeof bytes) < 0 ? 42 : 1);
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
}

}  // namespace
}  // namespace lectern
