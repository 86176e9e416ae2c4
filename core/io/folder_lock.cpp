#include "core/io/folder_lock.h"

#include "core/error.h"
#include "core/io/file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <optional>
#include <sstream>
#include <thread>

namespace lectern {
namespace {

constexpr const char* kLockFile = ".lectern-lock";

/// What a lock file says of the process that wrote it.
struct LockHolder {
  long process = 0;
  std::string host, since, purpose;
};

std::string this_host() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

std::string time_now() {
  const std::time_t seconds = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  std::array<char, 64> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text.data();
}

/// Four lines; nothing when they are not all there.
std::optional<LockHolder> read_holder(const std::filesystem::path& file) {
  std::string text;
  try {
    text = read_file(file, 1 << 14);
  } catch (const IoError&) {
    return std::nullopt;
  }
  std::istringstream lines(text);
  LockHolder out;
  std::string process;
  const bool whole = std::getline(lines, process) && std::getline(lines, out.host) &&
                     std::getline(lines, out.since) && std::getline(lines, out.purpose) &&
                     text.ends_with('\n');
  out.process = std::strtol(process.c_str(), nullptr, 10);
  if (!whole || out.process <= 0) return std::nullopt;
  return out;
}

bool is_of_dead_process(const LockHolder& holder) {
  return holder.host == this_host() &&
         (::kill(static_cast<pid_t>(holder.process), 0) != 0 && errno == ESRCH);
}

/// Whether the file system has no locks, rather than that somebody has this one.
bool cannot_lock(int error) {
  return error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL;
}

[[noreturn]] void fail_in_use(const std::filesystem::path& folder,
                              const std::filesystem::path& file, bool is_kernels) {
  std::optional<LockHolder> holder = read_holder(file);
  // It may have the lock and be about to say who it is.
  for (int i = 0; !holder && i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    holder = read_holder(file);
  }
  std::string message = folder.string() + ": is in use by another process";
  if (holder)
    message = fmt::format("{}: is in use by process {} on host {} since {}: {}", folder.string(),
                          holder->process, holder->host, holder->since, holder->purpose);
  if (!is_kernels)
    message += fmt::format(" (this file system has no locks: remove {} if that no longer runs)",
                           file.string());
  fail<IoError>(message);
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder, std::string_view purpose)
    : folder_(folder), file_(folder / kLockFile) {
  // The holder before may remove the file between our open() and our lock: then we begin again.
  while (!try_to_lock()) {
  }
  const std::string text =
      fmt::format("{}\n{}\n{}\n{}\n", ::getpid(), this_host(), time_now(), purpose);
  // A disk that is too full for these bytes does not undo the lock.
  if (::ftruncate(descriptor_.get(), 0) != 0) return;
  [[maybe_unused]] const ssize_t ignored = ::pwrite(descriptor_.get(), text.data(), text.size(), 0);
}

bool FolderLock::try_to_lock() {
  descriptor_.reset(::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (descriptor_.get() < 0)
    fail<IoError>(fmt::format("{}: cannot lock the folder: {}: {}", folder_.string(),
                              file_.filename().string(), std::strerror(errno)));
  int result = 0;
  do result = ::flock(descriptor_.get(), LOCK_EX | LOCK_NB);
  while (result != 0 && errno == EINTR);
  if (result == 0) return has_file();
  const int error = errno;
  if (!cannot_lock(error)) fail_in_use(folder_, file_, true);
  const auto holder = read_holder(file_);
  if (holder && !is_of_dead_process(*holder)) fail_in_use(folder_, file_, false);
  return true;
}

bool FolderLock::has_file() const {
  struct stat ours {};
  struct stat there {};
  return ::fstat(descriptor_.get(), &ours) == 0 && ::stat(file_.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

FolderLock::~FolderLock() {
  if (has_file()) ::unlink(file_.c_str());
  // Not left to close(): a child that is between fork() and exec() still has the descriptor.
  ::flock(descriptor_.get(), LOCK_UN);
}

}  // namespace lectern
