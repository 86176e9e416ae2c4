#include "recipes/bench/generate.h"

#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "core/parallel.h"
#include "core/random.h"
#include "core/stopwatch.h"
#include "nn/families.h"
#include "nn/generation/generation.h"
#include "recipes/bench/views.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/machine/process_memory.h"
#include "recipes/machine/versions.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <memory>

namespace lectern {
namespace {

constexpr std::int64_t kTextTokens = 8;

/// begin, the rows of the page's views, `kTextTokens` of prompt: as torch_generate.py has them.
ModelInput random_prompt(const ModelConfig& config, const BenchGenerateArgs& args) {
  const std::int64_t rows =
      config.picture_tokens(kGlobalSize, kTileSize, args.crops, args.crops > 0 ? 1 : 0);
  const std::int64_t length = 1 + rows + kTextTokens;
  ModelInput input;
  input.input_ids = Tensor::full({args.batch, length}, 7, DType::i32);
  for (std::int64_t b = 0; b < args.batch; ++b)
    input.input_ids.slice(0, b, b + 1)
        .slice(1, 1, 1 + rows)
        .fill(static_cast<double>(config.image_token_id));
  input.pixel_values = Tensor::empty({args.batch, 3, kGlobalSize, kGlobalSize});
  Random(0, "bench/global").fill_normal(input.pixel_values, 0, 1);
  if (args.crops > 0) {
    input.pixel_values_local = Tensor::empty({args.batch * args.crops, 3, kTileSize, kTileSize});
    Random(0, "bench/local").fill_normal(input.pixel_values_local, 0, 1);
  }
  input.num_local_patches.assign(static_cast<std::size_t>(args.batch), args.crops);
  return input;
}

/// Values as torch_generate.py draws them: norms 1, everything else small and uniform.
void fill_like_the_peer(const std::string& name, const Tensor& out, std::uint64_t seed) {
  if (out.ndim() == 1 && name.ends_with("weight") && name.find("norm") != std::string::npos)
    return out.fill(1.0);
  const Tensor drawn = Tensor::empty(out.shape());
  Random(seed, "bench/" + name).fill_uniform(drawn, -0.03, 0.03);
  out.copy_from(drawn);
}

std::unique_ptr<OcrModel> random_model(const ModelConfig& config, DType dtype) {
  auto model = config.make(0, dtype, ParameterValues::absent);
  for (const Parameter& parameter : model->store().parameters()) {
    Variable variable = parameter.variable;
    variable.set_value(Tensor::empty(variable.shape(), variable.dtype()));
    for (const ParameterPart& part : parameter.parts)
      fill_like_the_peer(part.name, parameter.part_of(variable.value(), part), 0);
  }
  return model;
}

/// Bytes of weights that one decoded token reads: everything in the decoder but the experts that
/// are not chosen and the token embedding.
double bytes_a_token(const OcrModel& model) {
  const DecoderConfig& text = model.config().decoder;
  double bytes = 0;
  for (const Parameter& parameter : model.store().parameters()) {
    const std::string& name = parameter.name;
    if (!name.starts_with(kDecoderBlocks) && !Decoder::is_head(name)) continue;
    const double share = !is_routed_expert(name) ? 1.0
                                                 : static_cast<double>(text.num_experts_per_tok) /
                                                       static_cast<double>(text.n_routed_experts);
    bytes += share * static_cast<double>(parameter.variable.value().bytes());
  }
  return bytes;
}

}  // namespace

nlohmann::ordered_json bench_generate(const BenchGenerateArgs& args) {
  const DType dtype = weight_dtype(args.dtype);
  if (args.threads > 0) set_thread_count(static_cast<int>(args.threads));
  const auto read = read_model_config(args.config);
  const ModelConfig& config = *read;
  const double start = now();
  std::int64_t mapped = 0;
  const auto model = args.checkpoint.empty() ? random_model(config, dtype)
                                             : load_model(args.checkpoint, config, dtype, &mapped);
  const double load_seconds = now() - start;
  const ModelInput prompt = random_prompt(config, args);
  double first = 0;
  GenerationStatistics best;
  constexpr int kRuns = 4;  // the first one reads from the disk what is not in memory yet
  for (int i = 0; i < kRuns; ++i) {
    GenerationStatistics done;
    generate(*model, prompt, {.max_new_tokens = 1 + args.tokens, .eos = {}, .guard = {}}, nullptr,
             {}, &done);
    if (i <= 1) best = done;
    best.encode = std::min(best.encode, done.encode);
    best.prefill = std::min(best.prefill, done.prefill);
    best.decode = std::min(best.decode, done.decode);
    first = i <= 1 ? done.encode + done.prefill : std::min(first, done.encode + done.prefill);
  }
  nlohmann::ordered_json out = {
      {"peer", std::string("lectern ") + kVersion},
      {"dtype", args.dtype},
      {"threads", thread_count()},
      {"batch", args.batch},
      {"crops", args.crops},
      {"parameters", model->store().parameter_count()},
      {"seconds_to_first_token", rounded(first, 1e-3)},
      {"tokens_per_second", rounded(best.tokens_per_second(), 1e-3)},
      {"peak_bytes", peak_resident_bytes()},
      {"mapped_tensors", mapped},
      {"load_seconds", rounded(load_seconds, 1e-3)},
      {"encode_seconds", rounded(best.encode, 1e-3)},
      {"prefill_seconds", rounded(best.prefill, 1e-3)},
      {"decode_seconds", rounded(best.decode, 1e-3)},
      {"prefill_tokens_per_second",
       rounded(static_cast<double>(best.prompt_tokens) / best.prefill, 1e-1)}};
  if (args.batch == 1)
    out["decode_bytes_per_second"] = std::round(bytes_a_token(*model) * best.tokens_per_second());
  return out;
}

nlohmann::ordered_json write_random_weights(const std::filesystem::path& config_file,
                                            const std::filesystem::path& folder,
                                            std::uint64_t seed) {
  const auto config = read_model_config(config_file);
  const auto model = config->make(seed, DType::bf16, ParameterValues::absent);
  std::vector<SafetensorsWriter::Entry> entries;
  for (const auto& [name, view] : model->store().file_order_state())
    entries.push_back({name, DType::bf16, view.shape()});
  std::filesystem::create_directories(folder);
  SafetensorsWriter writer(folder / "model.safetensors", entries, {{"format", "pt"}});
  for (const auto& [name, dtype, shape] : entries) {
    const Tensor values = Tensor::empty(shape, dtype);
    fill_like_the_peer(name, values, seed);
    writer.write(values);
  }
  writer.commit();
  write_file(folder / "config.json", config->to_json().dump(2) + "\n");
  return {{"folder", folder.string()},
          {"tensors", entries.size()},
          {"parameters", model->store().parameter_count()},
          {"bytes", std::filesystem::file_size(folder / "model.safetensors")}};
}

}  // namespace lectern
