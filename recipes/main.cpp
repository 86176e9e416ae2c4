// build/lectern: parses the command line, runs one command, turns exceptions into one line.
#include "core/error.h"
#include "core/notice.h"
#include "recipes/commands/command.h"
#include "recipes/machine/versions.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <string_view>

namespace {

int fail_with(std::string message) {
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "lectern: %s\n", message.c_str());
  return 1;
}

/// Every rank meets what there is to note, and one of them says it.
void note_on_one_rank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"}) {
    const char* rank = std::getenv(name);
    if (rank == nullptr) continue;
    if (std::string_view(rank) != "0") lectern::set_notice_sink({});
    return;
  }
}

/// A file that is opened while stdout or stderr is closed would get its number, and what is meant
/// for the screen with it.
void keep_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0) ::open("/dev/null", O_RDWR);  // gives the lowest number
}

/// Threads that wait for each other spin first. By default they spin so long that a second program
/// on the machine makes every parallel loop wait for a time slice (measured: a training step
/// several times slower beside compilers). libgomp reads its limit before main, so the program
/// starts itself over once with a shorter one, unless the user has chosen.
void bound_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  ::setenv("GOMP_SPINCOUNT", "20000", 1);
  ::execv("/proc/self/exe", argv);  // returns only when that cannot be done: then go on as we are
}

/// What operator new throws when the system gives no more: without it a user would read
/// "std::bad_alloc".
class OutOfMemory : public std::bad_alloc {
 public:
  const char* what() const noexcept override { return "out of memory: the system refused more"; }
};

/// malloc takes 128 MiB of address space for each thread's arena, if only for a moment: under a
/// limit of that (ulimit -v) the moment is enough for others to get nothing.
void share_little_memory() {
  std::set_new_handler([] { throw OutOfMemory(); });
  rlimit space{};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
    ::mallopt(M_ARENA_MAX, 1);
}

}  // namespace

int main(int argc, char** argv) {
  keep_standard_streams();
  bound_spinning(argv);
  share_little_memory();
  note_on_one_rank();
  lectern::commands::CommandLine line(
      "lectern", "lectern trains, evaluates and exports optical-compression OCR models",
      fmt::format("lectern {} ({})", lectern::kVersion, lectern::git_revision()));
  line.root().require_subcommand();
  lectern::commands::add_all(line.root());
  try {
    if (const auto status = line.run(argc, argv)) return *status;
  } catch (const lectern::commands::AlreadyTold& told) {
    return told.status;
  } catch (const std::exception& error) {
    return fail_with(error.what());
  }
  // Output that a full disk or a closed pipe swallowed is no success.
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
    return fail_with("cannot write to stdout");
  return 0;
}
