#include "recipes/log/tensorboard.h"

#include "core/error.h"
#include "recipes/log/crc32c.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <functional>
#include <system_error>
#include <utility>

namespace lectern {
namespace {

using google::protobuf::io::CodedOutputStream;

// Wire types of protobuf.
enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

constexpr std::uint32_t key(std::uint32_t field, Wire wire) { return field << 3 | wire; }

std::string encode(const std::function<void(CodedOutputStream&)>& fill) {
  std::string out;
  {
    google::protobuf::io::StringOutputStream sink(&out);
    CodedOutputStream stream(&sink);
    fill(stream);
  }
  return out;
}

void put_bytes(CodedOutputStream& out, std::uint32_t field, std::string_view bytes) {
  out.WriteVarint32(key(field, kBytes));
  out.WriteVarint32(static_cast<std::uint32_t>(bytes.size()));
  out.WriteRaw(bytes.data(), static_cast<int>(bytes.size()));
}

void put_integer(CodedOutputStream& out, std::uint32_t field, std::int64_t value) {
  out.WriteVarint32(key(field, kVarint));
  out.WriteVarint64(static_cast<std::uint64_t>(value));
}

/// Event { wall_time = 1; step = 2; one payload field }.
std::string event(double wall_time, std::int64_t step, std::uint32_t field,
                  std::string_view payload) {
  return encode([&](CodedOutputStream& out) {
    out.WriteVarint32(key(1, kFixed64));
    out.WriteLittleEndian64(std::bit_cast<std::uint64_t>(wall_time));
    if (step != 0) put_integer(out, 2, step);
    put_bytes(out, field, payload);
  });
}

/// TensorProto { dtype = 1 (DT_STRING); tensor_shape = 2 { dim = 2 { size = 1 } }; string_val = 8 }
std::string string_tensor(std::string_view text) {
  const std::string dim = encode([](auto& out) { put_integer(out, 1, 1); });
  const std::string shape = encode([&](auto& out) { put_bytes(out, 2, dim); });
  return encode([&](auto& out) {
    put_integer(out, 1, 7);
    put_bytes(out, 2, shape);
    put_bytes(out, 8, text);
  });
}

std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ ((value & 1) ? 0x82f63b78u : 0u);
    table[i] = value;
  }
  return table;
}

double unix_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string little_endian(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

constexpr std::string_view kStem = "events.out.tfevents.";

/// The largest <seconds> in the names of a folder's event files; -1 when there are none.
std::int64_t newest_stamp(const std::filesystem::path& folder) {
  std::int64_t newest = -1;
  std::error_code error;
  for (std::filesystem::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error)) {
    const std::string name = each->path().filename().string();
    if (!name.starts_with(kStem)) continue;
    std::int64_t stamp = -1;
    std::from_chars(name.data() + kStem.size(), name.data() + name.size(), stamp);
    newest = std::max(newest, stamp);
  }
  return newest;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static const std::array<std::uint32_t, 256> table = crc_table();
  std::uint32_t crc = ~0u;
  for (const char byte : bytes)
    crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(byte)) & 255];
  return ~crc;
}

// Event.summary = 5; Summary.value = 1 { tag = 1; simple_value = 2; tensor = 8; metadata = 9 }
std::string scalar_event(double wall_time, std::int64_t step,
                         const std::vector<std::pair<std::string, double>>& scalars) {
  const std::string summary = encode([&](CodedOutputStream& out) {
    for (const auto& [tag, number] : scalars)
      put_bytes(
          out, 1, encode([&tag = tag, &number = number](CodedOutputStream& value) {
            put_bytes(value, 1, tag);
            value.WriteVarint32(key(2, kFixed32));
            value.WriteLittleEndian32(std::bit_cast<std::uint32_t>(static_cast<float>(number)));
          }));
  });
  return event(wall_time, step, 5, summary);
}

std::string text_event(double wall_time, std::int64_t step, std::string_view tag,
                       std::string_view markdown) {
  // SummaryMetadata { plugin_data = 1 { plugin_name = 1 } }
  const std::string plugin = encode([](auto& out) { put_bytes(out, 1, "text"); });
  const std::string metadata = encode([&](auto& out) { put_bytes(out, 1, plugin); });
  const std::string value = encode([&](auto& out) {
    put_bytes(out, 1, tag);
    put_bytes(out, 8, string_tensor(markdown));
    put_bytes(out, 9, metadata);
  });
  return event(wall_time, step, 5, encode([&](auto& out) { put_bytes(out, 1, value); }));
}

std::string version_event(double wall_time) { return event(wall_time, 0, 3, "brain.Event:2"); }

std::string restart_event(double wall_time, std::int64_t step) {
  // Event.session_log = 7 { status = 1: START = 1 }
  return event(wall_time, step, 7, encode([](auto& out) { put_integer(out, 1, 1); }));
}

std::string frame(std::string_view event) {
  const std::string length = little_endian(event.size(), 8);
  return length + little_endian(masked_crc32c(length), 4) + std::string(event) +
         little_endian(masked_crc32c(event), 4);
}

EventWriter::EventWriter(const std::filesystem::path& folder, std::int64_t resume_step,
                         std::function<double()> clock)
    : clock_(clock ? std::move(clock) : unix_seconds),
      last_time_(static_cast<double>(newest_stamp(folder) + 1)) {
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  path_ = folder /
          fmt::format("{}{}.{}.{}", kStem, static_cast<std::int64_t>(time()), host, ::getpid());
  file_ = std::fopen(path_.c_str(), "wbe");
  if (!file_)
    fail<IoError>(fmt::format("{}: cannot create: {}", path_.string(), std::strerror(errno)));
  write(version_event(time()));
  if (resume_step > 0) write(restart_event(time(), resume_step + 1));
}

EventWriter::~EventWriter() {
  if (file_) std::fclose(file_);
}

double EventWriter::time() {
  last_time_ = std::max(last_time_, clock_());
  return last_time_;
}

void EventWriter::write(std::string_view event) {
  const std::string record = frame(event);
  if (std::fwrite(record.data(), 1, record.size(), file_) != record.size() ||
      std::fflush(file_) != 0)
    fail<IoError>(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(errno)));
}

void EventWriter::scalars(std::int64_t step,
                          const std::vector<std::pair<std::string, double>>& values) {
  write(scalar_event(time(), step, values));
}

void EventWriter::text(std::int64_t step, std::string_view tag, std::string_view markdown) {
  write(text_event(time(), step, tag, markdown));
}

}  // namespace lectern
