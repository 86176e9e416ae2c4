#include "core/io/folder_lock.h"

#include "core/error.h"
#include "core/io/file.h"
#include "tests/testing.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::throws_with;

/// A process that holds a folder's lock until it is killed.
class HoldingProcess {
 public:
  explicit HoldingProcess(const fs::path& folder) {
    int ends[2] = {-1, -1};
    if (::pipe(ends) != 0) return;
    process_ = ::fork();
    if (process_ == 0) {
      const FolderLock lock(folder, "lectern test --of \"locks\"");
      [[maybe_unused]] const auto ignored = ::write(ends[1], "x", 1);
      for (;;) ::pause();
    }
    ::close(ends[1]);
    char byte = 0;
    holds_ = ::read(ends[0], &byte, 1) == 1;
    ::close(ends[0]);
  }
  ~HoldingProcess() { end(); }
  HoldingProcess(const HoldingProcess&) = delete;
  HoldingProcess& operator=(const HoldingProcess&) = delete;

  bool holds() const { return holds_; }
  pid_t process() const { return process_; }
  void end() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    ::waitpid(process_, nullptr, 0);
    process_ = -1;
  }

 private:
  pid_t process_ = -1;
  bool holds_ = false;
};

bool is_refused(const fs::path& folder, std::initializer_list<std::string_view> parts) {
  return static_cast<bool>(throws_with([&] { const FolderLock lock(folder, "second"); }, parts));
}

TEST(FolderLock, SaysWhoHoldsItAndIsTakenOverFromTheDead) {
  const TemporaryFolder folder;
  HoldingProcess first(folder.path());
  ASSERT_TRUE(first.holds());
  std::array<char, 256> host{};
  ASSERT_EQ(::gethostname(host.data(), host.size() - 1), 0);
  EXPECT_TRUE(
      throws_with([&] { const FolderLock lock(folder.path(), "second"); },
                  {folder.path().string() + ": is in use by process " +
                       std::to_string(first.process()) + " on host " + host.data() + " since 2",
                   " UTC: lectern test --of \"locks\""}));
  first.end();  // as the kernel's out-of-memory killer would: its file stays
  EXPECT_TRUE(fs::exists(folder.path() / ".lectern-lock"));
  {
    const FolderLock second(folder.path(), "second");
    EXPECT_TRUE(is_refused(folder.path(), {std::to_string(::getpid()), ": second"}));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(FolderLock, IsGivenBack) {
  const TemporaryFolder folder;
  for (int i = 0; i < 3; ++i) {
    const FolderLock lock(folder.path(), "again");
    EXPECT_TRUE(is_refused(folder.path(), {"is in use by process"}));
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(FolderLock, ChildrenDoNotKeepIt) {
  const TemporaryFolder folder;
  pid_t child = -1;
  {
    const FolderLock lock(folder.path(), "parent");
    child = ::fork();  // as run_process() has it for a moment
    if (child == 0)
      for (;;) ::pause();
  }
  const FolderLock next(folder.path(), "next");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

TEST(FolderLock, WhatAFileSaysDoesNotLock) {
  const TemporaryFolder folder;
  const fs::path file = folder.path() / ".lectern-lock";
  for (const char* text : {"", "1\n", "1\nnode7\n2026-01-01 00:00:00 UTC\nlectern train\n",
                           "-5\nx\ny\nz\n", "\n\n\n"}) {
    write_file(file, text);
    const FolderLock lock(folder.path(), "ours");
    EXPECT_TRUE(is_refused(folder.path(), {std::to_string(::getpid()), "ours"}));
  }
}

TEST(FolderLock, AFolderThatWentDoesNotTakeAnotherProcesssLock) {
  const TemporaryFolder folder;
  const fs::path inner = folder.path() / "run";
  fs::create_directory(inner);
  std::optional<FolderLock> lock;
  lock.emplace(inner, "first");
  fs::remove_all(inner);
  fs::create_directory(inner);
  const HoldingProcess other(inner);
  ASSERT_TRUE(other.holds());
  lock.reset();
  EXPECT_TRUE(fs::exists(inner / ".lectern-lock"));
  EXPECT_TRUE(is_refused(inner, {std::to_string(other.process())}));
}

TEST(FolderLock, NamesTheFolderThatCannotBeLocked) {
  const TemporaryFolder folder;
  EXPECT_TRUE(is_refused(folder.path() / "none",
                         {"none: cannot lock the folder: .lectern-lock: No such file"}));
  // A link is not followed to somebody's file.
  write_file(folder.path() / "precious", "text");
  fs::create_symlink(folder.path() / "precious", folder.path() / ".lectern-lock");
  EXPECT_TRUE(is_refused(folder.path(), {"cannot lock the folder"}));
  EXPECT_EQ(read_file(folder.path() / "precious"), "text");
}

}  // namespace
}  // namespace lectern
