#include "recipes/bench_step.h"

#include "core/parallel.h"
#include "core/random.h"
#include "nn/ocr2/model.h"
#include "nn/optimizer.h"
#include "recipes/process_memory.h"
#include "recipes/recipe.h"
#include "recipes/versions.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace lectern {
namespace {

constexpr std::int64_t kGlobalSize = 1024, kTileSize = 768;
constexpr std::int64_t kSmallestVocabulary = 32;

Ocr2Input random_input(const Ocr2Config& config, const BenchStepArgs& args) {
  const std::int64_t image_tokens =
      args.crops * config.query_count(kTileSize) + config.query_count(kGlobalSize) + 1;
  const std::int64_t length = 1 + image_tokens + args.text;
  Ocr2Input input;
  input.input_ids = Tensor::empty({args.batch, length}, DType::i32);
  input.labels = Tensor::empty({args.batch, length}, DType::i32);
  Random random(0, "bench/ids");
  for (std::int64_t i = 0; i < args.batch * length; ++i) {
    const bool image = i % length >= 1 && i % length <= image_tokens;
    const bool text = i % length > image_tokens;
    auto token = static_cast<std::int32_t>(
        10 + random.below(static_cast<std::uint64_t>(config.text.vocab_size - 20)));
    if (token == config.image_token_id) --token;  // text must not ask for a row of the image
    input.input_ids.data<std::int32_t>()[i] =
        image ? static_cast<std::int32_t>(config.image_token_id) : token;
    input.labels.data<std::int32_t>()[i] = text ? token : -100;
  }
  input.pixel_values = Tensor::empty({args.batch, 3, kGlobalSize, kGlobalSize});
  Random(0, "bench/global").fill_normal(input.pixel_values, 0, 1);
  if (args.crops > 0) {
    input.pixel_values_local = Tensor::empty({args.batch * args.crops, 3, kTileSize, kTileSize});
    Random(0, "bench/local").fill_normal(input.pixel_values_local, 0, 1);
  }
  input.num_local_patches.assign(static_cast<std::size_t>(args.batch), args.crops);
  return input;
}

double round_to(double value, double unit) { return std::round(value / unit) * unit; }

}  // namespace

nlohmann::ordered_json bench_step(const BenchStepArgs& args) {
  if (args.dtype != "fp32")
    fail<ConfigError>(fmt::format(
        "bench step: --dtype must be fp32 on the CPU of this build, got {}", args.dtype));
  if (args.threads > 0) set_thread_count(static_cast<int>(args.threads));
  const Ocr2Config config = read_ocr2_config(args.config);
  if (config.text.vocab_size < kSmallestVocabulary)
    fail<ConfigError>(fmt::format("{}: text_config.vocab_size must be at least {}, got {}",
                                  args.config.string(), kSmallestVocabulary,
                                  config.text.vocab_size));
  Ocr2Model model(config, 0);
  model.store().freeze(frozen_prefixes(args.stage));
  AdamW optimizer({.learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1});
  const NamedParameters trainable = model.store().trainable();
  optimizer.add_group("all", trainable);
  const Ocr2Input input = random_input(config, args);

  std::vector<double> seconds, losses;
  for (std::int64_t step = 0; step < args.steps + 2; ++step) {
    const auto start = std::chrono::steady_clock::now();
    ForwardContext context;
    double loss = 0;
    {
      const Ocr2Loss result = model.loss(input, context);
      const double count = static_cast<double>(result.count);
      loss = result.loss_sum.value().item() / count;
      result.loss_sum.backward(Tensor::full(result.loss_sum.shape(), 1.0 / count));
    }
    optimizer.step(1e-4, clip_scale(gradient_norm(trainable), 1.0));
    optimizer.clear_gradients();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (step >= 2) seconds.push_back(passed.count());
    losses.push_back(loss);
  }
  std::sort(seconds.begin(), seconds.end());
  const std::size_t middle = seconds.size() / 2;
  const double median =
      seconds.size() % 2 == 1 ? seconds[middle] : (seconds[middle - 1] + seconds[middle]) / 2;
  return {{"peer", std::string("lectern ") + kVersion},
          {"variant", args.dtype},
          {"stage", args.stage},
          {"threads", thread_count()},
          {"batch", args.batch},
          {"crops", args.crops},
          {"text", args.text},
          {"parameters", model.store().parameter_count()},
          {"seconds_min", round_to(seconds.front(), 1e-4)},
          {"seconds_median", round_to(median, 1e-4)},
          {"peak_bytes", peak_resident_bytes()},
          {"loss_first", round_to(losses.front(), 1e-4)},
          {"loss_last", round_to(losses.back(), 1e-4)}};
}

}  // namespace lectern
