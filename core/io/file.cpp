#include "core/io/file.h"

#include "core/error.h"
#include "core/io/descriptor.h"

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

namespace lectern {
namespace {

[[noreturn]] void fail_errno(const std::filesystem::path& path, std::string_view action) {
  const int error = errno;
  fail<IoError>(fmt::format("{}: cannot {}: {}", path.string(), action, std::strerror(error)));
}

/// The size of a regular file. Anything else is refused; O_NONBLOCK keeps open() from waiting for
/// the other end of a named pipe.
std::size_t open_regular(const std::filesystem::path& path, const Descriptor& file) {
  if (file.get() < 0) fail_errno(path, "open");
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_errno(path, "stat");
  if (!S_ISREG(status.st_mode))
    fail<IoError>(fmt::format("{}: must be a regular file", path.string()));
  return static_cast<std::size_t>(status.st_size);
}

}  // namespace

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const std::size_t size = open_regular(path, file);
  if (size > max_bytes)
    fail<IoError>(
        fmt::format("{}: must be at most {} bytes, got {}", path.string(), max_bytes, size));
  std::string text(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::read(file.get(), text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_errno(path, "read");
    if (got == 0) break;  // the file shrank while we read it
    done += static_cast<std::size_t>(got);
  }
  text.resize(done);
  return text;
}

MappedFile map_file(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const std::size_t size = open_regular(path, file);
  if (size == 0) return {};
  // Writable but private: a stray write cannot reach the file.
  void* data =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file.get(), 0);
  if (data == MAP_FAILED) fail_errno(path, "map");
  // A gigabyte in small pages costs a matrix-vector product more in address translation than in
  // reading. Where the kernel can, it then keeps such files in large pages; elsewhere this fails.
  constexpr std::size_t kWorthLargePages = std::size_t{64} << 20;
  if (size >= kWorthLargePages) ::madvise(data, size, MADV_HUGEPAGE);
  return {{static_cast<const std::byte*>(data), size},
          std::shared_ptr<const void>(
              data, [size](const void* address) { ::munmap(const_cast<void*>(address), size); })};
}

AtomicFile::AtomicFile(const std::filesystem::path& path)
    : path_(path), temporary_(path.parent_path() / ("." + path.filename().string() + ".tmp")) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail_errno(path_, "create");
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::write(descriptor_, at, std::min(bytes, std::size_t{1} << 30));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) fail_errno(path_, "write");
    at += wrote;
    bytes -= static_cast<std::size_t>(wrote);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_errno(path_, "write");
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    errno = error;
    fail_errno(path_, "write");
  }
  auto folder = path_.parent_path();
  if (folder.empty()) folder = ".";
  const Descriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory.get() >= 0) ::fsync(directory.get());
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

nlohmann::json parse_json(std::string_view text, const std::string& name, JsonKeys keys) {
  constexpr int kMaxDepth = 64;
  std::set<std::pair<int, std::string>> seen;
  const auto guard = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (depth > kMaxDepth)
      fail<IoError>(fmt::format("{}: JSON must nest at most {} deep", name, kMaxDepth));
    using Event = nlohmann::json::parse_event_t;
    if (keys == JsonKeys::unique && event == Event::object_start)
      seen.erase(seen.lower_bound({depth + 1, ""}), seen.end());
    if (keys == JsonKeys::unique && event == Event::key &&
        !seen.emplace(depth, value.get<std::string>()).second)
      fail<IoError>(fmt::format("{}: key {} must be given once", name, value.dump()));
    return true;
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), guard);
  } catch (const nlohmann::json::exception& error) {
    fail<IoError>(fmt::format("{}: not valid JSON: {}", name, error.what()));
  }
}

}  // namespace lectern
