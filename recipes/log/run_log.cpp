#include "recipes/log/run_log.h"

#include <nlohmann/json.hpp>

#include <utility>
#include <vector>

namespace lectern {

RunLog::RunLog(const Recipe& recipe, const RunFolder* folder, std::int64_t step) {
  if (folder == nullptr) return;
  metrics_.emplace(folder->metrics(), step, recipe.log.wall_clock);
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
