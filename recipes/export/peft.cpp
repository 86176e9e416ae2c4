// A low-rank adapter as PEFT writes and reads it.
#include "recipes/checkpoint/peft.h"

#include "core/error.h"
#include "core/io/safetensors.h"
#include "core/notice.h"
#include "recipes/export/adapter.h"

#include <nlohmann/json.hpp>

#include <cstring>
#include <map>
#include <regex>
#include <set>

namespace lectern {
namespace {

using nlohmann::json;

constexpr const char* kPeft = "peft";

/// What PEFT holds as one parameter of a layer, not as modules: experts.
bool is_of_expert(const std::string& matrix) { return is_routed_expert(matrix + ".weight"); }

/// A regular expression for exactly these module names: dots escaped, the first number of each as
/// a choice among those that occur.
std::string expression_for(const std::set<std::string>& modules) {
  static const std::regex number("\\.([0-9]+)\\.");
  std::map<std::string, std::set<int>> numbers;  // name with "." + "*" + "." -> numbers
  for (const std::string& module : modules) {
    std::smatch match;
    if (std::regex_search(module, match, number))
      numbers[match.prefix().str() + ".*." + match.suffix().str()].insert(std::stoi(match[1]));
    else
      numbers[module];
  }
  std::string out;
  for (const auto& [name, choices] : numbers) {
    std::string expression;
    for (const char c : name) {
      if (c == '.')
        expression += "\\.";
      else if (c == '*')
        expression += fmt::format("({})", fmt::join(choices, "|"));
      else
        expression += c;
    }
    out += (out.empty() ? "" : "|") + expression;
  }
  return out;
}

std::string module_of(const std::string& matrix, const ModelConfig& config) {
  return matrix_of_tensor(config.module_name(matrix + ".weight"));
}

void check_peft(const ExportSource& source, const ExportOptions& options) {
  check_adapter(source, options, kPeft);
  const AdapterInfo& info = source.model().adapter_info;
  std::string ignored;
  for (const auto& [matrix, pair] : source.adapter()->shape()) {
    if (matches_any(matrix + ".weight", {kRouters}))
      fail<ConfigError>(fmt::format(
          "--format peft: {} cannot be adapted there: the router is no linear module of "
          "transformers, which PEFT refuses (--merge writes a whole model, --format gguf-lora an "
          "adapter for llama.cpp)",
          matrix));
    const PairShape usual = {info.rank, low_rank_scale(info.rank, info.alpha, info.rslora)};
    if (pair != usual)
      fail<ConfigError>(fmt::format(
          "--format peft: all pairs must be of rank {} and factor {}, got {} and {} at {}",
          usual.rank, usual.scale, pair.rank, pair.scale, matrix));
    const bool is_read_by_vllm = matrix.starts_with(kDecoderBlocks);
    if (!is_read_by_vllm && ignored.empty()) ignored = matrix;
  }
  if (!ignored.empty())
    notice(
        fmt::format("vLLM adapts the decoder's layers alone: it would leave out {} and its like "
                    "in silence; transformers with peft reads them",
                    ignored));
}

json peft_config(const ExportSource& source) {
  const AdapterInfo& info = source.model().adapter_info;
  std::set<std::string> modules;
  bool has_gate_up = false, has_down = false;
  for (const auto& [matrix, pair] : source.adapter()->shape()) {
    if (!is_of_expert(matrix))
      modules.insert(module_of(matrix, source.config()));
    else if (matrix.ends_with("down_proj"))
      has_down = true;
    else
      has_gate_up = true;
  }
  json out = {{"peft_type", "LORA"},
              {"task_type", "CAUSAL_LM"},
              {"base_model_name_or_path", source.model().folder.string()},
              {"r", info.rank},
              {"lora_alpha", info.alpha},
              {"lora_dropout", 0.0},
              {"bias", "none"},
              {"fan_in_fan_out", false},
              {"inference_mode", true},
              {"init_lora_weights", true},
              {"use_dora", false},
              {"use_rslora", info.rslora},
              {"modules_to_save", nullptr},
              {"rank_pattern", json::object()},
              {"alpha_pattern", json::object()}};
  if (modules.empty())
    out["target_modules"] = json::array();
  else
    out["target_modules"] = expression_for(modules);
  // gate and up of all experts are one parameter in transformers: PEFT joins their pairs into one
  // of twice the rank, and so of twice the alpha.
  json parameters = json::array();
  if (has_gate_up) {
    parameters.push_back("mlp.experts.gate_up_proj");
    out["rank_pattern"] = {{"mlp.experts.gate_up_proj", 2 * info.rank}};
    out["alpha_pattern"] = {{"mlp.experts.gate_up_proj", 2 * info.alpha}};
  }
  if (has_down) parameters.push_back("mlp.experts.down_proj");
  if (!parameters.empty()) out["target_parameters"] = parameters;
  return out;
}

std::int64_t write_peft(const ExportSource& source, const std::filesystem::path& folder,
                        const ExportOptions& options) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const ExportedPair& pair : pairs_of(source))
    for (const auto& [end, tensor] :
         {std::pair{".lora_A.weight", &pair.a}, {".lora_B.weight", &pair.b}})
      tensors.emplace_back(kPeftPrefix + pair.matrix + end, tensor->to(options.dtype));
  save_safetensors(folder / kPeftWeights, tensors, {{"format", "pt"}});
  write_json(folder / kPeftConfig, peft_config(source));
  return std::ssize(tensors);
}

void verify_peft(const ExportSource& source, const std::filesystem::path& folder,
                 const ExportOptions& options) {
  const AdapterInfo info = read_peft_info(folder, source.config());
  if (info.shape != source.adapter()->shape())
    fail<IoError>(fmt::format("{}: pairs differ after they were read back", folder.string()));
  const SafetensorsFile file = SafetensorsFile::open(folder / kPeftWeights);
  for (const ExportedPair& pair : pairs_of(source))
    for (const auto& [end, tensor] :
         {std::pair{".lora_A.weight", &pair.a}, {".lora_B.weight", &pair.b}}) {
      const Tensor want = tensor->to(options.dtype),
                   got = file.get(kPeftPrefix + pair.matrix + end);
      if (got.shape() != want.shape() || got.dtype() != want.dtype() ||
          std::memcmp(got.raw(), want.raw(), want.bytes()) != 0)
        fail<IoError>(fmt::format("{}: {}{} differs after it was read back", folder.string(),
                                  pair.matrix, end));
    }
}

}  // namespace

ExportLayout peft_layout() { return {"", kPeft, check_peft, write_peft, verify_peft}; }

}  // namespace lectern
