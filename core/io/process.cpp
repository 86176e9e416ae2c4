#include "core/io/process.h"

#include "core/error.h"
#include "core/io/descriptor.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

namespace lectern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxErrors = std::size_t{64} << 10;

struct Pipe {
  Descriptor read, write;
  explicit Pipe(const std::string& program) {
    int ends[2];
    // Close-on-exec: a child that another thread starts now must not hold our pipe open.
    if (::pipe2(ends, O_CLOEXEC) != 0)
      fail<IoError>(fmt::format("{}: no pipe: {}", program, std::strerror(errno)));
    read.reset(ends[0]);
    write.reset(ends[1]);
  }
};

std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  while (!rest.empty()) {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    const std::string candidate = std::string(rest.substr(0, colon)) + "/" + name;
    if (colon > 0 && ::access(candidate.c_str(), X_OK) == 0) return candidate;
    rest.remove_prefix(std::min(colon + 1, rest.size()));
  }
  fail<IoError>(
      fmt::format("{}: program not found in PATH\nhint: scripts/install-deps.sh installs "
                  "what lectern calls",
                  name));
}

/// After fork, in the child: only calls that are safe beside other threads' locks.
[[noreturn]] void become(const char* program, char* const* argv, const ProcessLimits& limits,
                         int output, int errors, int failure, pid_t parent) {
  const auto limit = [](int what, std::uint64_t value) {
    const rlimit both{value, value};
    ::setrlimit(static_cast<__rlimit_resource_t>(what), &both);
  };
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  limit(RLIMIT_AS, limits.memory_bytes);
  limit(RLIMIT_CPU, static_cast<std::uint64_t>(std::ceil(limits.seconds)) + 1);
  limit(RLIMIT_CORE, 0);
  const int null = ::open("/dev/null", O_RDONLY);
  if (null >= 0 && ::dup2(null, 0) >= 0 && ::dup2(output, 1) >= 0 && ::dup2(errors, 2) >= 0)
    ::execv(program, argv);
  const int code = errno;
  [[maybe_unused]] const ssize_t told = ::write(failure, &code, sizeof code);
  ::_exit(127);
}

class Child {
 public:
  Child(pid_t pid, const std::string& program, const std::string& subject)
      : pid_(pid), program_(program), subject_(subject) {}
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }
  /// Throws when the child, having closed its output, does not end in time.
  int wait_until(Clock::time_point end, const ProcessLimits& limits) {
    int status = 0;
    for (;;) {
      const pid_t ended = ::waitpid(pid_, &status, WNOHANG);
      if (ended == pid_) break;
      if (Clock::now() >= end) stop(fmt::format("ran over its limit of {:g} s", limits.seconds));
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    pid_ = -1;
    return status;
  }
  /// The destructor kills the child on the way out.
  [[noreturn]] void stop(const std::string& why) const {
    fail<IoError>(fmt::format("{}: {} {}", subject_, program_, why));
  }

 private:
  pid_t pid_;
  std::string program_, subject_;
};

/// Appends what the pipe has; false at its end.
bool drain(int fd, std::string& to, std::vector<char>& buffer, std::size_t keep) {
  const ssize_t got = ::read(fd, buffer.data(), buffer.size());
  if (got < 0) return errno == EINTR || errno == EAGAIN;
  if (got == 0) return false;
  to.append(buffer.data(),
            std::min(static_cast<std::size_t>(got), keep - std::min(keep, to.size())));
  return true;
}

void collect(const Child& child, int output, int errors, const ProcessLimits& limits,
             Clock::time_point end, ProcessResult& result) {
  std::vector<char> buffer(std::size_t{1} << 18);
  std::array<pollfd, 2> wanted = {pollfd{output, POLLIN, 0}, pollfd{errors, POLLIN, 0}};
  while (wanted[0].fd >= 0 || wanted[1].fd >= 0) {
    const double left = std::chrono::duration<double>(end - Clock::now()).count();
    if (left <= 0) child.stop(fmt::format("ran over its limit of {:g} s", limits.seconds));
    const int ready =
        ::poll(wanted.data(), wanted.size(), static_cast<int>(std::min(left, 3600.0) * 1e3) + 1);
    if (ready < 0 && errno != EINTR)
      child.stop(fmt::format("cannot be read: {}", std::strerror(errno)));
    if (ready <= 0) continue;
    // One byte over the limit is kept, to tell "exactly full" from "too much".
    if (wanted[0].revents != 0 && !drain(output, result.output, buffer, limits.output_bytes + 1))
      wanted[0].fd = -1;
    if (wanted[1].revents != 0 && !drain(errors, result.errors, buffer, kMaxErrors))
      wanted[1].fd = -1;
    if (result.output.size() > limits.output_bytes)
      child.stop(fmt::format("gave more than {} bytes", limits.output_bytes));
  }
}

std::string first_line(const std::string& text) {
  std::string line = text.substr(0, std::min(text.find('\n'), std::size_t{300}));
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 32) c = ' ';
  return line.empty() ? "no message" : line;
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& argv, const std::string& subject,
                          const ProcessLimits& limits) {
  if (argv.empty()) fail<ConfigError>("run_process: argv must not be empty");
  const std::string program = find_program(argv[0]);
  std::vector<char*> arguments;
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);

  Pipe output(argv[0]), errors(argv[0]), failure(argv[0]);
  ::fcntl(output.read.get(), F_SETPIPE_SZ, 1 << 20);  // fewer wake-ups; refusal does no harm
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0)
    fail<IoError>(fmt::format("{}: cannot be started: {}", argv[0], std::strerror(errno)));
  if (pid == 0)
    become(program.c_str(), arguments.data(), limits, output.write.get(), errors.write.get(),
           failure.write.get(), parent);
  Child child(pid, argv[0], subject);
  output.write.reset();
  errors.write.reset();
  failure.write.reset();
  // The pipe closes without a word when exec succeeds.
  int code = 0;
  ssize_t told = 0;
  while ((told = ::read(failure.read.get(), &code, sizeof code)) < 0 && errno == EINTR) {
  }
  if (told == sizeof code) child.stop(fmt::format("cannot be started: {}", std::strerror(code)));

  ProcessResult result;
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(std::min(limits.seconds, 1e6)));
  collect(child, output.read.get(), errors.read.get(), limits, end, result);
  const int status = child.wait_until(end, limits);
  if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    fail<IoError>(fmt::format("{}: {} was stopped by signal {} ({}): {}", subject, argv[0],
                              WTERMSIG(status), name == nullptr ? "unknown" : name,
                              first_line(result.errors)));
  }
  result.exit_status = WEXITSTATUS(status);
  return result;
}

ProcessResult run_process_or_fail(const std::vector<std::string>& argv, const std::string& subject,
                                  const ProcessLimits& limits) {
  ProcessResult result = run_process(argv, subject, limits);
  if (result.exit_status != 0)
    fail<IoError>(fmt::format("{}: {} gave exit status {}: {}", subject, argv[0],
                              result.exit_status, first_line(result.errors)));
  return result;
}

}  // namespace lectern
