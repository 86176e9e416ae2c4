#include "recipes/log/run_log.h"

#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>

#include <utility>
#include <vector>

namespace lectern {

namespace {

/// A run that goes on has every record once: says what the file cannot give any more.
void say_what_lacks(const MetricsWriter& metrics, const Recipe& recipe,
                    const std::filesystem::path& path, std::int64_t step) {
  if (metrics.broken_lines() > 0)
    spdlog::warn("{}: {} lines were no records and are dropped", path.string(),
                 metrics.broken_lines());
  if (metrics.last_kept() + recipe.log_every <= step)
    spdlog::warn(
        "{}: has no records after step {}, the checkpoint is of step {}: those between "
        "are missing",
        path.string(), metrics.last_kept(), step);
}

}  // namespace

RunLog::RunLog(const Recipe& recipe, const RunFolder* folder, std::int64_t step) {
  if (folder == nullptr) return;
  metrics_.emplace(folder->metrics(), step, recipe.log.wall_clock);
  say_what_lacks(*metrics_, recipe, folder->metrics(), step);
  if (recipe.log.tensorboard) events_.emplace(folder->path(), step);
  Progress::Options progress;
  progress.first_step = step;
  progress.total_steps = recipe.steps;
  progress.seconds_between_lines = recipe.log.progress_seconds;
  progress.label = fmt::format("stage {}", recipe.stage);
  progress_.emplace(std::move(progress));
}

void RunLog::update(const StepReport& report) {
  if (progress_) progress_->update(report);
}

void RunLog::say(std::string_view message) {
  if (progress_) progress_->say(message);
}

void RunLog::record(std::int64_t step, const MetricFields& fields) {
  if (metrics_) metrics_->write(step, fields);
  if (!events_) return;
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [name, value] : fields.items())
    scalars.emplace_back("train/" + name, value.get<double>());
  events_->scalars(step, scalars);
}

void RunLog::record_evaluation(std::int64_t step, const MetricFields& fields) {
  if (metrics_) metrics_->write(step, fields);
  if (!events_) return;
  std::vector<std::pair<std::string, double>> scalars;
  for (const auto& [name, value] : fields.items())
    if (name.starts_with("eval_") && name != "eval_samples")
      scalars.emplace_back("eval/" + name.substr(5), value.get<double>());
  events_->scalars(step, scalars);
}

void RunLog::sync() {
  if (metrics_) metrics_->sync();
}

}  // namespace lectern
