#include "nn/ocr2/weights.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace lectern {
namespace {

struct Rename {
  const char* module;
  const char* published;
};

/// Prefixes first to last; the first that fits wins (docs/ocr2.md section 4).
constexpr Rename kPrefixes[] = {
    {"model.vision_tower.sam_encoder.patch_embed.projection.", "model.sam_model.patch_embed.proj."},
    {"model.vision_tower.sam_encoder.layers.", "model.sam_model.blocks."},
    {"model.vision_tower.sam_encoder.neck.conv1.", "model.sam_model.neck.0."},
    {"model.vision_tower.sam_encoder.neck.layer_norm1.", "model.sam_model.neck.1."},
    {"model.vision_tower.sam_encoder.neck.conv2.", "model.sam_model.neck.2."},
    {"model.vision_tower.sam_encoder.neck.layer_norm2.", "model.sam_model.neck.3."},
    {"model.vision_tower.sam_encoder.proj.conv1.", "model.sam_model.net_2."},
    {"model.vision_tower.sam_encoder.proj.conv2.", "model.sam_model.net_3."},
    {"model.vision_tower.sam_encoder.", "model.sam_model."},
    {"model.vision_tower.vision_encoder.", "model.qwen2_model.model.model."},
    {"model.vision_tower.query_768_resolution.", "model.qwen2_model.query_768."},
    {"model.vision_tower.query_1024_resolution.", "model.qwen2_model.query_1024."},
    {"model.multi_modal_projector.", "model.projector.layers."},
    {"model.view_separator", "model.view_seperator"},
    {"model.language_model.", "model."},
};

constexpr Rename kSamNorms[] = {{".layer_norm1.", ".norm1."}, {".layer_norm2.", ".norm2."}};

bool wanted(const std::string& name, const std::vector<std::string>& prefixes) {
  return prefixes.empty() ||
         std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}

/// The folder's tensors under the names that parameters ask for: the parameter's own (a stack), or
/// its parts'.
class Source {
 public:
  Source(const std::filesystem::path& path,
         const std::function<std::string(const std::string&)>& rename)
      : path_(path), folder_(open(path)) {
    for (const std::string& name : folder_.names()) {
      const auto [at, is_new] = names_.emplace(rename(name), name);
      if (!is_new)
        fail<IoError>(fmt::format("{}: tensors {} and {} are the same parameter", path.string(),
                                  at->second, name));
    }
  }

  bool contains(const std::string& name) const { return names_.contains(name); }

  Tensor take(const std::string& name, const Shape& expected) {
    const auto found = names_.find(name);
    if (found == names_.end())
      fail<IoError>(fmt::format("{}: has no tensor {} {}", path_.string(), name, expected));
    const Tensor tensor = folder_.get(found->second);
    if (tensor.shape() != expected)
      fail<IoError>(fmt::format("{}: tensor {} must be {}, got {}", path_.string(), found->second,
                                expected, tensor.describe()));
    if (!is_floating(tensor.dtype()))
      fail<IoError>(fmt::format("{}: tensor {} must be floating, got {}", path_.string(),
                                found->second, tensor.describe()));
    used_.insert(name);
    return tensor;
  }

  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (const auto& [name, stored] : names_)
      if (!used_.contains(name)) out.push_back(stored);
    return out;
  }

 private:
  static SafetensorsFolder open(const std::filesystem::path& path) {
    return path.extension() == ".safetensors"
               ? SafetensorsFolder::open(path.parent_path(), path.stem().string())
               : SafetensorsFolder::open(path);
  }

  std::filesystem::path path_;
  SafetensorsFolder folder_;
  std::map<std::string, std::string> names_;  // published -> stored
  std::set<std::string> used_;
};

}  // namespace

std::string published_name(const std::string& name) {
  for (const auto& [module, published] : kPrefixes) {
    if (!name.starts_with(module)) continue;
    std::string out = published + name.substr(std::string_view(module).size());
    if (out.starts_with("model.sam_model.blocks."))
      for (const auto& [from, to] : kSamNorms)
        if (const auto at = out.find(from); at != std::string::npos)
          out.replace(at, std::string_view(from).size(), to);
    return out;
  }
  return name;
}

LoadReport load_weights(ParameterStore& store, const std::filesystem::path& path,
                        const std::vector<std::string>& prefixes, bool strict,
                        const std::function<std::string(const std::string&)>& rename) {
  Source source(path, rename);
  // Two passes: everything is checked before the first value changes.
  std::vector<std::pair<Tensor, Tensor>> copies;  // (view of the parameter, stored tensor)
  for (const Parameter& parameter : store.parameters()) {
    if (!wanted(parameter.name, prefixes)) continue;
    const Tensor& value = parameter.variable.value();
    if (source.contains(parameter.name)) {
      copies.emplace_back(value, source.take(parameter.name, value.shape()));
      continue;
    }
    for (const ParameterPart& part : parameter.parts) {
      const Tensor view = parameter.part_of(value, part);
      copies.emplace_back(view, source.take(part.name, view.shape()));
    }
  }
  LoadReport report;
  report.skipped = source.unused();
  if (strict && prefixes.empty() && !report.skipped.empty())
    fail<IoError>(fmt::format("{}: tensor {} is not part of this model ({} such tensors)",
                              path.string(), report.skipped[0], report.skipped.size()));
  for (const auto& [view, stored] : copies) {
    view.copy_from(stored);
    view.mark_modified();
    ++report.loaded;
  }
  return report;
}

}  // namespace lectern
