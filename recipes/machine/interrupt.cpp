#include "recipes/machine/interrupt.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstring>

namespace lectern {
namespace {

volatile std::sig_atomic_t received_signal = 0;

// Two notes in turn: the handler never sees one that is being written.
std::array<std::array<char, 201>, 2> notes{};
std::atomic<const char*> note{""};
static_assert(std::atomic<const char*>::is_always_lock_free);

void say(const char* text) {
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, text, std::strlen(text));
}

// Only calls that POSIX allows in a handler.
void on_signal(int signal) {
  if (received_signal != 0) _exit(128 + signal);
  received_signal = signal;
  say("\nlectern: ");
  say(note.load());
  say("stopping after this step; a second signal stops at once\n");
}

}  // namespace

void install_signal_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGUSR1, &action, nullptr);
  struct sigaction before {};
  // Who started us with nohup does not want the end of the terminal to be the run's.
  if (sigaction(SIGHUP, nullptr, &before) == 0 && before.sa_handler != SIG_IGN)
    sigaction(SIGHUP, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGXFSZ, &action, nullptr);
  sigaction(SIGPIPE, &action, nullptr);
}

void set_signal_note(std::string_view text) {
  auto& free = note.load() == notes[0].data() ? notes[1] : notes[0];
  const std::size_t length = std::min(text.size(), free.size() - 1);
  std::copy_n(text.data(), length, free.data());
  free[length] = 0;
  note.store(free.data());
}

int stop_signal() { return received_signal; }
void clear_stop_request() { received_signal = 0; }

}  // namespace lectern
