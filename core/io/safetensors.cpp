#include "core/io/safetensors.h"

#include "core/convert_math.h"

#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string_view>

namespace lectern {
namespace {

constexpr std::size_t kMaxHeaderBytes = std::size_t{100} << 20;  // the reference's own limit

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr DTypeName kDTypeNames[] = {{DType::f64, "F64"},   {DType::f32, "F32"},
                                     {DType::bf16, "BF16"}, {DType::i64, "I64"},
                                     {DType::i32, "I32"},   {DType::u8, "U8"}};

/// Dtypes of the format that are not ours, and their bytes. A file may hold tensors of them; only
/// F16 can be read, as f32.
struct ForeignDType {
  const char* name;
  std::size_t bytes;
};
constexpr ForeignDType kForeignDTypes[] = {
    {"F16", 2},         {"BOOL", 1},        {"I8", 1},     {"I16", 2},     {"U16", 2},
    {"U32", 4},         {"U64", 8},         {"C64", 8},    {"F8_E4M3", 1}, {"F8_E5M2", 1},
    {"F8_E4M3FNUZ", 1}, {"F8_E5M2FNUZ", 1}, {"F8_E8M0", 1}};
constexpr std::string_view kHalf = "F16";

std::optional<DType> parse_dtype(const std::string& name) {
  for (const auto& [dtype, text] : kDTypeNames)
    if (name == text) return dtype;
  return std::nullopt;
}

const ForeignDType* foreign_dtype(const std::string& name) {
  for (const ForeignDType& foreign : kForeignDTypes)
    if (name == foreign.name) return &foreign;
  return nullptr;
}

/// "... got F8_E4M3", with what helps where that is known.
std::string dtype_rule(const std::string& found) {
  std::string out =
      fmt::format("dtype must be F64, F32, F16, BF16, I64, I32 or U8, got \"{}\"", found);
  if (found.starts_with("F8") || found.starts_with("F4") || found.starts_with("F6"))
    out += "; quantized weights are not read: take the model as it was before";
  return out;
}

const char* safetensors_name(DType dtype) {
  for (const auto& [value, text] : kDTypeNames)
    if (value == dtype) return text;
  return "?";
}

/// shape.numel() * element size, or nothing when it overflows 63 bits.
std::optional<std::size_t> checked_bytes(const Shape& shape, std::size_t element) {
  std::int64_t bytes = static_cast<std::int64_t>(element);
  for (const std::int64_t size : shape)
    if (__builtin_mul_overflow(bytes, size, &bytes)) return std::nullopt;
  return static_cast<std::size_t>(bytes);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const MappedFile file = map_file(path);
  const auto bytes = file.bytes;
  if (bytes.size() < 8)
    fail<IoError>(fmt::format("{}: header length must be 8 bytes, got a file of {} bytes",
                              path.string(), bytes.size()));
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, bytes.data(), 8);
  constexpr std::string_view kPointer = "version https://git-lfs";
  if (std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())
          .starts_with(kPointer))
    fail<IoError>(fmt::format(
        "{}: must be a safetensors file, got a Git LFS pointer to one (git lfs pull fetches it)",
        path.string()));
  if (header_bytes > bytes.size() - 8 || header_bytes > kMaxHeaderBytes)
    fail<IoError>(fmt::format("{}: header length must fit the file of {} bytes, got {}",
                              path.string(), bytes.size(), header_bytes));
  SafetensorsFile out;
  out.path_ = path;
  out.mapping_ = file.owner;
  out.data_ = reinterpret_cast<char*>(const_cast<std::byte*>(bytes.data())) + 8 + header_bytes;
  out.parse_header(std::string(reinterpret_cast<const char*>(bytes.data()) + 8,
                               static_cast<std::size_t>(header_bytes)));
  out.check_layout(bytes.size() - 8 - static_cast<std::size_t>(header_bytes));
  return out;
}

void SafetensorsFile::parse_header(const std::string& text) {
  const auto bad = [&](const std::string& what) {
    fail<IoError>(fmt::format("{}: {}", path_.string(), what));
  };
  const nlohmann::json header = parse_json(text, path_.string() + " (header)", JsonKeys::unique);
  if (!header.is_object()) bad("header must be a JSON object");
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) bad("__metadata__ must be an object of strings");
      for (const auto& [key, item] : value.items()) {
        if (!item.is_string()) bad(fmt::format("__metadata__.{} must be a string", key));
        metadata_[key] = item.get<std::string>();
      }
      continue;
    }
    if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
        !value.contains("data_offsets") || !value["dtype"].is_string() ||
        !value["shape"].is_array() || !value["data_offsets"].is_array())
      bad(fmt::format("tensor {}: needs dtype (string), shape and data_offsets (arrays)", name));
    Entry entry{};
    const auto dtype_name = value["dtype"].get<std::string>();
    if (const auto dtype = parse_dtype(dtype_name)) {
      entry.dtype = *dtype;
      entry.element = size_of(*dtype);
    } else if (const ForeignDType* foreign = foreign_dtype(dtype_name)) {
      entry.foreign = foreign->name;
      entry.element = foreign->bytes;
    } else {
      bad(fmt::format("tensor {}: {}", name, dtype_rule(dtype_name)));
    }
    if (value["shape"].size() > Shape::kMaxDims)
      bad(fmt::format("tensor {}: at most 8 dimensions, got {}", name, value["shape"].size()));
    for (const auto& size : value["shape"]) {
      if (!size.is_number_unsigned() || size.get<std::uint64_t>() > (std::uint64_t{1} << 62))
        bad(fmt::format("tensor {}: shape must hold sizes of 0 or more, got {}", name,
                        size.dump()));
      entry.shape.push_back(size.get<std::int64_t>());
    }
    const auto& offsets = value["data_offsets"];
    if (offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned())
      bad(fmt::format("tensor {}: data_offsets must be [begin, end], got {}", name,
                      offsets.dump()));
    entry.begin = offsets[0].get<std::size_t>();
    entry.end = offsets[1].get<std::size_t>();
    entries_.emplace(name, entry);
  }
}

void SafetensorsFile::check_layout(std::size_t data_bytes) const {
  std::vector<std::pair<std::string, Entry>> ordered(entries_.begin(), entries_.end());
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second.begin, a.second.end) < std::pair(b.second.begin, b.second.end);
  });
  std::size_t position = 0;
  for (const auto& [name, entry] : ordered) {
    const auto bytes = checked_bytes(entry.shape, entry.element);
    if (entry.begin != position || entry.end < entry.begin || entry.end > data_bytes)
      fail<IoError>(fmt::format(
          "{}: tensor {}: data_offsets must follow on byte {} and end within {}, got [{}, {}]",
          path_.string(), name, position, data_bytes, entry.begin, entry.end));
    if (!bytes || *bytes != entry.end - entry.begin)
      fail<IoError>(fmt::format("{}: tensor {}: data_offsets must span {} {}, got {} bytes",
                                path_.string(), name,
                                entry.foreign.empty() ? name_of(entry.dtype) : entry.foreign,
                                entry.shape, entry.end - entry.begin));
    position = entry.end;
  }
  if (position != data_bytes)
    fail<IoError>(fmt::format("{}: data must be {} bytes as the header says, got {}",
                              path_.string(), position, data_bytes));
}

const SafetensorsFile::Entry& SafetensorsFile::find(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end())
    fail<IoError>(fmt::format("{}: has no tensor {}", path_.string(), name));
  return found->second;
}

const SafetensorsFile::Entry& SafetensorsFile::find_readable(const std::string& name) const {
  const Entry& entry = find(name);
  if (!entry.foreign.empty() && entry.foreign != kHalf)
    fail<IoError>(fmt::format("{}: tensor {}: {}", path_.string(), name,
                              dtype_rule(std::string(entry.foreign))));
  return entry;
}

Tensor SafetensorsFile::get(const std::string& name) const {
  const Entry& entry = find_readable(name);
  char* begin = data_ + entry.begin;
  if (entry.foreign == kHalf) {
    Tensor out = Tensor::empty(entry.shape, DType::f32);
    float* values = out.data<float>();
    for (std::int64_t i = 0; i < out.numel(); ++i) {
      std::uint16_t half = 0;
      std::memcpy(&half, begin + 2 * i, 2);
      values[i] = convert_math::half_to_f32(half);
    }
    return out;
  }
  Tensor mapped = Tensor::wrap(begin, entry.shape, entry.dtype, mapping_);
  // A foreign writer may not have aligned its data; such a tensor is copied.
  return reinterpret_cast<std::uintptr_t>(begin) % size_of(entry.dtype) == 0 ? mapped : [&] {
    Tensor copy = Tensor::empty(entry.shape, entry.dtype);
    if (copy.bytes() > 0) std::memcpy(copy.raw(), begin, copy.bytes());
    return copy;
  }();
}

std::optional<Tensor> SafetensorsFile::get_joined(const std::vector<std::string>& names,
                                                  const Shape& shape) const {
  if (names.empty()) return {};
  const Entry first = find(names[0]);
  std::size_t end = first.begin;
  for (const std::string& name : names) {
    const Entry& entry = find(name);
    if (!entry.foreign.empty() || entry.dtype != first.dtype || entry.begin != end) return {};
    end = entry.end;
  }
  char* begin = data_ + first.begin;
  const auto bytes = checked_bytes(shape, size_of(first.dtype));
  if (!bytes || *bytes != end - first.begin ||
      reinterpret_cast<std::uintptr_t>(begin) % size_of(first.dtype) != 0)
    return {};
  return Tensor::wrap(begin, shape, first.dtype, mapping_);
}

void SafetensorsFile::release(const std::string& name) const {
  const Entry& entry = find(name);
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  // Only whole pages, so that a neighbour that is in use stays.
  const auto first = reinterpret_cast<std::uintptr_t>(data_ + entry.begin);
  const std::uintptr_t begin = (first + page - 1) / page * page;
  const std::uintptr_t end = reinterpret_cast<std::uintptr_t>(data_ + entry.end) / page * page;
  if (begin < end) ::madvise(data_ + entry.begin + (begin - first), end - begin, MADV_DONTNEED);
}

Shape SafetensorsFile::shape_of(const std::string& name) const { return find(name).shape; }
DType SafetensorsFile::dtype_of(const std::string& name) const { return find_readable(name).dtype; }

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : entries_) out.push_back(name);
  return out;
}

namespace {

/// Weights in a format that is not read: what others than safetensors are called.
bool is_other_format(const std::filesystem::path& path) {
  const std::string suffix = path.extension().string();
  for (const char* other : {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".gguf",
                            ".ggml", ".npz", ".onnx"})
    if (suffix == other) return true;
  return false;
}

[[noreturn]] void refuse_other_format(const std::filesystem::path& folder,
                                      const std::string& wanted, const std::string& found) {
  fail<IoError>(fmt::format(
      "{}: weights must be in {} (or shards with their index), got {}, which lectern does not "
      "read; where it is PyTorch's, convert it: python3 -c \"import torch, safetensors.torch as s; "
      "s.save_file({{k: v.contiguous().clone() for k, v in torch.load('{}', map_location='cpu', "
      "weights_only=True).items()}}, 'model.safetensors')\" (several .bin files: transformers' "
      "from_pretrained() and save_pretrained())",
      folder.string(), wanted, found, found));
}

/// Throws for a folder without the file `wanted`, with what it has instead.
[[noreturn]] void refuse_without_weights(const std::filesystem::path& folder,
                                         const std::string& wanted) {
  std::error_code error;
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    if (entry.path().filename() == "adapter_model.safetensors")
      fail<IoError>(fmt::format(
          "{}: weights must be in {} (or shards with their index), got adapter_model.safetensors, "
          "an adapter (LoRA): merge it into its base model first (peft's merge_and_unload())",
          folder.string(), wanted));
    if (is_other_format(entry.path())) found.push_back(entry.path().filename().string());
  }
  if (found.empty())
    fail<IoError>(fmt::format("{}: must have {} or {}.index.json, got neither", folder.string(),
                              wanted, wanted));
  refuse_other_format(folder, wanted, *std::min_element(found.begin(), found.end()));
}

}  // namespace

SafetensorsFolder SafetensorsFolder::open(const std::filesystem::path& folder,
                                          const std::string& stem) {
  SafetensorsFolder out;
  out.folder_ = folder;
  const auto index_path = folder / (stem + ".safetensors.index.json");
  if (!std::filesystem::exists(index_path)) {
    if (is_other_format(folder) && std::filesystem::is_regular_file(folder))
      refuse_other_format(folder.parent_path(), "a .safetensors file", folder.filename().string());
    if (!std::filesystem::exists(folder / (stem + ".safetensors")))
      refuse_without_weights(folder, stem + ".safetensors");
    out.files_.push_back(SafetensorsFile::open(folder / (stem + ".safetensors")));
    for (const auto& name : out.files_[0].names()) out.where_[name] = 0;
    return out;
  }
  const nlohmann::json index = parse_json(read_file(index_path), index_path.string());
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
    fail<IoError>(fmt::format("{}: weight_map must be an object", index_path.string()));
  std::map<std::string, std::size_t> opened;
  for (const auto& [name, file] : index["weight_map"].items()) {
    if (!file.is_string() || file.get<std::string>().find('/') != std::string::npos)
      fail<IoError>(fmt::format("{}: weight_map.{} must be a file name, got {}",
                                index_path.string(), name, file.dump()));
    const auto [at, is_new] = opened.try_emplace(file.get<std::string>(), out.files_.size());
    if (is_new) out.files_.push_back(SafetensorsFile::open(folder / at->first));
    if (!out.files_[at->second].contains(name))
      fail<IoError>(fmt::format("{}: weight_map.{} names {}, which has no such tensor",
                                index_path.string(), name, at->first));
    out.where_[name] = at->second;
  }
  return out;
}

std::size_t SafetensorsFolder::file_of(const std::string& name) const {
  const auto found = where_.find(name);
  if (found == where_.end())
    fail<IoError>(fmt::format("{}: has no tensor {}", folder_.string(), name));
  return found->second;
}

Tensor SafetensorsFolder::get(const std::string& name) const {
  return files_[file_of(name)].get(name);
}

std::optional<Tensor> SafetensorsFolder::get_joined(const std::vector<std::string>& names,
                                                    const Shape& shape) const {
  if (names.empty()) return {};
  const std::size_t file = file_of(names[0]);
  for (const std::string& name : names)
    if (file_of(name) != file) return {};
  return files_[file].get_joined(names, shape);
}

Shape SafetensorsFolder::shape_of(const std::string& name) const {
  return files_[file_of(name)].shape_of(name);
}

DType SafetensorsFolder::dtype_of(const std::string& name) const {
  return files_[file_of(name)].dtype_of(name);
}

void SafetensorsFolder::release(const std::string& name) const {
  files_[file_of(name)].release(name);
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> out;
  for (const auto& [name, file] : where_) out.push_back(name);
  return out;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<Entry> entries,
                                     const std::map<std::string, std::string>& metadata)
    : path_(path), entries_(std::move(entries)), file_(path) {
  constexpr std::size_t kAlignment = 64;  // of the data: a cache line, the reach of a vector load
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::size_t position = 0;
  for (const auto& [name, dtype, shape] : entries_) {
    if (name == "__metadata__")
      fail<IoError>(fmt::format("{}: a tensor must not be named __metadata__", path.string()));
    if (header.contains(name))
      fail<IoError>(fmt::format("{}: tensor {} is given twice", path.string(), name));
    const auto bytes = checked_bytes(shape, size_of(dtype));
    if (!bytes)
      fail<IoError>(fmt::format("{}: tensor {} {} is too large", path.string(), name, shape));
    header[name] = {{"dtype", safetensors_name(dtype)},
                    {"shape", std::vector<std::int64_t>(shape.begin(), shape.end())},
                    {"data_offsets", {position, position + *bytes}}};
    position += *bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    fail<IoError>(
        fmt::format("{}: names and metadata must be UTF-8: {}", path.string(), error.what()));
  }
  text.append((kAlignment - (8 + text.size()) % kAlignment) % kAlignment, ' ');
  const std::uint64_t header_bytes = text.size();
  file_.write(&header_bytes, 8);
  file_.write(text.data(), text.size());
}

void SafetensorsWriter::write(const Tensor& tensor) {
  if (next_ == entries_.size())
    fail<IoError>(
        fmt::format("{}: all {} tensors are written already", path_.string(), entries_.size()));
  const Entry& entry = entries_[next_];
  if (tensor.dtype() != entry.dtype || tensor.shape() != entry.shape)
    fail<IoError>(fmt::format("{}: tensor {} must be {} {}, got {}", path_.string(), entry.name,
                              name_of(entry.dtype), entry.shape, tensor.describe()));
  const Tensor contiguous = tensor.to(Device{}).contiguous();
  write_piece(contiguous.raw(), contiguous.bytes());
}

void SafetensorsWriter::write_piece(const void* data, std::size_t bytes) {
  if (next_ == entries_.size())
    fail<IoError>(
        fmt::format("{}: all {} tensors are written already", path_.string(), entries_.size()));
  const Entry& entry = entries_[next_];
  const std::size_t whole = *checked_bytes(entry.shape, size_of(entry.dtype));
  if (bytes > whole - written_)
    fail<IoError>(fmt::format("{}: tensor {} has {} bytes, got {}", path_.string(), entry.name,
                              whole, written_ + bytes));
  if (bytes > 0) file_.write(data, bytes);
  written_ += bytes;
  if (written_ < whole) return;
  written_ = 0;
  ++next_;
}

void SafetensorsWriter::commit() {
  if (next_ != entries_.size())
    fail<IoError>(
        fmt::format("{}: tensor {} was not written", path_.string(), entries_[next_].name));
  file_.commit();
}

void save_safetensors(const std::filesystem::path& path,
                      const std::vector<std::pair<std::string, Tensor>>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, tensor] : tensors)
    entries.push_back({name, tensor.dtype(), tensor.shape()});
  SafetensorsWriter writer(path, std::move(entries), metadata);
  for (const auto& [name, tensor] : tensors) writer.write(tensor);
  writer.commit();
}

}  // namespace lectern
