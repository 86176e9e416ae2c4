#include "recipes/bench/step.h"

#include "autograd/compute_dtype.h"
#include "core/allocator.h"
#include "core/cpu/product_rate.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "core/random.h"
#include "core/statistics.h"
#include "core/stopwatch.h"
#include "nn/families.h"
#include "nn/model.h"
#include "nn/optim/optimizer.h"
#include "recipes/bench/views.h"
#include "recipes/machine/device.h"
#include "recipes/machine/process_memory.h"
#include "recipes/machine/versions.h"
#include "recipes/recipe/recipe.h"
#include "recipes/train/encoder_cache.h"
#include "recipes/train/memory_budget.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

namespace lectern {
namespace {

constexpr std::int64_t kSmallestVocabulary = 32;

/// The encoder's rows of all pages, computed once and then read from an encoder cache on disk in
/// every step, as training does in stage 3.
class CachedRows {
 public:
  CachedRows(const OcrModel& model, const ModelInput& input, const BenchStepArgs& args)
      : folder_(std::filesystem::temp_directory_path() /
                fmt::format("lectern-bench-cache-{}", getpid())),
        batch_(args.batch),
        crops_(args.crops) {
    cache_.emplace(folder_, "bench", std::int64_t{1} << 32);
    const NoGrad off;
    ForwardContext context;
    const MediaRows all = model.encode(input, context);
    for (std::int64_t i = 0; i < batch_; ++i) {
      CachedFeatures page;
      page.global = rows_of(all.global.value(), i, i + 1)
                        .view({all.global.value().dim(1), all.global.value().dim(2)});
      if (crops_ > 0) page.local = rows_of(all.local.value(), i * crops_, (i + 1) * crops_);
      cache_->insert(fmt::to_string(i), page);
    }
  }
  ~CachedRows() {
    cache_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  CachedRows(const CachedRows&) = delete;
  CachedRows& operator=(const CachedRows&) = delete;

  MediaRows read() {
    std::vector<CachedFeatures> pages;
    for (std::int64_t i = 0; i < batch_; ++i)
      pages.push_back(cache_->find(fmt::to_string(i)).value());
    const Tensor& first = pages[0].global;
    const Tensor global = Tensor::empty({batch_, first.dim(0), first.dim(1)});
    Tensor local;
    if (crops_ > 0)
      local = Tensor::empty({batch_ * crops_, pages[0].local.dim(1), pages[0].local.dim(2)});
    for (std::int64_t i = 0; i < batch_; ++i) {
      const CachedFeatures& page = pages[static_cast<std::size_t>(i)];
      global.slice(0, i, i + 1).view(first.shape()).copy_from(page.global);
      if (crops_ > 0) local.slice(0, i * crops_, (i + 1) * crops_).copy_from(page.local);
    }
    MediaRows out;
    out.global = Variable(global);
    if (crops_ > 0) out.local = Variable(local);
    return out;
  }

 private:
  static Tensor rows_of(const Tensor& x, std::int64_t begin, std::int64_t end) {
    return x.slice(0, begin, end).to(Device{}).clone();
  }

  std::filesystem::path folder_;
  std::int64_t batch_, crops_;
  std::optional<EncoderCache> cache_;
};

/// One step: forward, backward, clipping, update. Returns the loss, a mean over tokens.
double run_step(const OcrModel& model, const ModelInput& input, CachedRows* cached,
                const NamedParameters& trainable, AdamW& optimizer, bool recompute,
                MemoryBudget& budget) {
  ForwardContext context;
  context.recompute_blocks = recompute;
  context.stream_interval = recompute || budget.plan() ? -1 : 0;
  budget.begin_step();
  budget.begin_pass(input, 0, 1, context);
  double loss = 0;
  {
    const MediaRows visual = cached == nullptr ? model.encode(input, context) : cached->read();
    if (cached != nullptr) profile_mark("", "encoder cache");
    const ModelLoss result = model.loss(input, context, &visual);
    const double count = static_cast<double>(result.count);
    loss = result.loss_sum.value().item() / count;
    result.loss_sum.backward(Tensor::full(result.loss_sum.shape(), 1.0 / count));
  }
  budget.end_pass();
  profile_mark("backward ", "(adding gradients)");
  const double scale = clip_scale(gradient_norm(trainable), 1.0);
  profile_mark("optimizer ", "gradient norm");
  optimizer.step(1e-4, scale);
  optimizer.clear_gradients();
  profile_mark("optimizer ", "AdamW");
  return loss;
}

/// Marks in seconds a step; products with the rate that they reached and its share of the rate of
/// one large product, measured now.
nlohmann::ordered_json profile_json(const ProfileTables& tables, std::int64_t steps, DType dtype) {
  nlohmann::ordered_json out;
  const double peak = measured_product_rate(dtype);
  const auto count = static_cast<double>(steps);
  double total = 0;
  for (const ProfileEntry& entry : tables.marks) total += entry.seconds;
  out["product_rate"] = peak;
  out["seconds"] = total / count;
  for (const ProfileEntry& entry : tables.marks)
    out["marks"].push_back({{"name", entry.name},
                            {"calls", static_cast<double>(entry.calls) / count},
                            {"seconds", entry.seconds / count},
                            {"share", entry.seconds / total}});
  for (const ProfileEntry& entry : tables.products)
    out["products"].push_back({{"name", entry.name},
                               {"calls", static_cast<double>(entry.calls) / count},
                               {"seconds", entry.seconds / count},
                               {"share", entry.seconds / total},
                               {"rate", entry.operations / entry.seconds},
                               {"share_of_peak", entry.operations / entry.seconds / peak}});
  return out;
}

void add_plan(const MemoryBudget& budget, double gib, nlohmann::ordered_json& out) {
  out["memory_gib"] = gib;
  out["predicted_peak_bytes"] = static_cast<std::int64_t>(budget.plan()->predicted_peak());
  out["blocks_kept"] = budget.plan()->kept_blocks();
  out["blocks_recomputed"] = budget.plan()->blocks() - budget.plan()->kept_blocks();
}

void check_args(const BenchStepArgs& args, const ModelConfig& config) {
  if (args.encoder_cache && args.stage != 3)
    fail<ConfigError>(fmt::format(
        "bench step: --stage must be 3 with --encoder-cache, which needs a frozen encoder, got {}",
        args.stage));
  if (args.memory_gib > 0 && args.recompute)
    fail<ConfigError>("bench step: --memory-gib must be left out with --recompute");
  if (config.decoder.vocab_size < kSmallestVocabulary)
    fail<ConfigError>(fmt::format("{}: text_config.vocab_size must be at least {}, got {}",
                                  args.config.string(), kSmallestVocabulary,
                                  config.decoder.vocab_size));
}

/// What a GPU holds is what its allocator has taken from the driver.
std::int64_t peak_bytes_of(Device device) {
  return device.type == DeviceType::cpu
             ? peak_resident_bytes()
             : static_cast<std::int64_t>(memory_statistics_of(device).peak_bytes);
}

}  // namespace

ModelInput random_input(const ModelConfig& config, const BenchStepArgs& args) {
  const std::int64_t image_tokens =
      config.picture_tokens(kGlobalSize, kTileSize, args.crops, args.crops > 0 ? 1 : 0);
  const std::int64_t length = 1 + image_tokens + args.text;
  ModelInput input;
  input.input_ids = Tensor::empty({args.batch, length}, DType::i32);
  input.labels = Tensor::empty({args.batch, length}, DType::i32);
  Random random(0, "bench/ids");
  for (std::int64_t i = 0; i < args.batch * length; ++i) {
    const bool image = i % length >= 1 && i % length <= image_tokens;
    const bool text = i % length > image_tokens;
    auto token = static_cast<std::int32_t>(
        10 + random.below(static_cast<std::uint64_t>(config.decoder.vocab_size - 20)));
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

nlohmann::ordered_json bench_step(const BenchStepArgs& args) {
  const DType dtype = compute_dtype_of(args.dtype);
  if (args.threads > 0) set_thread_count(static_cast<int>(args.threads));
  const auto config = read_model_config(args.config);
  check_args(args, *config);
  const ComputeDType scope(dtype);
  const Device device = use_device(args.device);
  const auto made = config->make(0);
  OcrModel& model = *made;
  model.store().to(device);
  model.store().freeze(config->prefixes_of(frozen_parts(args.stage)));
  AdamW optimizer({.learning_rate = 1e-4, .beta1 = 0.9, .beta2 = 0.95, .weight_decay = 0.1});
  const NamedParameters trainable = model.store().trainable();
  optimizer.add_group("all", trainable);
  const ModelInput input = random_input(*config, args);
  std::unique_ptr<CachedRows> cached;
  if (args.encoder_cache) cached = std::make_unique<CachedRows>(model, input, args);

  MemoryBudget budget(args.memory_gib, device);
  std::vector<double> seconds, losses;
  for (std::int64_t step = 0; step < args.steps + 2; ++step) {
    if (step == 2 && args.profile) start_profile();
    if (step == 2 && budget.plan()) reset_peak_memory_of(device);
    const Stopwatch watch;
    losses.push_back(
        run_step(model, input, cached.get(), trainable, optimizer, args.recompute, budget));
    synchronize(device);
    if (step >= 2) seconds.push_back(watch.seconds());
  }
  const MemoryStatistics memory = memory_statistics_of(device);
  nlohmann::ordered_json out = {
      {"peer", std::string("lectern ") + kVersion},
      {"variant", args.dtype},
      {"device", args.device},
      {"stage", args.stage},
      {"threads", thread_count()},
      {"batch", args.batch},
      {"crops", args.crops},
      {"text", args.text},
      {"parameters", model.store().parameter_count()},
      {"seconds_min", rounded(*std::min_element(seconds.begin(), seconds.end()), 1e-4)},
      {"seconds_median", rounded(median(seconds), 1e-4)},
      {"peak_bytes", peak_bytes_of(device)},
      {"tensor_peak_bytes", memory.peak_bytes},
      {"reserved_bytes", memory.reserved_bytes},
      {"loss_first", rounded(losses.front(), 1e-4)},
      {"loss_last", rounded(losses.back(), 1e-4)}};
  if (args.recompute) out["recompute"] = true;
  if (args.encoder_cache) out["encoder_cache"] = true;
  if (budget.plan()) add_plan(budget, args.memory_gib, out);
  if (args.profile) out["profile"] = profile_json(stop_profile(), args.steps, dtype);
  return out;
}

std::string profile_tables(const nlohmann::ordered_json& profile) {
  std::string out = fmt::format(
      "{:.4f} s a step; one large product reaches {:.0f} GFLOP/s\n\n"
      "| operation | calls | ms | share |\n|---|---|---|---|\n",
      profile["seconds"].get<double>(), profile["product_rate"].get<double>() * 1e-9);
  for (const auto& row : profile["marks"])
    out += fmt::format("| {} | {:.0f} | {:.1f} | {:.1f} % |\n", row["name"].get<std::string>(),
                       row["calls"].get<double>(), row["seconds"].get<double>() * 1e3,
                       row["share"].get<double>() * 100);
  out +=
      "\n| product | calls | ms | share | GFLOP/s | of the large product "
      "|\n|---|---|---|---|---|---|\n";
  for (const auto& row : profile["products"])
    out += fmt::format("| {} | {:.0f} | {:.1f} | {:.1f} % | {:.0f} | {:.0f} % |\n",
                       row["name"].get<std::string>(), row["calls"].get<double>(),
                       row["seconds"].get<double>() * 1e3, row["share"].get<double>() * 100,
                       row["rate"].get<double>() * 1e-9, row["share_of_peak"].get<double>() * 100);
  return out;
}

}  // namespace lectern
