// Leaving in order: SIGTERM (a cluster's warning), SIGUSR1 (which mpirun hands on to all its
// ranks), SIGINT (Ctrl-C) and SIGHUP (the terminal went, unless nohup said that it may) ask the
// training loop to save and stop; the loop looks at the flag between steps. A second signal ends
// the process at once.
#pragma once

#include <string_view>

namespace lectern {

/// Installs the handlers. Also ignores SIGXFSZ and SIGPIPE, so that a file-size limit or a closed
/// pipe becomes an error of the write instead of the end of the process.
void install_signal_handlers();

/// What the handler says of this process when a signal comes, such as "rank 1 on node7, step 12: ";
/// cut to 200 bytes.
void set_signal_note(std::string_view note);

/// The signal that asked to stop, 0 when none did.
int stop_signal();
inline bool stop_requested() { return stop_signal() != 0; }

/// Forgets the request (tests).
void clear_stop_request();

}  // namespace lectern
