// The program itself as a child process, for tests that kill it or look at its exit status.
#pragma once

#include "core/error.h"
#include "core/io/file.h"
#include "tests/testing.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace lectern::testing {

/// build/lectern: $LECTERN_BINARY (set by ctest), else beside the folder of this test program.
inline std::string lectern_binary() {
  if (const char* path = std::getenv("LECTERN_BINARY")) return path;
  const auto self = std::filesystem::read_symlink("/proc/self/exe");
  return (self.parent_path().parent_path() / "lectern").string();
}

class Child {
 public:
  /// `launcher`: words in front of the program, such as mpirun's.
  explicit Child(const std::vector<std::string>& arguments, const std::string& input = "",
                 const std::vector<std::string>& launcher = {}) {
    write_file(folder_.path() / "in", input);
    std::vector<std::string> words = launcher;
    words.push_back(lectern_binary());
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string in = folder_.path() / "in", out = folder_.path() / "out",
                      errors = folder_.path() / "err";
    process_ = ::fork();
    if (process_ < 0) fail<Error>("Child: cannot fork");
    if (process_ > 0) return;
    ::dup2(::open(in.c_str(), O_RDONLY), STDIN_FILENO);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDOUT_FILENO);
    ::dup2(::open(errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  virtual ~Child() {
    if (running()) {
      ::kill(process_, SIGKILL);
      wait();
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool running() {
    if (!done_) done_ = ::waitpid(process_, &status_, WNOHANG) == process_;
    return !done_;
  }
  void send(int signal) const { ::kill(process_, signal); }
  pid_t process() const { return process_; }
  /// Exit status, or minus the signal that ended it.
  int wait() {
    if (!done_) ::waitpid(process_, &status_, 0);
    done_ = true;
    return WIFSIGNALED(status_) ? -WTERMSIG(status_) : WEXITSTATUS(status_);
  }
  std::string out() const { return read_file(folder_.path() / "out"); }
  std::string errors() const { return read_file(folder_.path() / "err"); }

 private:
  TemporaryFolder folder_;
  pid_t process_ = -1;
  int status_ = 0;
  bool done_ = false;
};

struct Finished {
  int status = 0;
  std::string out, errors;
};

inline Finished run_lectern(const std::vector<std::string>& arguments,
                            const std::string& input = "") {
  Child child(arguments, input);
  const int status = child.wait();
  return {status, child.out(), child.errors()};
}

/// Waits until `ready` or until the child has ended; says which.
inline bool wait_until(Child& child, const std::function<bool()>& ready) {
  while (!ready()) {
    if (!child.running()) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

/// Whole lines of a file, 0 when it is not there.
inline std::int64_t line_count(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return 0;
  const std::string text = read_file(path);
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace lectern::testing
