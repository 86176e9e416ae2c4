#include "core/io/files.h"

#include "core/error.h"
#include "core/io/descriptor.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

namespace lectern {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 18;

/// Calls f(data, size) for each piece of the file.
template <typename F>
void for_each_chunk(const std::filesystem::path& path, F&& f) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0)
    fail<IoError>(fmt::format("{}: cannot be opened: {}", path.string(), std::strerror(errno)));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode))
    fail<IoError>(fmt::format("{}: must be a regular file", path.string()));
  std::vector<std::uint8_t> buffer(kChunk);
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail<IoError>(fmt::format("{}: cannot be read: {}", path.string(), std::strerror(errno)));
    if (got == 0) return;
    f(buffer.data(), static_cast<std::size_t>(got));
  }
}

void write_all(int fd, const std::uint8_t* data, std::size_t size, const std::string& name) {
  while (size > 0) {
    const ssize_t put = ::write(fd, data, size);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      fail<WriteError>(fmt::format("{}: cannot be written: {}", name, std::strerror(errno)));
    data += put;
    size -= static_cast<std::size_t>(put);
  }
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    if (context_ == nullptr || EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) != 1)
      fail<IoError>("sha256: not available from libcrypto");
  }
  void update(const void* data, std::size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  std::string finish() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string out;
    for (unsigned int i = 0; i < size; ++i) out += fmt::format("{:02x}", digest[i]);
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

void replace_file(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".{}.tmp", ::getpid());
  try {
    const Descriptor file(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (file.get() < 0)
      fail<IoError>(fmt::format("{}: cannot be created: {}", path.string(), std::strerror(errno)));
    write_all(file.get(), reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size(),
              path.string());
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      fail<IoError>(fmt::format("{}: cannot be written: {}", path.string(), std::strerror(errno)));
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

std::string sha256_of_file(const std::filesystem::path& path) {
  Sha256 digest;
  for_each_chunk(path,
                 [&](const std::uint8_t* data, std::size_t size) { digest.update(data, size); });
  return digest.finish();
}

std::string sha256_of(std::string_view bytes) {
  Sha256 digest;
  digest.update(bytes.data(), bytes.size());
  return digest.finish();
}

std::uint32_t crc32_of_file(const std::filesystem::path& path) {
  uLong sum = 0;
  for_each_chunk(
      path, [&](const std::uint8_t* data, std::size_t size) { sum = ::crc32_z(sum, data, size); });
  return static_cast<std::uint32_t>(sum);
}

void gunzip_file(const std::filesystem::path& from, const std::filesystem::path& to,
                 std::uint64_t max_bytes) {
  const std::unique_ptr<gzFile_s, decltype(&gzclose_r)> input(gzopen(from.c_str(), "rb"),
                                                              &gzclose_r);
  if (input == nullptr) fail<IoError>(fmt::format("{}: cannot be opened", from.string()));
  if (gzdirect(input.get()) != 0)
    fail<IoError>(fmt::format("{}: must be a gzip file", from.string()));
  const Descriptor output(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (output.get() < 0)
    fail<WriteError>(fmt::format("{}: cannot be created: {}", to.string(), std::strerror(errno)));
  std::vector<std::uint8_t> buffer(kChunk);
  std::uint64_t total = 0;
  for (;;) {
    const int got = gzread(input.get(), buffer.data(), static_cast<unsigned>(buffer.size()));
    int code = Z_OK;
    const char* message = gzerror(input.get(), &code);
    // gzread gives what it has and reports the missing end only through gzerror.
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
      fail<IoError>(
          fmt::format("{}: gzip data is damaged or truncated: {}", from.string(), message));
    if (got == 0) return;
    total += static_cast<std::uint64_t>(got);
    if (total > max_bytes)
      fail<IoError>(fmt::format("{}: must unpack to at most {} bytes", from.string(), max_bytes));
    write_all(output.get(), buffer.data(), static_cast<std::size_t>(got), to.string());
  }
}

}  // namespace lectern
