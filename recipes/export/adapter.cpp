#include "recipes/export/adapter.h"

#include "core/error.h"

namespace lectern {

std::vector<ExportedPair> pairs_of(const ExportSource& source) {
  const Adapter& adapter = *source.adapter();
  std::vector<ExportedPair> out;
  for (const auto& [matrix, shape] : adapter.shape()) {
    const auto [a, b] = adapter.pair(matrix);
    out.push_back({matrix, a.contiguous(), b.contiguous(), shape});
  }
  return out;
}

void check_adapter(const ExportSource& source, const ExportOptions& options,
                   const std::string& format) {
  if (source.adapter() == nullptr)
    fail<ConfigError>(fmt::format(
        "--format {}: needs an adapter: a run that trained one as --checkpoint, or --adapter",
        format));
  if (options.merge)
    fail<ConfigError>(fmt::format(
        "--merge: is for formats that hold a model (hf, original, gguf, lectern), got {}", format));
  if (options.type || options.vision_type)
    fail<ConfigError>("export: --type and --vision-type are for --format gguf");
}

}  // namespace lectern
