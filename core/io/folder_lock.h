// A folder that one process at a time works in.
//
// The lock is the kernel's, on the file `.lectern-lock` of the folder, and goes with the process
// that holds it, however that ends: a file that a dead process left is taken over. What the file
// says, who, where, since when and what for, is for the message of those who come too late. Where a
// file system cannot lock (some network mounts), the file itself counts: it is taken over when its
// process was one of this host and is gone, and else stands until somebody removes it.
#pragma once

#include "core/io/descriptor.h"

#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

class FolderLock {
 public:
  /// Locks `folder`, which must exist, for `purpose`, such as "lectern train". Never waits. Throws
  /// IoError "<folder>: is in use by process 123 on host x since 2026-11-30 15:43:08 UTC: lectern
  /// train" when another FolderLock has it, of this process or of any other, and IoError when the
  /// file cannot be made.
  FolderLock(const std::filesystem::path& folder, std::string_view purpose);
  /// Lets go, and removes the file.
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  bool try_to_lock();
  bool has_file() const;

  std::filesystem::path folder_, file_;
  Descriptor descriptor_;
};

}  // namespace lectern
