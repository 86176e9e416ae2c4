#include "recipes/durable_file.h"

#include "core/error.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace lectern {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail_system(const fs::path& path, std::string_view what, int code = errno) {
  fail<IoError>(fmt::format("{}: cannot {}: {}", path.string(), what, std::strerror(code)));
}

class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }
  /// Network file systems report a failed write only here.
  bool close() { return ::close(std::exchange(fd_, -1)) == 0; }

 private:
  int fd_;
};

void write_all(Descriptor& file, const fs::path& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(file.get(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_system(path, "write");
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_path(const fs::path& path, int flags) {
  Descriptor file(path, flags);
  if (file.get() < 0) fail_system(path, "open");
  if (::fsync(file.get()) != 0) fail_system(path, "sync");
}

}  // namespace

void write_file(const fs::path& path, std::string_view bytes, bool sync) {
  const fs::path temporary = path.string() + ".tmp";
  try {
    Descriptor file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    if (file.get() < 0) fail_system(path, "create");
    write_all(file, path, bytes);
    if (sync && ::fsync(file.get()) != 0) fail_system(path, "sync");
    if (!file.close()) fail_system(path, "close");
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail_system(path, "rename into place");
  } catch (const IoError&) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (sync) sync_folder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

std::string read_file(const fs::path& path, std::uintmax_t max_bytes) {
  Descriptor file(path, O_RDONLY);
  if (file.get() < 0) fail_system(path, "open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_system(path, "read");
  if (!S_ISREG(status.st_mode)) fail<IoError>(path.string() + ": must be a plain file");
  const auto size = static_cast<std::uintmax_t>(status.st_size);
  if (size > max_bytes)
    fail<IoError>(fmt::format("{}: must have at most {} bytes, got {}", path.string(), max_bytes,
                              size));
  std::string bytes(size, '\0');
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = ::read(file.get(), bytes.data() + done, bytes.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_system(path, "read");
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  bytes.resize(done);
  return bytes;
}

void sync_file(const fs::path& path) { sync_path(path, O_RDONLY); }
void sync_folder(const fs::path& path) { sync_path(path, O_RDONLY | O_DIRECTORY); }

}  // namespace lectern
