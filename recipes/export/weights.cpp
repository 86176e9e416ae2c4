// Weights of an export, tensor by tensor.
#include "core/convert_math.h"
#include "core/io/safetensors.h"
#include "recipes/export/layout.h"

#include <algorithm>
#include <cstring>

namespace lectern {
namespace {

/// Whether a tensor is rounded in a bf16 export: what is added to and multiplied by every value of
/// a row (norms, biases) is little, and stays exact.
bool is_rounded(const Shape& shape, DType dtype) {
  return dtype == DType::bf16 && shape.ndim() >= 2;
}

bool has_prefix(const std::string& name, const std::vector<std::string>& prefixes) {
  return prefixes.empty() ||
         std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}

void write_values(SafetensorsWriter& writer, DType dtype, std::span<const float> values) {
  if (dtype == DType::f32) {
    writer.write_piece(values.data(), values.size_bytes());
    return;
  }
  std::vector<BFloat16> rounded(values.size());
  convert_math::row_to_bf16(values.data(), std::ssize(values), rounded.data());
  writer.write_piece(rounded.data(), rounded.size() * sizeof(BFloat16));
}

}  // namespace

std::vector<std::string> write_weights(const ExportSource& source,
                                       const std::filesystem::path& path, DType dtype,
                                       const std::vector<std::string>& prefixes) {
  std::vector<SafetensorsWriter::Entry> entries;
  std::vector<std::string> names;
  for (const auto& [name, shape] : source.tensors()) {
    if (!has_prefix(name, prefixes)) continue;
    entries.push_back({name, is_rounded(shape, dtype) ? DType::bf16 : DType::f32, shape});
    names.push_back(name);
  }
  SafetensorsWriter writer(path, entries, {{"format", "pt"}});
  for (const auto& entry : entries) {
    for_each_piece(source.read(entry.name), [&](std::int64_t, std::span<const float> values) {
      write_values(writer, entry.dtype, values);
    });
    source.release(entry.name);
  }
  writer.commit();
  return names;
}

void check_written(const ExportSource& source, const std::string& name, const Tensor& written,
                   DType dtype, const std::filesystem::path& where) {
  const Tensor value = source.read(name);
  const bool rounded = is_rounded(value.shape(), dtype);
  bool equal = value.shape() == written.shape();
  const Tensor flat = equal ? written.contiguous().view({-1}) : Tensor();
  if (equal)
    for_each_piece(value, [&](std::int64_t begin, std::span<const float> want) {
      const Tensor got =
          flat.slice(0, begin, begin + static_cast<std::int64_t>(want.size())).to(DType::f32);
      const float* at = got.data<float>();
      for (std::size_t i = 0; i < want.size(); ++i) {
        const float expected = rounded ? static_cast<float>(BFloat16(want[i])) : want[i];
        equal = equal && std::memcmp(&expected, at + i, sizeof expected) == 0;
      }
    });
  source.release(name);
  if (!equal)
    fail<IoError>(fmt::format("{}: tensor {} differs from the model after it was read back",
                              where.string(), name));
}

}  // namespace lectern
