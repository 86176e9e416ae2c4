// A file system of a few hundred kilobytes for tests that fill it, or make it read-only: faults
// that permissions cannot bring about for root, and limits of a single file not at all.
#pragma once

#include "core/error.h"
#include "core/io/file.h"
#include "tests/recipes/spawn.h"
#include "tests/testing.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <string_view>

namespace lectern::testing {

/// A tmpfs that goes with the object, in a mount namespace of this process: what is killed in the
/// middle of a test leaves no mount behind.
class SmallDisk {
 public:
  explicit SmallDisk(std::size_t bytes = std::size_t{64} << 20) {
    static const int own = ::unshare(CLONE_NEWNS);
    if (own != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", path().c_str(), "tmpfs", 0, fmt::format("size={}", bytes).c_str()) != 0)
      why_not_ = fmt::format("cannot mount a file system here ({})", std::strerror(errno));
  }
  ~SmallDisk() {
    if (why_not_.empty()) ::umount2(path().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  /// Why there is none: mounting needs rights that not every user has. "" when there is one.
  const std::string& why_not() const { return why_not_; }
  const std::filesystem::path& path() const { return folder_.path(); }

  std::size_t free_bytes() const {
    struct statvfs status {};
    return ::statvfs(path().c_str(), &status) == 0 ? status.f_bavail * status.f_frsize : 0;
  }

  /// Takes all but so many bytes (whole pages of 4096) away. 0 bytes: everything.
  void leave(std::size_t bytes) {
    give_back();
    const std::size_t is_free = free_bytes();
    std::ofstream file(filler(), std::ios::binary);
    const std::string page(4096, 'x');
    for (std::size_t at = bytes / page.size() * page.size(); at < is_free; at += page.size())
      file << page;
    file.flush();
  }
  void give_back() { std::filesystem::remove(filler()); }

  void set_read_only(bool on) {
    const unsigned long flags = MS_REMOUNT | (on ? static_cast<unsigned long>(MS_RDONLY) : 0);
    if (::mount("none", path().c_str(), nullptr, flags, nullptr) != 0)
      fail<Error>(fmt::format("SmallDisk: cannot remount: {}", std::strerror(errno)));
  }

  void clear() const {
    for (const auto& entry : std::filesystem::directory_iterator(path()))
      std::filesystem::remove_all(entry.path());
  }

  /// Every file by its path in here, with its bytes.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> out;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path()))
      if (entry.is_regular_file() && entry.path() != filler())
        out[entry.path().lexically_relative(path()).string()] = read_file(entry.path());
    return out;
  }

 private:
  std::filesystem::path filler() const { return path() / "filler"; }

  TemporaryFolder folder_;
  std::string why_not_;
};

/// A run of the program that failed as it should: it was no signal that ended it, and its last line
/// on stderr is of the program and has `part`.
inline ::testing::AssertionResult told(const Finished& run, std::string_view part) {
  if (run.status != 1)
    return ::testing::AssertionFailure() << "status " << run.status << ": " << run.errors;
  std::string_view text = run.errors;
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::string_view last = text.substr(text.rfind('\n') + 1);
  if (!last.starts_with("lectern: ") || last.find(part) == std::string_view::npos)
    return ::testing::AssertionFailure() << "\"" << part << "\" is not in the last line of:\n"
                                         << run.errors;
  return ::testing::AssertionSuccess();
}

}  // namespace lectern::testing
