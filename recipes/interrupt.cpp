#include "recipes/interrupt.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

namespace lectern {
namespace {

volatile std::sig_atomic_t received = 0;

// Only calls that POSIX allows in a handler.
void on_signal(int signal) {
  if (received != 0) _exit(128 + signal);
  received = signal;
  static constexpr char kMessage[] =
      "\nlectern: stopping after this step; a second signal stops at once\n";
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, kMessage, sizeof kMessage - 1);
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &action, nullptr);
  sigaction(SIGPIPE, &action, nullptr);
}

int stop_signal() { return received; }
void clear_stop_request() { received = 0; }

}  // namespace lectern
