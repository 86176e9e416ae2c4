#include "core/io/gguf.h"

#include "core/error.h"
#include "core/io/gguf_format.h"

#include <algorithm>
#include <set>

namespace lectern {
namespace {

using namespace gguf_format;  // NOLINT(google-build-using-namespace): constants of this room

/// Little endian, as the machines that lectern runs on write numbers.
class Bytes {
 public:
  template <typename T>
  void number(T value) {
    const auto* at = reinterpret_cast<const char*>(&value);
    text_.append(at, sizeof value);
  }
  void text(std::string_view value) {
    number<std::uint64_t>(value.size());
    text_ += value;
  }
  const std::string& all() const { return text_; }

 private:
  std::string text_;
};

template <typename T>
void put_element(Bytes& out, const T& value) {
  if constexpr (std::is_same_v<T, std::string>)
    out.text(value);
  else if constexpr (std::is_same_v<T, bool>)
    out.number<std::uint8_t>(value ? 1 : 0);
  else
    out.number(value);
}

void put_value(Bytes& out, const GgufValue& value) {
  std::visit(
      [&]<typename T>(const T& held) {
        if constexpr (kIsArray<T>) {
          out.number(kArray);
          out.number(kCodeOf<typename T::value_type>);
          out.number<std::uint64_t>(held.size());
          for (const auto& element : held) put_element(out, element);
        } else {
          out.number(kCodeOf<T>);
          put_element(out, held);
        }
      },
      value);
}

void check_entry(const std::filesystem::path& path, const GgufEntry& entry) {
  const auto refuse = [&](const std::string& rule) {
    fail<IoError>(fmt::format("{}: tensor {}: {}", path.string(), entry.name, rule));
  };
  if (entry.name.empty() || entry.name.size() > kLongestName)
    refuse(fmt::format("name must have 1 to {} bytes, got {}", kLongestName, entry.name.size()));
  if (entry.shape.ndim() < 1 || entry.shape.ndim() > kMostDimensions || entry.shape.numel() < 1)
    refuse(fmt::format("shape must have 1 to {} dimensions of 1 or more, got {}", kMostDimensions,
                       entry.shape));
  const std::int64_t row = entry.shape[entry.shape.ndim() - 1];
  if (row % block_values(entry.type) != 0)
    refuse(fmt::format("rows must be multiples of {} for {}, got {}", block_values(entry.type),
                       name_of(entry.type), row));
}

}  // namespace

std::size_t GgufEntry::bytes() const {
  return static_cast<std::size_t>(shape.numel() / block_values(type)) * block_bytes(type);
}

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata,
                       std::vector<GgufEntry> entries)
    : path_(path), entries_(std::move(entries)), file_(path) {
  Bytes header;
  header.number(kMagic);
  header.number(kVersion);
  header.number<std::uint64_t>(entries_.size());
  header.number<std::uint64_t>(metadata.size());
  std::set<std::string> seen;
  for (const auto& [key, value] : metadata) {
    if (!seen.insert(key).second)
      fail<IoError>(fmt::format("{}: key {} is given twice", path.string(), key));
    header.text(key);
    put_value(header, value);
  }
  seen.clear();
  std::uint64_t offset = 0;
  for (const GgufEntry& entry : entries_) {
    check_entry(path, entry);
    if (!seen.insert(entry.name).second)
      fail<IoError>(fmt::format("{}: tensor {} is given twice", path.string(), entry.name));
    header.text(entry.name);
    header.number(static_cast<std::uint32_t>(entry.shape.ndim()));
    for (int i = entry.shape.ndim() - 1; i >= 0; --i)
      header.number(static_cast<std::uint64_t>(entry.shape[i]));
    header.number(static_cast<std::uint32_t>(entry.type));
    header.number(offset);
    offset += padded(entry.bytes());
  }
  file_.write(header.all());
  pad_to_alignment(header.all().size());
}

void GgufWriter::pad_to_alignment(std::size_t bytes) {
  file_.write(std::string(padded(bytes) - bytes, '\0'));
}

void GgufWriter::write(std::span<const float> values) {
  if (next_ == entries_.size())
    fail<IoError>(
        fmt::format("{}: all {} tensors are written already", path_.string(), entries_.size()));
  const GgufEntry& entry = entries_[next_];
  const auto refuse = [&](const std::string& rule) {
    fail<IoError>(fmt::format("{}: tensor {}: {}", path_.string(), entry.name, rule));
  };
  const auto count = static_cast<std::int64_t>(values.size());
  const std::int64_t left = entry.shape.numel() - values_, block = block_values(entry.type);
  if (count > left || count % block != 0)
    refuse(fmt::format("values must be at most {}, in blocks of {}, got {}", left, block, count));
  constexpr std::int64_t kPiece = 1 << 16;  // values, a multiple of every block
  for (std::int64_t at = 0; at < count; at += kPiece) {
    const std::int64_t piece = std::min(kPiece, count - at);
    if (!may_hold(entry.type, values.data() + at, piece))
      refuse(
          fmt::format("{} cannot hold its values: they must be finite and small enough; take "
                      "another type",
                      name_of(entry.type)));
    buffer_.resize(static_cast<std::size_t>(piece / block) * block_bytes(entry.type));
    encode_blocks(entry.type, values.data() + at, piece, buffer_.data());
    file_.write(buffer_.data(), buffer_.size());
  }
  values_ += count;
  if (values_ < entry.shape.numel()) return;
  pad_to_alignment(entry.bytes());
  values_ = 0;
  ++next_;
}

void GgufWriter::commit() {
  if (next_ != entries_.size())
    fail<IoError>(
        fmt::format("{}: tensor {} was not written", path_.string(), entries_[next_].name));
  file_.commit();
}

}  // namespace lectern
