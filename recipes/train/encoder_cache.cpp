#include "recipes/train/encoder_cache.h"

#include "core/error.h"
#include "core/io/file.h"
#include "nn/parameter.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>

namespace lectern {
namespace {

std::int64_t element_count(std::int64_t global_rows, std::int64_t tiles, std::int64_t local_rows,
                           std::int64_t width) {
  return (global_rows + tiles * local_rows) * width;
}

/// First line of encoder.txt: the form of index.txt, and what keys are made of.
constexpr const char* kFormat = "lectern-encoder-cache 2\n";

std::uint32_t add_to_checksum(std::uint32_t sum, const void* data, std::size_t bytes) {
  return static_cast<std::uint32_t>(::crc32_z(sum, static_cast<const Bytef*>(data), bytes));
}

int open_file(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0)
    fail<IoError>(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
  return descriptor;
}

bool write_all(int descriptor, const void* data, std::size_t bytes, std::int64_t offset) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t wrote = ::pwrite(descriptor, at, bytes, offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    at += wrote;
    offset += wrote;
    bytes -= static_cast<std::size_t>(wrote);
  }
  return true;
}

}  // namespace

EncoderCache::EncoderCache(const std::filesystem::path& folder, const std::string& fingerprint,
                           std::int64_t max_bytes)
    : folder_(folder), max_bytes_(max_bytes) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    fail<IoError>(
        fmt::format("{}: cannot create the encoder cache: {}", folder.string(), error.message()));
  lock_folder();
  const auto owner = folder / "encoder.txt";
  const std::string whose = kFormat + fingerprint;
  if (!std::filesystem::exists(owner) || read_file(owner, 4096) != whose) {
    std::filesystem::remove(folder / "features.f32");
    std::filesystem::remove(folder / "index.txt");
    write_file(owner, whose);
  }
  data_ = open_file(folder / "features.f32");
  index_ = open_file(folder / "index.txt");
  read_index();
}

void EncoderCache::lock_folder() {
  try {
    lock_.emplace(folder_, "an encoder cache of lectern");
  } catch (const IoError& error) {
    fail<IoError>(
        fmt::format("encoder cache: {} (encoder_cache.dir may name another folder for this run)",
                    error.what()));
  }
}

EncoderCache::~EncoderCache() {
  if (data_ >= 0) ::close(data_);
  if (index_ >= 0) ::close(index_);
}

void EncoderCache::read_index() {
  // A line counts only when it is whole and its data are there; what follows it is dropped.
  const std::int64_t data_bytes =
      static_cast<std::int64_t>(std::filesystem::file_size(folder_ / "features.f32"));
  const std::string text = read_file(folder_ / "index.txt");
  std::size_t kept = 0;
  for (std::size_t at = 0;;) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) break;
    std::istringstream line(text.substr(at, end - at));
    Entry entry;
    std::string key;
    line >> entry.offset >> entry.global_rows >> entry.tiles >> entry.local_rows >> entry.width >>
        entry.checksum;
    line.get();
    std::getline(line, key);
    const bool sane =
        !key.empty() && entry.offset == bytes_ && entry.global_rows >= 0 && entry.tiles >= 0 &&
        entry.local_rows >= 0 && entry.width > 0 &&
        std::max({entry.global_rows, entry.tiles, entry.local_rows, entry.width}) < (1 << 20);
    if (!sane) break;
    const std::int64_t after =
        bytes_ + 4 * element_count(entry.global_rows, entry.tiles, entry.local_rows, entry.width);
    if (after > data_bytes) break;
    bytes_ = after;
    entries_[key] = entry;
    at = end + 1;
    kept = at;
  }
  if (::ftruncate(index_, static_cast<off_t>(kept)) != 0 || ::ftruncate(data_, bytes_) != 0)
    writable_ = false;
}

std::uint32_t EncoderCache::checksum_of(const std::string& key, const Entry& entry,
                                        const CachedFeatures& features) {
  const std::string head = fmt::format("{} {} {} {} {}", entry.global_rows, entry.tiles,
                                       entry.local_rows, entry.width, key);
  std::uint32_t out = add_to_checksum(0, head.data(), head.size());
  for (const Tensor& tensor : {features.global, features.local})
    if (tensor.defined()) out = add_to_checksum(out, tensor.raw(), tensor.bytes());
  return out;
}

bool EncoderCache::is_whole(const std::string& key, const Entry& entry) const {
  try {
    return checksum_of(key, entry, read(entry)) == entry.checksum;
  } catch (const IoError&) {
    return false;
  }
}

bool EncoderCache::contains(const std::string& key) const {
  Entry entry;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    entry = found->second;
  }
  if (entry.is_checked) return true;
  const bool whole = is_whole(key, entry);
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second.offset != entry.offset)
    return found != entries_.end() && found->second.is_checked;  // another thread was first
  found->second.is_checked = whole;
  if (whole) return true;
  entries_.erase(found);
  if (damaged_++ == 0)
    spdlog::warn(
        "encoder cache: {}: the rows at {} are damaged (checksum of {}); they are "
        "computed again, as are any others that are",
        (folder_ / "features.f32").string(), entry.offset, key);
  return false;
}

std::int64_t EncoderCache::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

std::int64_t EncoderCache::entries() const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::int64_t>(entries_.size());
}

std::optional<CachedFeatures> EncoderCache::find(const std::string& key) const {
  Entry entry;
  {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(key);
    if (found == entries_.end()) return std::nullopt;
    entry = found->second;
  }
  CachedFeatures out = read(entry);
  if (checksum_of(key, entry, out) != entry.checksum)
    fail<IoError>(fmt::format("{}: the rows at {} were damaged while in use (checksum of {})",
                              (folder_ / "features.f32").string(), entry.offset, key));
  return out;
}

CachedFeatures EncoderCache::read(const Entry& entry) const {
  CachedFeatures out;
  out.global = Tensor::empty({entry.global_rows, entry.width});
  if (entry.tiles > 0) out.local = Tensor::empty({entry.tiles, entry.local_rows, entry.width});
  std::int64_t offset = entry.offset;
  for (const Tensor& tensor : {out.global, out.local}) {
    if (!tensor.defined()) continue;
    const auto bytes = static_cast<ssize_t>(tensor.bytes());
    if (::pread(data_, tensor.raw(), tensor.bytes(), offset) != bytes)
      fail<IoError>(fmt::format("{}: cannot read {} bytes at {}",
                                (folder_ / "features.f32").string(), bytes, offset));
    offset += bytes;
  }
  return out;
}

void EncoderCache::insert(const std::string& key, const CachedFeatures& features) {
  const std::lock_guard lock(mutex_);
  if (!writable_ || entries_.contains(key) || key.find('\n') != std::string::npos) return;
  Entry entry{bytes_, features.global.dim(0), 0, 0, features.global.dim(1)};
  if (features.local.defined()) {
    entry.tiles = features.local.dim(0);
    entry.local_rows = features.local.dim(1);
  }
  const std::int64_t after =
      bytes_ + 4 * element_count(entry.global_rows, entry.tiles, entry.local_rows, entry.width);
  if (after > max_bytes_) return;
  const CachedFeatures rows{features.global.contiguous(), features.local.defined()
                                                              ? features.local.contiguous()
                                                              : features.local};
  entry.checksum = checksum_of(key, entry, rows);
  entry.is_checked = true;
  const auto stop_growing = [this] {
    spdlog::warn("encoder cache: {}: cannot write ({}); going on without keeping more pages",
                 folder_.string(), std::strerror(errno));
    writable_ = false;
  };
  std::int64_t offset = bytes_;
  for (const Tensor& whole : {rows.global, rows.local}) {
    if (!whole.defined()) continue;
    if (!write_all(data_, whole.data<float>(), whole.bytes(), offset)) return stop_growing();
    offset += static_cast<std::int64_t>(whole.bytes());
  }
  const std::string line =
      fmt::format("{} {} {} {} {} {} {}\n", entry.offset, entry.global_rows, entry.tiles,
                  entry.local_rows, entry.width, entry.checksum, key);
  const off_t end = ::lseek(index_, 0, SEEK_END);
  if (!write_all(index_, line.data(), line.size(), end)) return stop_growing();
  bytes_ = after;
  entries_[key] = entry;
}

std::string parameter_fingerprint(const ParameterStore& store,
                                  const std::vector<std::string>& prefixes) {
  // FNV-1a over 64-bit words: not a secret, only a way to notice that weights differ.
  std::uint64_t hash = 0xcbf29ce484222325ull;
  const auto mix = [&](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3ull; };
  for (const Parameter& parameter : store.parameters()) {
    const bool counts =
        std::any_of(prefixes.begin(), prefixes.end(),
                    [&](const std::string& prefix) { return parameter.name.starts_with(prefix); });
    if (!counts) continue;
    for (const char c : parameter.name) mix(static_cast<unsigned char>(c));
    const Tensor value = parameter.variable.value().to(Device{}).contiguous();
    const auto* bytes = static_cast<const unsigned char*>(value.raw());
    for (std::size_t i = 0; i < value.bytes(); i += 4) {
      std::uint32_t word = 0;
      std::memcpy(&word, bytes + i, std::min<std::size_t>(4, value.bytes() - i));
      mix(word);
    }
  }
  return fmt::format("{:016x}\n", hash);
}

}  // namespace lectern
