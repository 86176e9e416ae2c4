#include "recipes/train/step_report.h"

#include "distributed/world.h"
#include "recipes/log/metrics.h"
#include "recipes/train/curriculum.h"
#include "recipes/train/diagnostics.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {

std::int64_t sparse_layers(const ModelConfig& config) {
  const auto& sparse = config.decoder.layer_is_sparse;
  return std::count(sparse.begin(), sparse.end(), true);
}

bool diagnostics_due(const Recipe& recipe, std::int64_t step) {
  const std::int64_t every = recipe.log.diagnostics_every;
  return every > 0 && (step % every == 0 || step == 1 || step == recipe.steps);
}

void report_step(RunSetup& run, const StepTotals& totals, const StepFigures& figures) {
  const Recipe& recipe = run.recipe;
  const std::int64_t step = run.state.step;
  const double tokens_per_second = static_cast<double>(totals.tokens) / figures.seconds;
  run.log->update({step, totals.loss(), figures.learning_rate, tokens_per_second});
  if (step % recipe.log_every != 0 && step != recipe.steps) return;
  MetricFields fields = {{"loss", totals.loss()},
                         {"grad_norm", figures.gradient_norm},
                         {"lr", figures.learning_rate},
                         {"samples", totals.samples},
                         {"tokens", totals.tokens},
                         {"seconds", figures.seconds},
                         {"peak_bytes", static_cast<std::int64_t>(reduced(
                                            run.mesh.world(), run.budget.peak(), Reduction::max))}};
  run.budget.add_fields(fields);
  if (sparse_layers(*run.config) > 0) fields["expert_load"] = totals.worst_expert_load();
  if (run.mesh.shape().dp > 1) fields["work_spread"] = totals.work_spread;
  if (diagnostics_due(recipe, step)) {
    add_stream_fields(totals.streams, fields);
    for (const auto& [layer, norm] : layer_gradient_norms(run.optimizer.gradient_squares()))
      fields["grad_norm_" + layer] = norm;
  }
  if (recipe.moe.balance_loss > 0)
    fields["router_loss"] = totals.balance_sum / static_cast<double>(totals.micro_batches);
  if (level_of(recipe, run.state)) fields["level"] = run.state.level + 1;
  run.log->record(step, fields);
}

}  // namespace lectern
