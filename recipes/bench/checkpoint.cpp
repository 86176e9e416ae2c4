#include "recipes/bench/checkpoint.h"

#include "autograd/compute_dtype.h"
#include "core/parallel.h"
#include "core/statistics.h"
#include "core/stopwatch.h"
#include "distributed/groups.h"
#include "nn/families.h"
#include "recipes/checkpoint/saver.h"
#include "recipes/machine/process_memory.h"
#include "recipes/recipe/recipe.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace lectern {
namespace {

/// A model in training as the trainer does it, on one rank.
class Run {
 public:
  Run(const BenchStepArgs& args, const std::filesystem::path& folder)
      : world_(make_single_group()),
        mesh_(world_, 1, 1),
        model_(read_model_config(args.config)->make(0)),
        optimizer_({.learning_rate = 1e-4}, world_),
        folder_(folder) {
    model_->store().freeze(model_->config().prefixes_of(frozen_parts(args.stage)));
    optimizer_.add_group("all", model_->store().trainable(), 0.1, world_);
    input_ = random_input(model_->config(), args);
    context_.recompute_blocks = args.recompute;
  }

  std::unique_ptr<CheckpointSaver> saver(bool asynchronous) {
    CheckpointSaverOptions options;
    options.folder = folder_;
    options.tokenizer_json = "{}";
    options.asynchronous = asynchronous;
    options.completed = [this](const std::filesystem::path& path, double seconds) {
      completed_ = path;
      stalled_ = seconds;
    };
    return std::make_unique<CheckpointSaver>(*model_, model_->store(), optimizer_, mesh_,
                                             std::move(options));
  }

  /// Seconds of one step, with what the trainer asks of the saver in each.
  double step(CheckpointSaver* saver) {
    const Stopwatch watch;
    if (saver != nullptr && !saver->is_busy()) saver->advance();
    optimizer_.clear_gradients();
    ForwardContext context = context_;
    const ModelLoss loss = model_->loss(input_, context);
    loss.loss_sum.backward(
        Tensor::full(loss.loss_sum.shape(), 1.0 / static_cast<double>(loss.count)));
    optimizer_.reduce_gradients();
    const double norm = optimizer_.gradient_norm();
    if (saver != nullptr) saver->before_update();
    optimizer_.step(1e-4, clip_scale(norm, 1.0));
    ++state_.step;
    return watch.seconds();
  }

  const RunState& state() const { return state_; }
  const ParameterStore& store() const { return model_->store(); }
  const std::filesystem::path& completed() const { return completed_; }
  double stalled() const { return stalled_; }

 private:
  std::shared_ptr<Communicator> world_;
  Mesh mesh_;
  std::unique_ptr<OcrModel> model_;
  ParallelAdamW optimizer_;
  std::filesystem::path folder_;
  ModelInput input_;
  ForwardContext context_;
  RunState state_;
  std::filesystem::path completed_;  // the last checkpoint that became complete
  double stalled_ = 0;
};

std::uintmax_t bytes_of_folder(const std::filesystem::path& folder) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) bytes += entry.file_size();
  return bytes;
}

}  // namespace

nlohmann::ordered_json bench_checkpoint(const BenchCheckpointArgs& args) {
  const ComputeDType scope(compute_dtype_of(args.step.dtype));
  if (args.step.threads > 0) set_thread_count(static_cast<int>(args.step.threads));
  const auto folder = args.out / fmt::format("lectern-bench-{}", getpid());
  Run run(args.step, folder);
  constexpr int kWarmUp = 2;
  std::vector<double> without, meanwhile;
  for (std::int64_t i = -kWarmUp; i < args.step.steps; ++i) {
    const double seconds = run.step(nullptr);
    if (i >= 0) without.push_back(seconds);
  }
  const double step = median(without);

  double complete = 0;
  {
    const auto saver = run.saver(true);
    const Stopwatch watch;
    saver->begin(run.state());
    const double beginning = watch.seconds();
    while (run.completed().empty()) meanwhile.push_back(run.step(saver.get()));
    complete = watch.seconds();
    meanwhile.front() += beginning;
  }
  const double slower = std::accumulate(meanwhile.begin(), meanwhile.end(), 0.0) -
                        step * static_cast<double>(meanwhile.size());
  const double stalled = run.stalled();
  const std::uintmax_t bytes = bytes_of_folder(run.completed());
  const auto saver = run.saver(false);
  saver->begin(run.state());
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  return {{"parameters", run.store().parameter_count()},
          {"dtype", args.step.dtype},
          {"threads", thread_count()},
          {"step_seconds", step},
          {"steps_without", without},
          {"steps_meanwhile", meanwhile},
          {"stalled_seconds", stalled},
          {"stalled_share", stalled / step},
          {"slower_seconds", slower},
          {"slower_share", slower / step},
          {"complete_seconds", complete},
          {"at_once_seconds", run.stalled()},
          {"checkpoint_bytes", bytes},
          {"peak_bytes", peak_resident_bytes()}};
}

}  // namespace lectern
