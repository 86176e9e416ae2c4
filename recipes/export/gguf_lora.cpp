// A low-rank adapter for llama.cpp: each pair beside the tensor that it changes.
#include "core/error.h"
#include "recipes/export/adapter.h"
#include "recipes/export/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace lectern {
namespace {

constexpr const char* kFormat = "gguf-lora";
constexpr const char* kFile = "adapter.gguf";

/// Both tensors of one tensor of the base; those of experts stacked.
struct GgufPair {
  std::vector<ExportedPair> stack;  ///< in order of the experts; else one
  bool is_stack = false;

  Shape shape_of(const Tensor& matrix) const {
    const Shape shape = matrix.shape();
    return is_stack ? Shape{static_cast<std::int64_t>(stack.size()), shape[0], shape[1]} : shape;
  }
};

std::map<std::string, GgufPair> gguf_pairs(const ExportSource& source) {
  std::map<std::string, std::map<std::int64_t, ExportedPair>> by_name;
  for (const ExportedPair& pair : pairs_of(source)) {
    const auto target = gguf_target(gguf_decoder_rules(), pair.matrix + ".weight");
    by_name[target.value().name].emplace(target->stack, pair);
  }
  std::map<std::string, GgufPair> out;
  for (const auto& [name, stack] : by_name) {
    GgufPair& here = out[name];
    here.is_stack = stack.begin()->first >= 0;
    for (const auto& [place, pair] : stack) here.stack.push_back(pair);
  }
  return out;
}

/// The file's alpha: readers take alpha / rank, whatever the factor was made from.
double alpha_of(const PairShape& pair) { return pair.scale * static_cast<double>(pair.rank); }

void check_gguf_lora(const ExportSource& source, const ExportOptions& options) {
  check_adapter(source, options, kFormat);
  if (options.dtype != DType::f32) fail<ConfigError>("--format gguf-lora writes f32, got --dtype");
  GgufLimits limits;
  check_gguf_decoder(source.model(), limits);
  limits.check();
  const AdapterShape& shape = source.adapter()->shape();
  const double alpha = alpha_of(shape.begin()->second);
  for (const auto& [matrix, pair] : shape) {
    if (Decoder::is_head(matrix + ".weight"))
      fail<ConfigError>(fmt::format(
          "--format gguf-lora: {} cannot be adapted there: llama.cpp reads the pair and leaves it "
          "out in silence (--merge --format gguf writes a whole model)",
          matrix));
    if (!gguf_target(gguf_decoder_rules(), matrix + ".weight"))
      fail<ConfigError>(fmt::format(
          "--format gguf-lora: {} cannot be adapted there: llama.cpp adapts the decoder alone "
          "(--merge --format gguf writes a whole model)",
          matrix));
    if (std::abs(alpha_of(pair) - alpha) > 1e-9 * alpha)
      fail<ConfigError>(
          fmt::format("--format gguf-lora: all pairs must have one alpha, got {} and {} (at {})",
                      alpha, alpha_of(pair), matrix));
  }
}

std::int64_t write_gguf_lora(const ExportSource& source, const std::filesystem::path& folder,
                             const ExportOptions&) {
  const auto pairs = gguf_pairs(source);
  const double alpha = alpha_of(source.adapter()->shape().begin()->second);
  const GgufMetadata metadata = {{"general.architecture", std::string("deepseek2-ocr")},
                                 {"general.type", std::string("adapter")},
                                 {"general.name", std::string("lectern adapter")},
                                 {"adapter.type", std::string("lora")},
                                 {"adapter.lora.alpha", static_cast<float>(alpha)}};
  std::vector<GgufEntry> entries;
  for (const auto& [name, pair] : pairs) {
    entries.push_back({name + ".lora_a", GgufType::f32, pair.shape_of(pair.stack[0].a)});
    entries.push_back({name + ".lora_b", GgufType::f32, pair.shape_of(pair.stack[0].b)});
  }
  const auto tensors = std::ssize(entries);
  GgufWriter writer(folder / kFile, metadata, std::move(entries));
  const auto write = [&](const Tensor& tensor) {
    writer.write({tensor.data<float>(), static_cast<std::size_t>(tensor.numel())});
  };
  for (const auto& [name, pair] : pairs) {
    for (const ExportedPair& matrix : pair.stack) write(matrix.a);
    for (const ExportedPair& matrix : pair.stack) write(matrix.b);
  }
  writer.commit();
  return tensors;
}

void verify_gguf_lora(const ExportSource& source, const std::filesystem::path& folder,
                      const ExportOptions&) {
  const GgufFile file = GgufFile::open(folder / kFile);
  for (const auto& [name, pair] : gguf_pairs(source))
    for (const bool is_b : {false, true}) {
      const std::string tensor = name + (is_b ? ".lora_b" : ".lora_a");
      const std::vector<float> got = file.values(tensor);
      std::size_t at = 0;
      for (const ExportedPair& matrix : pair.stack) {
        const Tensor& want = is_b ? matrix.b : matrix.a;
        const auto count = static_cast<std::size_t>(want.numel());
        if (at + count > got.size() ||
            std::memcmp(got.data() + at, want.data<float>(), want.bytes()) != 0)
          fail<IoError>(fmt::format("{}: {} differs after it was read back",
                                    (folder / kFile).string(), tensor));
        at += count;
      }
    }
}

}  // namespace

ExportLayout gguf_lora_layout() {
  return {"", kFormat, check_gguf_lora, write_gguf_lora, verify_gguf_lora};
}

}  // namespace lectern
