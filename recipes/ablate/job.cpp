// One job of an ablation, in this process.
#include "autograd/ops/elementwise.h"
#include "core/allocator.h"
#include "core/io/file.h"
#include "core/random.h"
#include "core/statistics.h"
#include "core/stopwatch.h"
#include "nn/language/decoder.h"
#include "nn/language/media_rows.h"
#include "nn/optim/optimizer.h"
#include "nn/optim/schedule.h"
#include "recipes/ablate/ablate.h"
#include "recipes/log/metrics.h"
#include "recipes/train/diagnostics.h"
#include "recipes/train/trainer.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace lectern {
namespace {

// Token ids of the text task: bytes behind the special ones.
constexpr std::int64_t kFirstByte = 3, kVocabulary = 260;

DecoderConfig text_config(const TextAblation& text, std::int64_t depth) {
  DecoderConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = text.width;
  config.intermediate_size = text.width * 8 / 3 / 8 * 8;
  config.num_hidden_layers = depth;
  config.num_attention_heads = text.heads;
  config.num_key_value_heads = text.heads;
  config.head_dim = text.width / text.heads;
  config.layer_is_sparse.assign(static_cast<std::size_t>(depth), false);
  return config;
}

/// A decoder of text alone.
class TextModel {
 public:
  TextModel(const DecoderConfig& config, const ResidualConfig& residual, std::uint64_t seed)
      : store_(seed), decoder_(store_, config, decoder_residual(store_, config, residual)) {}

  /// Next-token loss of rows i32 [B, T].
  ModelLoss loss(const Tensor& ids, ForwardContext& context) const {
    constexpr std::int64_t kNoImages = -1;
    const Variable rows = merge_media(decoder_.embedding(), kNoImages, ids, {});
    const UnitRange blocks{0, decoder_.config().num_hidden_layers};
    return decoder_.loss(decoder_.run(blocks, decoder_.enter(rows, context), {}, context), ids,
                         context);
  }
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }

 private:
  ParameterStore store_;
  Decoder decoder_;
};

/// The first 95 % of every file to train on, the rest held out.
struct Corpus {
  std::string train, held_out;
};

Corpus read_corpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(folder))
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".txt") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  Corpus out;
  for (const auto& file : files) {
    const std::string text = read_file(file);
    const std::size_t cut = text.size() / 20 * 19;
    out.train += text.substr(0, cut);
    out.held_out += text.substr(cut);
  }
  return out;
}

/// Rows i32 [batch, sequence + 1]: position t is trained to give t + 1.
Tensor rows_at(const std::string& text, const std::vector<std::size_t>& starts,
               std::int64_t sequence) {
  const auto rows = static_cast<std::int64_t>(starts.size());
  Tensor ids = Tensor::empty({rows, sequence + 1}, DType::i32);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t t = 0; t <= sequence; ++t)
      ids.data<std::int32_t>()[row * (sequence + 1) + t] = static_cast<std::int32_t>(
          kFirstByte +
          static_cast<unsigned char>(
              text[starts[static_cast<std::size_t>(row)] + static_cast<std::size_t>(t)]));
  return ids;
}

class TextJob {
 public:
  TextJob(const AblationRecipe& recipe, const AblationJob& job, const std::filesystem::path& folder)
      : recipe_(recipe),
        text_(recipe.text),
        job_(job),
        corpus_(read_corpus(text_.folder)),
        model_(text_config(text_, job.depth), ablation_variant(job.variant).residual,
               static_cast<std::uint64_t>(job.seed)),
        optimizer_({.learning_rate = text_.learning_rate, .weight_decay = 0.1}),
        metrics_(folder / "metrics.jsonl", 0) {
    const auto least = static_cast<std::size_t>(2 * text_.sequence + 2);
    if (corpus_.held_out.size() < least)
      fail<IoError>(fmt::format("{}: .txt files must hold at least {} bytes, got {}", text_.folder,
                                20 * least, corpus_.train.size() + corpus_.held_out.size()));
    NamedParameters decayed, plain;
    for (const auto& [name, variable] : model_.store().trainable())
      (variable.value().ndim() < 2 ? plain : decayed).emplace_back(name, variable);
    optimizer_.add_group("decayed", decayed);
    optimizer_.add_group("not decayed", plain, 0.0);
  }

  nlohmann::ordered_json run() {
    // The paper's schedule: x 0.316 at 80 % and x 0.1 at 90 %.
    const ScheduleArgs schedule{.kind = ScheduleKind::step,
                                .peak = text_.learning_rate,
                                .warmup_steps = text_.warmup_steps,
                                .total_steps = text_.steps,
                                .milestones = {text_.steps * 8 / 10 + 1, text_.steps * 9 / 10 + 2},
                                .factors = {0.316, 0.1}};
    for (std::int64_t step = 1; step <= text_.steps && !diverged_; ++step)
      train_step(step, learning_rate(schedule, step - 1));
    nlohmann::ordered_json out;
    out["loss"] = diverged_ ? nlohmann::ordered_json() : nlohmann::ordered_json(held_out_loss());
    out["diverged"] = diverged_;
    out["parameters"] = trained_parameters();
    return out;
  }

 private:
  std::int64_t trained_parameters() const {
    std::int64_t out = 0;
    for (const auto& [name, variable] : model_.store().trainable()) out += variable.value().numel();
    return out;
  }

  Tensor batch(std::int64_t step) const {
    Random random(static_cast<std::uint64_t>(job_.seed), fmt::format("ablate/step/{}", step));
    std::vector<std::size_t> starts;
    for (std::int64_t i = 0; i < text_.batch; ++i)
      starts.push_back(
          random.below(corpus_.train.size() - static_cast<std::size_t>(text_.sequence)));
    return rows_at(corpus_.train, starts, text_.sequence);
  }

  void train_step(std::int64_t step, double rate) {
    const Stopwatch watch;
    reset_peak_memory();
    const bool diagnose = step == 1 || step % recipe_.diagnostics_every == 0 || step == text_.steps;
    ForwardContext context;
    context.want_stream_statistics = diagnose;
    const ModelLoss result = model_.loss(batch(step), context);
    const double count = static_cast<double>(result.count);
    const double loss = result.loss_sum.value().item() / count;
    scale(result.loss_sum, 1.0 / count).backward();
    const NamedParameters trainable = model_.store().trainable();
    const double norm = gradient_norm(trainable);
    diverged_ = !std::isfinite(loss) || !std::isfinite(norm);
    MetricFields fields = {{"loss", loss}, {"grad_norm", norm}, {"lr", rate}};
    if (diagnose) {
      std::map<std::string, StreamStatistics> stacks;
      for (const StreamStatistics& stack : context.stream_statistics) stacks[stack.stack] = stack;
      add_stream_fields(stacks, fields);
      for (const auto& [layer, layer_norm] : layer_gradient_norms(trainable))
        fields["grad_norm_" + layer] = layer_norm;
    }
    if (!diverged_)
      optimizer_.step(rate, text_.clip_norm > 0 ? clip_scale(norm, text_.clip_norm) : 1.0);
    optimizer_.clear_gradients();
    fields["seconds"] = watch.seconds();
    fields["peak_bytes"] = memory_statistics().peak_bytes;
    metrics_.write(step, fields);
  }

  /// Mean over rows spread evenly over the held-out text.
  double held_out_loss() const {
    const NoGrad off;
    double sum = 0, count = 0;
    const std::size_t room = corpus_.held_out.size() - static_cast<std::size_t>(text_.sequence) - 1;
    for (std::int64_t at = 0; at < text_.validation_sequences; at += text_.batch) {
      std::vector<std::size_t> starts;
      for (std::int64_t i = at; i < std::min(at + text_.batch, text_.validation_sequences); ++i)
        starts.push_back(room * static_cast<std::size_t>(i) /
                         static_cast<std::size_t>(text_.validation_sequences));
      ForwardContext context;
      const ModelLoss loss =
          model_.loss(rows_at(corpus_.held_out, starts, text_.sequence), context);
      sum += loss.loss_sum.value().item();
      count += static_cast<double>(loss.count);
    }
    return sum / count;
  }

  const AblationRecipe& recipe_;
  const TextAblation& text_;
  const AblationJob& job_;
  Corpus corpus_;
  TextModel model_;
  AdamW optimizer_;
  MetricsWriter metrics_;
  bool diverged_ = false;
};

/// What the report reads from the records of a job, whatever its task.
void add_summary(const std::vector<MetricFields>& records, nlohmann::ordered_json& out) {
  std::vector<double> seconds, norms, losses;
  double forward = 0, backward = 0, deviation = 0, peak = 0;
  const auto largest = [](const MetricFields& record, const char* field, double& so_far) {
    if (record.contains(field) && record[field].is_number())
      so_far = std::max(so_far, record[field].get<double>());
  };
  std::size_t steps = 0;
  for (const MetricFields& record : records) {
    if (!record.contains("loss") || !record["loss"].is_number()) continue;
    ++steps;
    losses.push_back(record["loss"].get<double>());
    if (record.contains("seconds") && steps > 2) seconds.push_back(record["seconds"].get<double>());
    if (record.contains("grad_norm") && record["grad_norm"].is_number())
      norms.push_back(record["grad_norm"].get<double>());
    largest(record, "gain_forward", forward);
    largest(record, "gain_backward", backward);
    largest(record, "stream_deviation", deviation);
    largest(record, "peak_bytes", peak);
  }
  const std::size_t tail = std::max<std::size_t>(1, losses.size() / 10);
  if (!losses.empty())
    out["train_loss"] =
        std::accumulate(losses.end() - static_cast<std::ptrdiff_t>(tail), losses.end(), 0.0) /
        static_cast<double>(tail);
  out["steps"] = steps;
  // From the second half on: the first steps of every model have large gradients.
  const std::vector<double> late(norms.begin() + static_cast<std::ptrdiff_t>(norms.size() / 2),
                                 norms.end());
  out["grad_norm_median"] = median(late);
  out["grad_norm_max"] = late.empty() ? 0.0 : *std::max_element(late.begin(), late.end());
  if (forward > 0) {
    out["gain_forward"] = forward;
    out["gain_backward"] = backward;
    out["deviation"] = deviation;
  }
  out["seconds_per_step"] = median(seconds);
  out["peak_bytes"] = peak;
}

}  // namespace

nlohmann::ordered_json run_text_job(const AblationRecipe& recipe, const AblationJob& job,
                                    const std::filesystem::path& folder) {
  return TextJob(recipe, job, folder).run();
}

nlohmann::ordered_json run_ocr_job(const AblationRecipe& recipe, const AblationJob& job,
                                   const std::filesystem::path& folder) {
  const auto run = folder / "run";
  std::filesystem::remove_all(run);
  std::vector<std::string> overrides = {
      fmt::format("run_dir={}", run.string()),
      fmt::format("steps={}", recipe.ocr.steps),
      fmt::format("seed={}", job.seed),
      fmt::format("optimizer.warmup_steps={}", recipe.ocr.steps / 20),
      fmt::format("evaluation.samples={}", recipe.ocr.evaluation_samples),
      "evaluation.every=0",
      "checkpoint.every=0",
      "log.tensorboard=false",
      "log.progress_seconds=3600",
      fmt::format("log.diagnostics_every={}", recipe.diagnostics_every)};
  nlohmann::json settings;
  write_residual(ablation_variant(job.variant).residual, settings);
  for (const auto& [key, value] : settings.items())
    overrides.push_back(fmt::format("model.{}={}", key, value.dump()));
  if (train(load_recipe(recipe.ocr.recipe, overrides), false).stopped_by != 0)
    fail<Error>(fmt::format("ablate: {} was stopped", job.id));
  nlohmann::ordered_json out;
  out["diverged"] = false;
  const auto records = read_metrics(run / "metrics.jsonl");
  for (const MetricFields& record : records)
    if (record.contains("eval_cer")) out["cer"] = record["eval_cer"];
  std::filesystem::rename(run / "metrics.jsonl", folder / "metrics.jsonl");
  std::filesystem::remove_all(run);  // checkpoints of dozens of jobs are not wanted
  return out;
}

void run_ablation_job(const AblationRecipe& recipe, const AblationJob& job) {
  const auto folder = recipe.out / "jobs" / job.id;
  std::filesystem::create_directories(folder);
  const Stopwatch watch;
  nlohmann::ordered_json result = {
      {"id", job.id},       {"task", job.task}, {"variant", job.variant},
      {"depth", job.depth}, {"seed", job.seed}, {"settings", job_settings(recipe, job)}};
  if (job.task == "text")
    result.update(run_text_job(recipe, job, folder));
  else if (job.task == "ocr")
    result.update(run_ocr_job(recipe, job, folder));
  else if (job.task == "training")
    result.update(run_training_job(recipe, job, folder));
  else
    std::filesystem::copy_file(run_shared_start(recipe, job.seed) / "metrics.jsonl",
                               folder / "metrics.jsonl",
                               std::filesystem::copy_options::overwrite_existing);
  add_summary(read_metrics(folder / "metrics.jsonl"), result);
  if (!result.contains("loss")) result["loss"] = result["train_loss"];
  result["seconds"] = watch.seconds();
  write_file(folder / "result.json", result.dump(1) + "\n");
}

}  // namespace lectern
