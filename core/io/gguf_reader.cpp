#include "core/error.h"
#include "core/io/gguf.h"
#include "core/io/gguf_format.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace lectern {

/// Reads the header of one file from front to back.
class GgufHeaderReader {
 public:
  explicit GgufHeaderReader(GgufFile& file)
      : file_(file), bytes_(file.file_.bytes), name_(file.path_.string()) {}

  void run() {
    if (bytes_.size() < sizeof gguf_format::kMagic ||
        number<std::uint32_t>("magic") != gguf_format::kMagic)
      fail<IoError>(fmt::format("{}: must begin with GGUF", name_));
    if (const auto version = number<std::uint32_t>("version"); version != gguf_format::kVersion)
      fail<IoError>(
          fmt::format("{}: version must be {}, got {}", name_, gguf_format::kVersion, version));
    // A tensor takes 32 bytes of header at least, a key 13: larger counts are no counts.
    const auto tensors = count("number of tensors", 32), keys = count("number of keys", 13);
    for (std::uint64_t i = 0; i < keys; ++i) read_key();
    std::vector<std::uint64_t> offsets;
    for (std::uint64_t i = 0; i < tensors; ++i) offsets.push_back(read_tensor());
    place(offsets);
  }

 private:
  template <typename T>
  T number(const std::string& what) {
    if (bytes_.size() - at_ < sizeof(T))
      fail<IoError>(fmt::format("{}: {}: the file ends within it", name_, what));
    T value{};
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  /// A number of things of at least `least` bytes each, which must lie in what is left.
  std::uint64_t count(const std::string& what, std::size_t least) {
    const auto value = number<std::uint64_t>(what);
    if (value > (bytes_.size() - at_) / least)
      fail<IoError>(fmt::format("{}: {}: must fit the file of {} bytes, got {}", name_, what,
                                bytes_.size(), value));
    return value;
  }

  std::string text(const std::string& what) {
    const auto size = static_cast<std::size_t>(count(what, 1));
    std::string out(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return out;
  }

  template <typename T>
  T element(const std::string& what) {
    if constexpr (std::is_same_v<T, std::string>)
      return text(what);
    else if constexpr (std::is_same_v<T, bool>)
      return number<std::uint8_t>(what) != 0;
    else
      return number<T>(what);
  }

  template <typename T>
  GgufValue array(const std::string& key) {
    constexpr std::size_t kLeast = std::is_same_v<T, std::string> ? 8 : sizeof(T);
    std::vector<T> out(static_cast<std::size_t>(count(key, kLeast)));
    for (T& each : out) each = element<T>(key);
    return out;
  }

  GgufValue value(const std::string& key) {
    using namespace gguf_format;  // NOLINT(google-build-using-namespace)
    auto code = number<std::uint32_t>(key);
    const bool is_array = code == kArray;
    if (is_array) code = number<std::uint32_t>(key);
    if (is_array && code == kFloat32) return array<float>(key);
    if (is_array && code == kInt32) return array<std::int32_t>(key);
    if (is_array && code == kString) return array<std::string>(key);
    if (!is_array && code == kUint32) return element<std::uint32_t>(key);
    if (!is_array && code == kFloat32) return element<float>(key);
    if (!is_array && code == kBool) return element<bool>(key);
    if (!is_array && code == kString) return element<std::string>(key);
    fail<IoError>(
        fmt::format("{}: key {}: type must be UINT32, FLOAT32, BOOL, STRING or an ARRAY "
                    "of FLOAT32, INT32 or STRING, got {}{}",
                    name_, key, is_array ? "an ARRAY of number " : "number ", code));
  }

  void read_key() {
    const std::string key = text("a key's name");
    if (!keys_.insert(key).second)
      fail<IoError>(fmt::format("{}: key {} must be given once", name_, key));
    file_.metadata_.emplace_back(key, value(key));
  }

  std::uint64_t read_tensor() {
    GgufEntry entry;
    entry.name = text("a tensor's name");
    const std::string what = "tensor " + entry.name;
    const auto refuse = [&](const std::string& rule) {
      fail<IoError>(fmt::format("{}: {}: {}", name_, what, rule));
    };
    const auto dimensions = number<std::uint32_t>(what);
    if (dimensions < 1 || dimensions > gguf_format::kMostDimensions)
      refuse(fmt::format("dimensions must be 1 to {}, got {}", gguf_format::kMostDimensions,
                         dimensions));
    std::vector<std::int64_t> sizes;
    std::int64_t values = 1;
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      const auto size = number<std::int64_t>(what);
      constexpr std::int64_t kMost = std::int64_t{1} << 56;  // their bytes are a number then
      if (size < 1 || __builtin_mul_overflow(values, size, &values) || values > kMost)
        refuse(fmt::format("sizes must be 1 or more, and 2^56 values at most, got {}", size));
      sizes.insert(sizes.begin(), size);
    }
    for (const std::int64_t size : sizes) entry.shape.push_back(size);
    const auto code = number<std::uint32_t>(what);
    const auto type = gguf_type_of(code);
    if (!type)
      refuse(fmt::format("type must be F32, F16, BF16, Q8_0 or Q4_0, got number {}", code));
    entry.type = *type;
    if (sizes.back() % block_values(*type) != 0)
      refuse(
          fmt::format("rows must be multiples of {}, got {}", block_values(*type), sizes.back()));
    if (!file_.places_.emplace(entry.name, GgufFile::Place{file_.entries_.size(), 0}).second)
      refuse("must be given once");
    file_.entries_.push_back(entry);
    return number<std::uint64_t>(what);
  }

  /// Tensors follow one another, as writers put them.
  void place(const std::vector<std::uint64_t>& offsets) {
    const std::size_t start = gguf_format::padded(at_);
    std::size_t expected = 0;
    for (std::size_t i = 0; i < offsets.size(); ++i) {
      const GgufEntry& entry = file_.entries_[i];
      const std::size_t room = bytes_.size() < start ? 0 : bytes_.size() - start;
      if (offsets[i] != expected || entry.bytes() > room || expected > room - entry.bytes())
        fail<IoError>(fmt::format(
            "{}: tensor {}: data must follow on byte {} and end within the {} there are, got "
            "offset {} and {} bytes",
            name_, entry.name, expected, room, offsets[i], entry.bytes()));
      file_.places_[entry.name].offset = start + expected;
      expected += gguf_format::padded(entry.bytes());
    }
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  std::string name_;
  std::size_t at_ = 0;
  std::set<std::string> keys_;
};

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile out;
  out.path_ = path;
  out.file_ = map_file(path);
  GgufHeaderReader(out).run();
  return out;
}

const GgufValue* GgufFile::find(const std::string& key) const {
  for (const auto& [name, value] : metadata_)
    if (name == key) return &value;
  return nullptr;
}

const GgufEntry& GgufFile::entry(const std::string& name) const {
  const auto found = places_.find(name);
  if (found == places_.end())
    fail<IoError>(fmt::format("{}: has no tensor {}", path_.string(), name));
  return entries_[found->second.entry];
}

std::span<const std::byte> GgufFile::data(const std::string& name) const {
  const std::size_t bytes = entry(name).bytes();
  return file_.bytes.subspan(places_.at(name).offset, bytes);
}

void GgufFile::read(const std::string& name, std::int64_t begin, std::span<float> out) const {
  const GgufEntry& found = entry(name);
  const std::int64_t block = block_values(found.type);
  const auto count = static_cast<std::int64_t>(out.size());
  if (begin < 0 || begin % block != 0 || count % block != 0 || begin + count > found.shape.numel())
    fail<IoError>(
        fmt::format("{}: tensor {}: values must be within {}, in blocks of {}, got {} to {}",
                    path_.string(), name, found.shape.numel(), block, begin, begin + count));
  const auto at = static_cast<std::size_t>(begin / block) * block_bytes(found.type);
  decode_blocks(found.type, data(name).data() + at, count, out.data());
}

std::vector<float> GgufFile::values(const std::string& name) const {
  std::vector<float> out(static_cast<std::size_t>(entry(name).shape.numel()));
  read(name, 0, out);
  return out;
}

void GgufFile::release(const std::string& name) const {
  const auto bytes = data(name);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  // Only whole pages, so that a neighbour that is in use stays.
  const auto first = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t begin = (first + page - 1) / page * page;
  const std::uintptr_t end = (first + bytes.size()) / page * page;
  if (begin < end)
    ::madvise(const_cast<std::byte*>(bytes.data()) + (begin - first), end - begin, MADV_DONTNEED);
}

}  // namespace lectern
