#include "recipes/train/trainer.h"

#include "autograd/compute_dtype.h"
#include "core/allocator.h"
#include "core/io/file.h"
#include "core/profile.h"
#include "core/stopwatch.h"
#include "distributed/groups.h"
#include "distributed/replica_check.h"
#include "distributed/world.h"
#include "nn/optim/schedule.h"
#include "recipes/log/pipeline_timeline.h"
#include "recipes/log/step_trace.h"
#include "recipes/machine/device.h"
#include "recipes/machine/interrupt.h"
#include "recipes/train/curriculum.h"
#include "recipes/train/diagnostics.h"
#include "recipes/train/optimizer_setup.h"
#include "recipes/train/run_setup.h"
#include "recipes/train/start.h"
#include "recipes/train/step_passes.h"
#include "recipes/train/step_report.h"
#include "recipes/train/validation.h"
#include "recipes/train/whole_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

namespace lectern {
namespace {

class Training {
 public:
  Training(const Recipe& recipe, bool resume, bool profile,
           const std::shared_ptr<Communicator>& world)
      : run_(recipe, resume, world),
        passes_(run_.placement.pipeline.stages > 1 ? make_pipeline_step(run_)
                                                   : make_plain_step(run_)),
        schedule_(schedule_args(recipe)) {
    if (profile && run_.is_first())
      trace_.emplace(run_.folder.path() / "trace.json",
                     traced_steps(run_.state.step + 1, recipe.steps), run_.device);
  }

  TrainingSummary run() {
    run_.open_level();
    run_.open_log();
    if (steps_done() == 0) verify_replicas();  // weights that not all ranks began from
    TrainingSummary summary;
    const Stopwatch watch;
    std::int64_t samples = 0;
    while (steps_done() < run_.recipe.steps && !is_asked_to_stop()) {
      if (trace_) trace_->begin(steps_done() + 1);
      const StepTotals totals = step();
      if (trace_) trace_->end(steps_done());
      write_trace(false);
      samples += totals.samples;
      if (summary.steps == 0) summary.loss_first = totals.loss();
      summary.loss_last = totals.loss();
      ++summary.steps;
      after_step();
    }
    write_trace(true);
    summary.steps = steps_done();
    summary.seconds = watch.seconds();
    summary.samples_per_second = static_cast<double>(samples) / std::max(1e-9, summary.seconds);
    if (run_.saved_step != steps_done()) save();
    run_.saver.finish();
    draw_last_step();
    summary.checkpoint = (run_.folder.checkpoints() / checkpoint_name(steps_done())).string();
    summary.stopped_by = steps_done() < run_.recipe.steps ? stopped_by_ : 0;
    return summary;
  }

  /// Optimizer steps done.
  std::int64_t steps_done() const { return run_.state.step; }

  /// The run is about to end by an error: what is being saved is of before it.
  void keep_checkpoint_under_way() noexcept { run_.saver.finish_quietly(); }

 private:
  /// Fetch, forward, backward, clip, update, report.
  StepTotals step() {
    const Stopwatch watch;
    reset_peak_memory_of(run_.device);
    run_.budget.begin_step();
    run_.optimizer.clear_gradients();
    StepTotals totals = passes_->run();
    const double loss_here = totals.loss_sum;
    run_.optimizer.reduce_gradients();
    add_over_ranks(*run_.mesh.data(), totals);
    add_over_stages(*run_.mesh.pipeline(), totals);
    const double norm = check_finite(totals.loss(), loss_here);
    profile_mark("optimizer ", "gradient norm");
    const double rate = learning_rate(schedule_, steps_done());
    run_.saver.before_update();
    const double clip_norm = run_.recipe.optimizer.clip_norm;
    run_.optimizer.step(rate, clip_norm > 0 ? clip_scale(norm, clip_norm) : 1.0);
    profile_mark("optimizer ", "AdamW");
    balance_experts(run_.state, totals.expert_counts, run_.recipe.moe.bias_balancing_rate);
    ++run_.state.step;
    verify_replicas();
    report_step(run_, totals, {norm, rate, watch.seconds()});
    return totals;
  }

  /// Global gradient norm; stops the run before the update when anything is not finite.
  double check_finite(double loss, double loss_here) {
    const double norm = run_.optimizer.gradient_norm();
    if (std::isfinite(loss) && std::isfinite(norm)) return norm;
    run_.saver.finish_quietly();  // all ranks come here, so they still can
    fail_not_finite(run_.mesh.world(), run_.optimizer, {steps_done() + 1, loss, loss_here, norm});
  }

  /// Now and then: ranks that should hold the same weights do.
  void verify_replicas() const {
    const std::int64_t every = run_.recipe.mesh.verify_every;
    const auto& replicas = run_.mesh.expert_replicas();
    if (replicas->size() == 1 || every == 0 || steps_done() % every != 0) return;
    check_replicas(*replicas, parameter_fingerprint(run_.trained(), {""}), steps_done());
  }

  /// Validation, the next level of the curriculum and a checkpoint, where they are due.
  void after_step() {
    const Recipe& recipe = run_.recipe;
    run_.state.loader_position = run_.loader->state().samples;
    const bool last = steps_done() == recipe.steps;
    const auto due = [&](std::int64_t every) {
      return last || (every > 0 && steps_done() % every == 0);
    };
    std::optional<double> figure;
    if (!run_.validation.empty() && recipe.evaluation.samples > 0 && due(recipe.evaluation.every))
      figure = validate_level();
    if (!last && is_level_done(recipe, run_.state, figure)) advance();
    if (due(recipe.checkpoint.every)) save();
  }

  /// Reads and scores the level's held-out samples; the figure that moves the curriculum.
  double validate_level() {
    std::optional<WholeModel> whole;  // reading takes all of it
    if (!run_.placement.has_whole_model()) whole.emplace(run_);
    ValidationResult result = validate(whole ? whole->model() : *run_.model, run_.tokenizer,
                                       run_.validation, run_.recipe.evaluation, run_.mesh.world());
    const CurriculumRecipe* level = level_of(run_.recipe, run_.state);
    if (level) result.fields["level"] = run_.state.level + 1;
    for (const std::string& line : result.lines)
      run_.log->say(fmt::format("step {}: {}", steps_done(), line));
    run_.log->record_evaluation(steps_done(), result.fields);
    return level && level->measure == "loss" ? result.loss : result.cer;
  }

  void advance() {
    const std::int64_t steps = steps_done() - run_.state.level_step;
    begin_next_level(run_.state);
    run_.open_level();
    run_.log->say(fmt::format("step {}: after {} steps the next level begins, {} of {}: {}",
                              steps_done(), steps, run_.state.level + 1, run_.data.levels(),
                              level_of(run_.recipe, run_.state)->name));
  }

  void save() {
    run_.saver.begin(run_.state);
    run_.saved_step = steps_done();
  }

  /// Whether a signal came to any rank. All stop after the same step. The same message tells when
  /// no rank is busy with a checkpoint any more.
  bool is_asked_to_stop() {
    Communicator& world = run_.mesh.world();
    if (world.size() > 1)
      set_signal_note(fmt::format("{}, step {}: ", rank_label(world), steps_done() + 1));
    const std::vector<double> any =
        reduced(world, {static_cast<double>(stop_signal()), run_.saver.is_busy() ? 1.0 : 0.0},
                Reduction::max);
    if (any[1] == 0) run_.saver.advance();
    stopped_by_ = static_cast<int>(any[0]);
    return stopped_by_ != 0;
  }

  void write_trace(bool run_is_over) {
    if (trace_ && trace_->write(run_is_over))
      run_.log->say(fmt::format("wrote {}", trace_->file().string()));
  }

  /// pipeline.svg in the run folder: the tasks of this process's last step, of the first pipeline.
  void draw_last_step() const {
    if (run_.mesh.pipeline()->size() == 1 || run_.mesh.replica() != 0) return;
    const auto spans = gather_spans(*run_.mesh.pipeline(), passes_->spans());
    if (run_.is_first() && !spans.empty())
      write_file(run_.folder.path() / "pipeline.svg", timeline_svg(spans));
  }

  RunSetup run_;
  std::unique_ptr<StepPasses> passes_;
  ScheduleArgs schedule_;
  std::optional<StepTrace> trace_;
  int stopped_by_ = 0;
};

}  // namespace

TrainingSummary train(const Recipe& recipe, bool resume, bool profile,
                      std::shared_ptr<Communicator> world) {
  if (!world) world = make_single_group();
  set_wait_limit(recipe.mesh.wait_seconds);
  std::optional<Training> training;
  const ComputeDType scope(compute_dtype_of(recipe.dtype));
  try {
    // Before anything that needs all ranks to do the same.
    check_same_on_all_ranks(*world, "recipe",
                            fmt::format("--resume = {}\n{}", resume, recipe.resolved));
    check_mesh(recipe, world->size());
    set_rank_threads(recipe.threads, *world);
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
