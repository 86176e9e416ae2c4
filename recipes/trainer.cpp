#include "recipes/trainer.h"

#include "autograd/compute_dtype.h"
#include "autograd/ops/elementwise.h"
#include "core/allocator.h"
#include "core/ops/router.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "core/random.h"
#include "data/loader.h"
#include "nn/optimizer.h"
#include "nn/schedule.h"
#include "recipes/checkpoint_folder.h"
#include "recipes/device.h"
#include "recipes/diagnostics.h"
#include "recipes/encoder_features.h"
#include "recipes/evaluate.h"
#include "recipes/initial_weights.h"
#include "recipes/interrupt.h"
#include "recipes/metrics.h"
#include "recipes/model_folder.h"
#include "recipes/progress.h"
#include "recipes/step_trace.h"
#include "recipes/tensorboard.h"
#include "recipes/training_data.h"
#include "recipes/training_state.h"

#include <nlohmann/json.hpp>

#include <chrono>
#include <cmath>
#include <iterator>
#include <optional>

namespace lectern {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The configuration that the recipe names; it must fit the tokenizer.
Ocr2Config checked_config(const Recipe& recipe, const Tokenizer& tokenizer) {
  std::filesystem::path path = recipe.model.config;
  if (std::filesystem::is_directory(path)) path = resolve_model_folder(path) / "config.json";
  Ocr2Config config = read_ocr2_config(path);
  config.reading = reading_settings(recipe);
  if (recipe.model.residual) config.residual = *recipe.model.residual;
  check_tokenizer(tokenizer, config, recipe.data.tokenizer);
  return config;
}

ScheduleArgs schedule_args(const Recipe& recipe) {
  const OptimizerRecipe& in = recipe.optimizer;
  return {.kind = schedule_kind(in.schedule),
          .peak = in.learning_rate,
          .minimum = in.min_learning_rate,
          .warmup_steps = in.warmup_steps,
          .total_steps = recipe.steps,
          .milestones = in.step_milestones,
          .factors = in.step_factors};
}

/// What one optimizer step adds up over its micro-batches.
struct StepTotals {
  double loss_sum = 0;     // of trained tokens
  double balance_sum = 0;  // mean over layers, summed over micro-batches
  std::int64_t micro_batches = 0;
  std::int64_t trained_tokens = 0;
  std::int64_t tokens = 0;  // positions that went through the decoder
  std::int64_t samples = 0;
  std::map<std::int64_t, Tensor> expert_counts;
  std::map<std::string, StreamStatistics> streams;  // by stack

  double loss() const {
    return loss_sum / static_cast<double>(std::max<std::int64_t>(1, trained_tokens));
  }
};

void add_counts(std::map<std::int64_t, Tensor>& sum, const std::map<std::int64_t, Tensor>& counts) {
  for (const auto& [layer, count] : counts) {
    auto [at, is_new] = sum.try_emplace(layer, Tensor());
    const Tensor here = count.to(Device{});
    if (is_new) {
      at->second = here.clone();
      continue;
    }
    for (std::int64_t i = 0; i < count.numel(); ++i)
      at->second.data<std::int32_t>()[i] += here.data<std::int32_t>()[i];
  }
}

/// Busiest expert's tokens over the mean, the worst layer's; 1 is perfect balance.
double worst_expert_load(const std::map<std::int64_t, Tensor>& counts) {
  double worst = 0;
  for (const auto& [layer, count] : counts) {
    const std::int32_t* n = count.data<std::int32_t>();
    double sum = 0, most = 0;
    for (std::int64_t i = 0; i < count.numel(); ++i) {
      sum += n[i];
      most = std::max(most, static_cast<double>(n[i]));
    }
    if (sum > 0) worst = std::max(worst, most * static_cast<double>(count.numel()) / sum);
  }
  return worst;
}

class Training {
 public:
  Training(const Recipe& recipe, bool resume, bool profile)
      : recipe_(recipe),
        device_(use_device(recipe.device)),
        tokenizer_(Tokenizer::load(recipe.data.tokenizer)),
        model_(checked_config(recipe, tokenizer_), static_cast<std::uint64_t>(recipe.seed)),
        data_(recipe, model_.config(), tokenizer_),
        folder_(recipe.run_dir, resume),
        schedule_(schedule_args(recipe)),
        optimizer_({.learning_rate = recipe.optimizer.learning_rate,
                    .beta1 = recipe.optimizer.beta1,
                    .beta2 = recipe.optimizer.beta2,
                    .epsilon = recipe.optimizer.epsilon,
                    .weight_decay = recipe.optimizer.weight_decay}) {
    model_.store().to(device_);
    model_.store().freeze(recipe.freeze);
    add_parameter_groups();
    restore(resume);
    if (state_.level >= data_.levels())
      fail<ConfigError>(
          fmt::format("{}: the checkpoint is at level {} of the curriculum, the "
                      "recipe has {}",
                      folder_.path().string(), state_.level + 1, data_.levels()));
    features_ = std::make_unique<EncoderFeatures>(recipe, model_);
    folder_.write_config(recipe.resolved);
    metrics_.emplace(folder_.metrics(), state_.step, recipe.log.wall_clock);
    if (recipe.log.tensorboard) events_.emplace(folder_.path(), state_.step);
    if (profile)
      trace_.emplace(folder_.path() / "trace.json", traced_steps(state_.step + 1, recipe.steps),
                     device_);
  }

  TrainingSummary run() {
    begin_level();
    Progress::Options progress;
    progress.first_step = state_.step;
    progress.total_steps = recipe_.steps;
    progress.seconds_between_lines = recipe_.log.progress_seconds;
    progress.label = fmt::format("stage {}", recipe_.stage);
    progress_.emplace(std::move(progress));
    announce();
    TrainingSummary summary;
    const double start = now();
    std::int64_t samples = 0;
    while (state_.step < recipe_.steps && !stop_requested()) {
      if (trace_) trace_->begin(state_.step + 1);
      const StepTotals totals = step(*loader_);
      if (trace_) trace_->end(state_.step);
      write_trace(false);
      samples += totals.samples;
      if (summary.steps == 0) summary.loss_first = totals.loss();
      summary.loss_last = totals.loss();
      ++summary.steps;
      after_step();
    }
    write_trace(true);
    summary.steps = state_.step;
    summary.seconds = now() - start;
    summary.samples_per_second = static_cast<double>(samples) / std::max(1e-9, summary.seconds);
    if (saved_step_ != state_.step) save();
    summary.checkpoint = (folder_.checkpoints() / checkpoint_name(state_.step)).string();
    summary.stopped_by = state_.step < recipe_.steps ? stop_signal() : 0;
    return summary;
  }

 private:
  const CurriculumRecipe* level() const {
    return recipe_.curriculum.empty() ? nullptr
                                      : &recipe_.curriculum[static_cast<std::size_t>(state_.level)];
  }

  void write_trace(bool run_is_over) {
    if (trace_ && trace_->write(run_is_over))
      progress_->say(fmt::format("wrote {}", trace_->file().string()));
  }

  /// Opens the samples of the level that the state is at, from where the state stands.
  void begin_level() {
    loader_.reset();  // its threads still make batches of the level before
    const auto seed = static_cast<std::uint64_t>(recipe_.seed);
    LoaderOptions options;
    options.seed = seed;
    if (state_.level > 0) {
      Random random(seed, fmt::format("curriculum/level-{}", state_.level));
      options.seed = random.below(std::uint64_t{1} << 62);
    }
    options.first_position = state_.level_position;
    options.global_batch = recipe_.batch.global_size;
    options.micro_batch = recipe_.batch.micro_batch;
    options.batch.pad_token = static_cast<std::int32_t>(model_.config().text.pad_token_id);
    options.batch.pack_tokens = recipe_.data.pack_tokens;
    options.workers = static_cast<int>(recipe_.data.workers);
    options.is_cached = [this](const std::string& key) { return features_->is_cached(key); };
    loader_ = std::make_unique<Loader>(
        data_.training(state_.level), options,
        LoaderState{state_.loader_position, static_cast<std::uint64_t>(state_.step)});
    validation_ = data_.validation(state_.level);
  }

  /// Whether the level has done its work: `figure` is what was measured after this step, if it was.
  bool is_level_done(std::optional<double> figure) const {
    const CurriculumRecipe* now = level();
    if (!now || state_.level + 1 >= data_.levels()) return false;
    if (now->max_steps > 0 && state_.step - state_.level_step >= now->max_steps) return true;
    return figure && now->advance_below > 0 && *figure <= now->advance_below;
  }

  void advance() {
    const std::int64_t steps = state_.step - state_.level_step;
    ++state_.level;
    state_.level_step = state_.step;
    state_.level_position = state_.loader_position;
    begin_level();
    progress_->say(fmt::format("step {}: after {} steps the next level begins, {} of {}: {}",
                               state_.step, steps, state_.level + 1, data_.levels(),
                               level()->name));
  }

  /// Matrices decay; norms, biases and other vectors do so only when the recipe says.
  void add_parameter_groups() {
    NamedParameters decayed, plain;
    for (const auto& [name, variable] : model_.store().trainable()) {
      const bool vector = variable.value().ndim() < 2;
      (vector && !recipe_.optimizer.decay_norms_and_biases ? plain : decayed)
          .emplace_back(name, variable);
    }
    optimizer_.add_group("decayed", decayed);
    optimizer_.add_group("not decayed", plain, 0.0);
  }

  /// Weights from the newest checkpoint, or those that the recipe begins with.
  void restore(bool resume) {
    state_.stage = recipe_.stage;
    state_.seed = recipe_.seed;
    remove_stale(folder_.checkpoints());
    const auto newest = resume ? newest_complete(folder_.checkpoints()) : std::nullopt;
    if (!newest) {
      load_initial_weights(recipe_.model, model_);
      return;
    }
    state_ = load_training_state(newest->path, state_, model_, optimizer_);
    saved_step_ = state_.step;
  }

  void announce() {
    std::int64_t trained = 0;
    for (const auto& [name, variable] : model_.store().trainable())
      trained += variable.value().numel();
    progress_->say(
        fmt::format("{}: {} parameters, {} trained; {} samples a step; step {} of {}; {} threads",
                    folder_.path().string(),
                    format_count(static_cast<double>(model_.store().parameter_count())),
                    format_count(static_cast<double>(trained)), recipe_.batch.global_size,
                    state_.step, recipe_.steps, thread_count()));
  }

  /// Fetch, forward, backward, clip, update, report.
  StepTotals step(Loader& loader) {
    const double start = now();
    reset_peak_memory_of(device_);
    optimizer_.clear_gradients();
    StepTotals totals;
    std::int64_t expected = 1;
    for (std::int64_t i = 0; i < expected; ++i) {
      const LoadedBatch batch = loader.next();
      profile_mark("", "wait for batch");
      expected = batch.micro_batches;
      micro_step(batch, totals);
    }
    const double norm = check_finite(totals.loss());
    profile_mark("optimizer ", "gradient norm");
    const double rate = learning_rate(schedule_, state_.step);
    optimizer_.step(rate, recipe_.optimizer.clip_norm > 0
                              ? clip_scale(norm, recipe_.optimizer.clip_norm)
                              : 1.0);
    profile_mark("optimizer ", "AdamW");
    balance_experts(totals.expert_counts);
    ++state_.step;
    report(totals, norm, rate, now() - start);
    return totals;
  }

  void micro_step(const LoadedBatch& batch, StepTotals& totals) {
    ForwardContext context;
    context.recompute_blocks = recipe_.recompute;
    context.stream_interval = recipe_.recompute_streams;
    context.want_balance_loss = recipe_.moe.balance_loss > 0;
    context.want_stream_statistics = diagnostics_due(state_.step + 1);
    context.selection_bias = state_.selection_bias;
    Ocr2Input input = features_->input_of(batch);
    const VisualFeatures visual = features_->features_of(batch, input, context);
    const Ocr2Loss loss = model_.loss(input, context, &visual);
    Variable total =
        scale(loss.loss_sum,
              1.0 / static_cast<double>(std::max<std::int64_t>(1, batch.step_trained_tokens)));
    totals.loss_sum += loss.loss_sum.value().item();
    totals.trained_tokens += loss.count;
    totals.tokens += batch.input_ids.numel();
    totals.samples += batch.samples;
    ++totals.micro_batches;
    add_counts(totals.expert_counts, context.expert_counts);
    for (const StreamStatistics& stack : context.stream_statistics)
      totals.streams[stack.stack] = combined(totals.streams[stack.stack], stack);
    for (const Variable& balance : context.balance_losses) {
      const double layers = static_cast<double>(context.balance_losses.size());
      totals.balance_sum += balance.value().item() / layers;
      total = add(total, scale(balance, recipe_.moe.balance_loss / layers /
                                            static_cast<double>(batch.micro_batches)));
    }
    if (total.requires_grad()) total.backward();
  }

  /// Global gradient norm; stops the run before the update when anything is not finite.
  double check_finite(double loss) const {
    const NamedParameters trainable = model_.store().trainable();
    const double norm = gradient_norm(trainable);
    if (std::isfinite(loss) && std::isfinite(norm)) return norm;
    const auto parameter = first_non_finite(trainable);
    fail<NumericError>(fmt::format(
        "train: step {}: {} (loss {}, gradient norm {}); no parameter was updated", state_.step + 1,
        parameter ? fmt::format("the gradient of {} is not finite", *parameter)
                  : "the loss is not finite",
        loss, norm));
  }

  bool diagnostics_due(std::int64_t step) const {
    const std::int64_t every = recipe_.log.diagnostics_every;
    return every > 0 && (step % every == 0 || step == 1 || step == recipe_.steps);
  }

  /// Gradients are those of the last backward, before clipping.
  void add_diagnostics(const StepTotals& totals, MetricFields& fields) const {
    add_stream_fields(totals.streams, fields);
    for (const auto& [layer, norm] : layer_gradient_norms(model_.store().trainable()))
      fields["grad_norm_" + layer] = norm;
  }

  void balance_experts(const std::map<std::int64_t, Tensor>& counts) {
    if (recipe_.moe.bias_balancing_rate <= 0) return;
    for (const auto& [layer, count] : counts) {
      auto [at, is_new] = state_.selection_bias.try_emplace(layer);
      if (is_new) at->second = Tensor::zeros({count.numel()});
      update_selection_bias(at->second, count, recipe_.moe.bias_balancing_rate);
    }
  }

  void report(const StepTotals& totals, double norm, double rate, double seconds) {
    const double tokens_per_second = static_cast<double>(totals.tokens) / seconds;
    progress_->update({state_.step, totals.loss(), rate, tokens_per_second});
    if (state_.step % recipe_.log_every != 0 && state_.step != recipe_.steps) return;
    MetricFields fields = {{"loss", totals.loss()},
                           {"grad_norm", norm},
                           {"lr", rate},
                           {"samples", totals.samples},
                           {"tokens", totals.tokens},
                           {"seconds", seconds},
                           {"peak_bytes", memory_statistics_of(device_).peak_bytes}};
    if (!totals.expert_counts.empty())
      fields["expert_load"] = worst_expert_load(totals.expert_counts);
    if (diagnostics_due(state_.step)) add_diagnostics(totals, fields);
    if (recipe_.moe.balance_loss > 0)
      fields["router_loss"] = totals.balance_sum / static_cast<double>(totals.micro_batches);
    if (level()) fields["level"] = state_.level + 1;
    metrics_->write(state_.step, fields);
    if (!events_) return;
    std::vector<std::pair<std::string, double>> scalars;
    for (const auto& [name, value] : fields.items())
      scalars.emplace_back("train/" + name, value.get<double>());
    events_->scalars(state_.step, scalars);
  }

  void after_step() {
    state_.loader_position = loader_->state().samples;
    const bool last = state_.step == recipe_.steps;
    const auto due = [&](std::int64_t every) {
      return last || (every > 0 && state_.step % every == 0);
    };
    std::optional<double> figure;
    if (!validation_.empty() && recipe_.evaluation.samples > 0 && due(recipe_.evaluation.every))
      figure = validate();
    if (!last && is_level_done(figure)) advance();
    if (due(recipe_.checkpoint.every)) save();
  }

  /// Reads and scores the level's held-out samples; the figure that moves the curriculum.
  double validate() {
    EvaluationArgs args;
    args.samples = recipe_.evaluation.samples;
    args.with_loss = true;
    args.reader.max_new_tokens = recipe_.evaluation.max_new_tokens;
    MetricFields each = MetricFields::object();
    std::vector<PageScore> pages;
    double loss = 0, seconds = 0;
    for (const ValidationSet& set : validation_) {
      EvaluationResult result = evaluate(model_, tokenizer_, *set.samples, args);
      if (!set.name.empty()) {
        each["eval_cer/" + set.name] = result.scores.cer;
        each["eval_loss/" + set.name] = result.loss;
        progress_->say(fmt::format("step {}: {}: character error rate {:.3f}, loss {:.3f}",
                                   state_.step, set.name, result.scores.cer, result.loss));
      }
      loss += result.loss / static_cast<double>(validation_.size());
      seconds += result.seconds;
      pages.insert(pages.end(), std::make_move_iterator(result.scores.pages.begin()),
                   std::make_move_iterator(result.scores.pages.end()));
    }
    const Scores scores = summarize(std::move(pages));
    MetricFields fields = {{"eval_samples", scores.pages.size()},
                           {"eval_cer", scores.cer},
                           {"eval_edit_distance", scores.edit_distance},
                           {"eval_f1", scores.f1},
                           {"eval_repetition_rate", scores.repetition_rate},
                           {"eval_loss", loss}};
    fields.update(each);
    if (level()) fields["level"] = state_.level + 1;
    metrics_->write(state_.step, fields);
    write_events(fields);
    progress_->say(fmt::format(
        "step {}: held out: character error rate {:.3f}, edit distance {:.3f}, "
        "{} of {} exact ({:.1f} s)",
        state_.step, scores.cer, scores.edit_distance, scores.exact, scores.pages.size(), seconds));
    return level() && level()->measure == "loss" ? loss : scores.cer;
  }

  /// "eval_cer/words" becomes the scalar "eval/cer/words".
  void write_events(const MetricFields& fields) {
    if (!events_) return;
    std::vector<std::pair<std::string, double>> scalars;
    for (const auto& [name, value] : fields.items())
      if (name.starts_with("eval_") && name != "eval_samples")
        scalars.emplace_back("eval/" + name.substr(5), value.get<double>());
    events_->scalars(state_.step, scalars);
  }

  void save() {
    metrics_->sync();
    const auto path = save_training_state(folder_.checkpoints(), model_, optimizer_,
                                          tokenizer_.json(), state_, recipe_.checkpoint.keep);
    saved_step_ = state_.step;
    progress_->say(fmt::format("saved {}", path.string()));
  }

  const Recipe& recipe_;
  Device device_;
  Tokenizer tokenizer_;
  Ocr2Model model_;
  TrainingData data_;
  RunFolder folder_;  // made when all that the recipe names has been read: a typo leaves no folder
  ScheduleArgs schedule_;
  AdamW optimizer_;
  RunState state_;
  std::int64_t saved_step_ = -1;
  std::vector<ValidationSet> validation_;
  std::unique_ptr<EncoderFeatures> features_;
  std::unique_ptr<Loader> loader_;  // its threads ask features_, so it goes first
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
  std::optional<StepTrace> trace_;
  std::optional<Progress> progress_;
};

}  // namespace

TrainingSummary train(const Recipe& recipe, bool resume, bool profile) {
  if (recipe.threads > 0) set_thread_count(static_cast<int>(recipe.threads));
  const ComputeDType scope(compute_dtype_of(recipe.dtype));
  check_mesh(recipe, 1);
  return Training(recipe, resume, profile).run();
}

}  // namespace lectern
