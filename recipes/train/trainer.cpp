#include "recipes/train/trainer.h"

#include "autograd/backward_observer.h"
#include "autograd/compute_dtype.h"
#include "autograd/ops/elementwise.h"
#include "core/allocator.h"
#include "core/io/file.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "data/samples/loader.h"
#include "distributed/expert_parallel.h"
#include "distributed/groups.h"
#include "distributed/mesh.h"
#include "distributed/parallel_adamw.h"
#include "distributed/pipeline.h"
#include "distributed/replica_check.h"
#include "distributed/world.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/checkpoint/saver.h"
#include "recipes/checkpoint/training_state.h"
#include "recipes/log/metrics.h"
#include "recipes/log/pipeline_timeline.h"
#include "recipes/log/run_log.h"
#include "recipes/log/step_trace.h"
#include "recipes/machine/device.h"
#include "recipes/machine/interrupt.h"
#include "recipes/train/curriculum.h"
#include "recipes/train/diagnostics.h"
#include "recipes/train/encoder_features.h"
#include "recipes/train/initial_weights.h"
#include "recipes/train/memory_budget.h"
#include "recipes/train/optimizer_setup.h"
#include "recipes/train/placement.h"
#include "recipes/train/step_totals.h"
#include "recipes/train/training_data.h"
#include "recipes/train/validation.h"
#include "recipes/train/whole_model.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

namespace lectern {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Layers with routed experts.
double sparse_layers(const ModelConfig& config) {
  const auto& sparse = config.decoder.layer_is_sparse;
  return static_cast<double>(std::count(sparse.begin(), sparse.end(), true));
}

/// The ranks, for tensors where the training has them.
std::shared_ptr<Communicator> ranks_on(Device device, const std::shared_ptr<Communicator>& world) {
  return device.type == DeviceType::cpu || world->size() == 1 ? world
                                                              : make_nccl_group(world, device);
}

class Training : private PipelineModel {
 public:
  Training(const Recipe& recipe, bool resume, bool profile,
           const std::shared_ptr<Communicator>& world)
      : recipe_(recipe),
        device_(use_device(recipe.device, *world)),
        mesh_(ranks_on(device_, world), recipe.mesh.pp, recipe.mesh.ep),
        tokenizer_(Tokenizer::load(recipe.data.tokenizer)),
        config_(model_config(recipe, tokenizer_)),
        placement_(place_on_mesh(recipe, *config_, mesh_)),
        model_(config_->make(static_cast<std::uint64_t>(recipe.seed), DType::f32,
                             ParameterValues::initialised, placement_.model)),
        data_(recipe, *config_, tokenizer_),
        folder_(recipe.run_dir, resume || !is_first()),
        schedule_(schedule_args(recipe)),
        optimizer_(adamw_args(recipe), world,
                   {.zero = recipe.mesh.zero, .bucket_bytes = recipe.mesh.bucket_bytes}),
        budget_(recipe.memory_gib, device_),
        saver_(*model_, optimizer_, mesh_, saver_options()) {
    model_->store().to(device_);
    model_->store().freeze(config_->prefixes_of(recipe.freeze));
    add_parameters(optimizer_, model_->store(), recipe, placement_, mesh_);
    restore(resume);
    if (state_.level >= data_.levels())
      fail<ConfigError>(
          fmt::format("{}: the checkpoint is at level {} of the curriculum, the "
                      "recipe has {}",
                      folder_.path().string(), state_.level + 1, data_.levels()));
    const bool is_pipeline = placement_.pipeline.stages > 1;
    if (!is_pipeline || (placement_.encoder_is_apart && mesh_.stage() == 0))
      features_ = std::make_unique<EncoderFeatures>(recipe, *model_, mesh_.replica(),
                                                    static_cast<int>(mesh_.shape().dp));
    if (is_pipeline)
      pipeline_ = std::make_unique<Pipeline>(mesh_.pipeline(), placement_.pipeline, device_);
    if (placement_.model.expert_ranks > 1) experts_.emplace(mesh_.experts());
    if (is_first()) folder_.write_config(recipe.resolved);
    if (profile && is_first())
      trace_.emplace(folder_.path() / "trace.json", traced_steps(state_.step + 1, recipe.steps),
                     device_);
  }

  TrainingSummary run() {
    begin_level();
    log_.emplace(recipe_, is_first() ? &folder_ : nullptr, state_.step);
    announce();
    TrainingSummary summary;
    const double start = now();
    std::int64_t samples = 0;
    while (state_.step < recipe_.steps && !is_asked_to_stop()) {
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
    saver_.finish();
    draw_last_step();
    summary.checkpoint = (folder_.checkpoints() / checkpoint_name(state_.step)).string();
    summary.stopped_by = state_.step < recipe_.steps ? stopped_by_ : 0;
    return summary;
  }

  /// Optimizer steps done.
  std::int64_t steps_done() const { return state_.step; }

  /// The run is about to end by an error: what is being saved is of before it.
  void keep_checkpoint_under_way() noexcept { saver_.finish_quietly(); }

 private:
  /// One rank writes what there is once: the run folder, metrics, progress.
  bool is_first() const { return mesh_.world().rank() == 0; }

  /// pipeline.svg in the run folder: the tasks of this process's last step, of the first pipeline.
  void draw_last_step() {
    if (!pipeline_ || mesh_.replica() != 0) return;
    const auto spans = gather_spans(*mesh_.pipeline(), pipeline_->spans());
    if (is_first() && !spans.empty())
      write_file(folder_.path() / "pipeline.svg", timeline_svg(spans));
  }

  /// Whether a signal came to any rank. All stop after the same step. The same message tells when
  /// no rank is busy with a checkpoint any more.
  bool is_asked_to_stop() {
    if (mesh_.world().size() > 1)
      set_signal_note(fmt::format("{}, step {}: ", rank_label(mesh_.world()), state_.step + 1));
    const std::vector<double> any =
        reduced(mesh_.world(), {static_cast<double>(stop_signal()), saver_.is_busy() ? 1.0 : 0.0},
                Reduction::max);
    if (any[1] == 0) saver_.advance();
    stopped_by_ = static_cast<int>(any[0]);
    return stopped_by_ != 0;
  }

  void write_trace(bool run_is_over) {
    if (trace_ && trace_->write(run_is_over))
      log_->say(fmt::format("wrote {}", trace_->file().string()));
  }

  /// Opens the samples of the level that the state is at, from where the state stands.
  void begin_level() {
    loader_.reset();  // its threads still make batches of the level before
    LoaderOptions options = loader_options(recipe_, *config_);
    options.seed = level_seed(recipe_, state_);
    options.first_position = state_.level_position;
    options.rank = mesh_.replica();
    options.ranks = static_cast<int>(mesh_.shape().dp);
    if (recipe_.encoder_cache.enabled && placement_.encoder_is_apart) options.image_token_work = 0;
    if (features_)
      options.is_cached = [this](const std::string& key) { return features_->is_cached(key); };
    else if (placement_.pieces.front().begin >= config_->first_decoder_unit())
      options.is_cached = [](const std::string&) { return true; };  // another stage has the encoder
    loader_ = std::make_unique<Loader>(
        data_.training(state_.level), options,
        LoaderState{state_.loader_position, static_cast<std::uint64_t>(state_.step)});
    validation_ = data_.validation(state_.level);
  }

  void advance() {
    const std::int64_t steps = state_.step - state_.level_step;
    begin_next_level(state_);
    begin_level();
    log_->say(fmt::format("step {}: after {} steps the next level begins, {} of {}: {}",
                          state_.step, steps, state_.level + 1, data_.levels(),
                          level_of(recipe_, state_)->name));
  }

  /// Weights from the newest checkpoint, or those that the recipe begins with.
  void restore(bool resume) {
    state_.stage = recipe_.stage;
    state_.seed = recipe_.seed;
    std::string newest;
    if (is_first()) {
      remove_stale(folder_.checkpoints());
      if (const auto entry = resume ? newest_complete(folder_.checkpoints()) : std::nullopt)
        newest = entry->path.string();
    }
    newest = all_gather_text(mesh_.world(), newest)[0];
    if (newest.empty()) {
      load_initial_weights(recipe_.model, *model_);
      return;
    }
    state_ = load_training_state(newest, state_, *model_, optimizer_, placement_.has_whole_model());
    std::erase_if(state_.selection_bias, [&](const auto& bias) {  // of layers of other stages
      return !placement_.has_unit(config_->first_decoder_unit() + bias.first);
    });
    saved_step_ = state_.step;
  }

  void announce() {
    std::int64_t trained = 0;
    for (const auto& [name, variable] : model_->store().trainable())
      trained += variable.value().numel();
    const std::int64_t ranks = mesh_.world().size();
    log_->say(fmt::format(
        "{}: {} parameters, {} trained; {} samples a step; step {} of {}; {}{} threads",
        folder_.path().string(),
        format_count(static_cast<double>(model_->store().parameter_count())),
        format_count(static_cast<double>(trained)), recipe_.batch.global_size, state_.step,
        recipe_.steps, ranks > 1 ? fmt::format("{} ranks of ", ranks) : "", thread_count()));
    if (budget_.plan()) log_->say(budget_.announcement());
  }

  /// Fetch, forward, backward, clip, update, report.
  StepTotals step(Loader& loader) {
    const double start = now();
    reset_peak_memory_of(device_);
    budget_.begin_step();
    optimizer_.clear_gradients();
    StepTotals totals;
    if (pipeline_) {
      totals_ = &totals;
      pipeline_->step(*this);
      batches_.clear();
    } else {
      std::int64_t expected = 1;
      for (std::int64_t i = 0; i < expected; ++i) {
        const LoadedBatch batch = loader.next();
        profile_mark("", "wait for batch");
        expected = batch.micro_batches;
        micro_step(batch, totals);
      }
    }
    const double loss_here = totals.loss_sum;
    optimizer_.reduce_gradients();
    add_over_ranks(*mesh_.data(), totals);
    if (pipeline_) add_over_stages(*mesh_.pipeline(), totals);
    const double norm = check_finite(totals.loss(), loss_here);
    profile_mark("optimizer ", "gradient norm");
    const double rate = learning_rate(schedule_, state_.step);
    saver_.before_update();
    optimizer_.step(rate, recipe_.optimizer.clip_norm > 0
                              ? clip_scale(norm, recipe_.optimizer.clip_norm)
                              : 1.0);
    profile_mark("optimizer ", "AdamW");
    balance_experts(state_, totals.expert_counts, recipe_.moe.bias_balancing_rate);
    ++state_.step;
    verify_replicas();
    report(totals, norm, rate, now() - start);
    return totals;
  }

  ForwardContext context_of_step() {
    ForwardContext context;
    context.recompute_blocks = recipe_.recompute;
    context.stream_interval = recipe_.recompute_streams;
    context.want_balance_loss = recipe_.moe.balance_loss > 0;
    context.want_stream_statistics = diagnostics_due(state_.step + 1);
    context.selection_bias = state_.selection_bias;
    context.expert_exchange = experts_ ? &*experts_ : nullptr;
    return context;
  }

  /// The loss of a micro-batch as its part of the step's; counts what went into it.
  static Variable add_loss(const ModelLoss& loss, const LoadedBatch& batch, StepTotals& totals) {
    totals.loss_sum += loss.loss_sum.value().item();
    totals.trained_tokens += loss.count;
    totals.tokens += batch.input_ids.numel();
    totals.samples += batch.samples;
    totals.work_spread = batch.step_work_spread;
    ++totals.micro_batches;
    return scale(loss.loss_sum,
                 1.0 / static_cast<double>(std::max<std::int64_t>(1, batch.step_trained_tokens)));
  }

  /// Adds the routers' balance losses to the loss, and what the pass reported to the totals.
  Variable add_reports(Variable loss, const ForwardContext& context, const LoadedBatch& batch,
                       StepTotals& totals) const {
    totals.add_expert_counts(context.expert_counts);
    for (const StreamStatistics& stack : context.stream_statistics)
      totals.streams[stack.stack] = combined(totals.streams[stack.stack], stack);
    const double layers = sparse_layers(*config_);
    for (const Variable& balance : context.balance_losses) {
      const double batches = static_cast<double>(batch.micro_batches * mesh_.shape().dp);
      totals.balance_sum += balance.value().item() / layers;
      const Variable part = scale(balance, recipe_.moe.balance_loss / layers / batches);
      loss = loss.defined() ? add(loss, part) : part;
    }
    return loss;
  }

  /// PipelineModel: one chunk of this rank for one micro-batch of the step.
  PipelineOutput forward(std::int64_t chunk, std::int64_t micro_batch,
                         const std::vector<Variable>& inputs) override {
    while (static_cast<std::int64_t>(batches_.size()) <= micro_batch)
      batches_.push_back(loader_->next());
    const LoadedBatch& batch = batches_[static_cast<std::size_t>(micro_batch)];
    const ModelInput input = input_of(batch);
    ForwardContext context = context_of_step();
    UnitRange units = placement_.pieces[static_cast<std::size_t>(chunk)];
    std::vector<Variable> received = inputs;
    if (features_ && units.begin == 0) {
      const MediaRows visual = features_->features_of(batch, input, context);
      received = {visual.global, visual.local};
      units.begin = config_->first_decoder_unit();
    }
    PieceResult piece = run_piece(*model_, units, input, received, context);
    PipelineOutput out;
    out.tensors = std::move(piece.tensors);
    if (piece.loss) out.objective = add_loss(*piece.loss, batch, *totals_);
    out.objective = add_reports(out.objective, context, batch, *totals_);
    return out;
  }

  void micro_step(const LoadedBatch& batch, StepTotals& totals) {
    ForwardContext context = context_of_step();
    ModelInput input = input_of(batch);
    budget_.begin_pass(input, batch.micro_batch, batch.micro_batches, context);
    const MediaRows visual = features_->features_of(batch, input, context);
    Variable total = add_loss(model_->loss(input, context, &visual), batch, totals);
    total = add_reports(total, context, batch, totals);
    if (total.requires_grad()) {
      const bool is_last = batch.micro_batch + 1 == batch.micro_batches;
      const ObserveBackward sending(is_last ? optimizer_.observer() : nullptr);
      total.backward();
    }
    if (const auto plan = budget_.end_pass()) log_->say(*plan);
  }

  /// Global gradient norm; stops the run before the update when anything is not finite.
  double check_finite(double loss, double loss_here) {
    const double norm = optimizer_.gradient_norm();
    if (std::isfinite(loss) && std::isfinite(norm)) return norm;
    saver_.finish_quietly();  // all ranks come here, so they still can
    fail_not_finite(mesh_.world(), optimizer_, {state_.step + 1, loss, loss_here, norm});
  }

  /// Now and then: ranks that should hold the same weights do.
  void verify_replicas() {
    const std::int64_t every = recipe_.mesh.verify_every;
    if (mesh_.expert_replicas()->size() == 1 || every == 0 || state_.step % every != 0) return;
    check_replicas(*mesh_.expert_replicas(), parameter_fingerprint(model_->store(), {""}),
                   state_.step);
  }

  bool diagnostics_due(std::int64_t step) const {
    const std::int64_t every = recipe_.log.diagnostics_every;
    return every > 0 && (step % every == 0 || step == 1 || step == recipe_.steps);
  }

  /// Gradients are those of the last backward, before clipping.
  void add_diagnostics(const StepTotals& totals, MetricFields& fields) {
    add_stream_fields(totals.streams, fields);
    for (const auto& [layer, norm] : layer_gradient_norms(optimizer_.gradient_squares()))
      fields["grad_norm_" + layer] = norm;
  }

  void report(const StepTotals& totals, double norm, double rate, double seconds) {
    const double tokens_per_second = static_cast<double>(totals.tokens) / seconds;
    log_->update({state_.step, totals.loss(), rate, tokens_per_second});
    if (state_.step % recipe_.log_every != 0 && state_.step != recipe_.steps) return;
    MetricFields fields = {{"loss", totals.loss()},
                           {"grad_norm", norm},
                           {"lr", rate},
                           {"samples", totals.samples},
                           {"tokens", totals.tokens},
                           {"seconds", seconds},
                           {"peak_bytes", static_cast<std::int64_t>(reduced(
                                              mesh_.world(), budget_.peak(), Reduction::max))}};
    budget_.add_fields(fields);
    if (sparse_layers(*config_) > 0) fields["expert_load"] = totals.worst_expert_load();
    if (mesh_.shape().dp > 1) fields["work_spread"] = totals.work_spread;
    if (diagnostics_due(state_.step)) add_diagnostics(totals, fields);
    if (recipe_.moe.balance_loss > 0)
      fields["router_loss"] = totals.balance_sum / static_cast<double>(totals.micro_batches);
    if (level_of(recipe_, state_)) fields["level"] = state_.level + 1;
    log_->record(state_.step, fields);
  }

  void after_step() {
    state_.loader_position = loader_->state().samples;
    const bool last = state_.step == recipe_.steps;
    const auto due = [&](std::int64_t every) {
      return last || (every > 0 && state_.step % every == 0);
    };
    std::optional<double> figure;
    if (!validation_.empty() && recipe_.evaluation.samples > 0 && due(recipe_.evaluation.every))
      figure = validate_level();
    if (!last && is_level_done(recipe_, state_, figure)) advance();
    if (due(recipe_.checkpoint.every)) save();
  }

  /// Reads and scores the level's held-out samples; the figure that moves the curriculum.
  double validate_level() {
    std::optional<WholeModel> whole;  // reading takes all of it
    if (!placement_.has_whole_model()) whole.emplace(*model_, mesh_, folder_.checkpoints());
    ValidationResult result = validate(whole ? whole->model() : *model_, tokenizer_, validation_,
                                       recipe_.evaluation, mesh_.world());
    const CurriculumRecipe* level = level_of(recipe_, state_);
    if (level) result.fields["level"] = state_.level + 1;
    for (const std::string& line : result.lines)
      log_->say(fmt::format("step {}: {}", state_.step, line));
    log_->record_evaluation(state_.step, result.fields);
    return level && level->measure == "loss" ? result.loss : result.cer;
  }

  void save() {
    saver_.begin(state_);
    saved_step_ = state_.step;
  }

  CheckpointSaverOptions saver_options() {
    return {
        .folder = folder_.checkpoints(),
        .tokenizer_json = tokenizer_.json(),
        .keep = recipe_.checkpoint.keep,
        .asynchronous = recipe_.checkpoint.asynchronous,
        .before_complete = [this] { log_->sync(); },
        .completed =
            [this](const std::filesystem::path& path, double seconds) {
              log_->say(fmt::format("saved {} (training waited {:.2f} s)", path.string(), seconds));
            },
        .at_point = {}};
  }

  const Recipe& recipe_;
  Device device_;
  Mesh mesh_;
  Tokenizer tokenizer_;
  std::unique_ptr<const ModelConfig> config_;
  RankPlacement placement_;
  std::unique_ptr<OcrModel> model_;
  TrainingData data_;
  RunFolder folder_;  // made when all that the recipe names has been read: a typo leaves no folder
  ScheduleArgs schedule_;
  ParallelAdamW optimizer_;
  MemoryBudget budget_;
  std::optional<RunLog> log_;
  CheckpointSaver saver_;
  RunState state_;
  std::int64_t saved_step_ = -1;
  int stopped_by_ = 0;
  std::vector<ValidationSet> validation_;
  std::unique_ptr<EncoderFeatures> features_;
  std::unique_ptr<Loader> loader_;  // its threads ask features_, so it goes first
  std::optional<StepTrace> trace_;
  std::optional<ExpertParallel> experts_;
  std::unique_ptr<Pipeline> pipeline_;
  std::vector<LoadedBatch> batches_;  // of the step that the pipeline is in
  StepTotals* totals_ = nullptr;      // of that step
};

}  // namespace

TrainingSummary train(const Recipe& recipe, bool resume, bool profile,
                      std::shared_ptr<Communicator> world) {
  if (!world) world = make_single_group();
  check_mesh(recipe, world->size());
  set_rank_threads(recipe.threads, *world);
  set_wait_limit(recipe.mesh.wait_seconds);
  const ComputeDType scope(compute_dtype_of(recipe.dtype));
  std::optional<Training> training;
  try {
    training.emplace(recipe, resume, profile, world);
    return training->run();
  } catch (const std::exception& error) {
    if (world->size() == 1) {
      if (training) training->keep_checkpoint_under_way();
      throw;
    }
    const std::string where =
        training ? fmt::format("step {}", training->steps_done() + 1) : "before the first step";
    end_job(*world, where, error.what());
  }
}

}  // namespace lectern
