#include "recipes/train/optimizer_setup.h"

namespace lectern {

AdamWArgs adamw_args(const Recipe& recipe) {
  const OptimizerRecipe& in = recipe.optimizer;
  return {.learning_rate = in.learning_rate,
          .beta1 = in.beta1,
          .beta2 = in.beta2,
          .epsilon = in.epsilon,
          .weight_decay = in.weight_decay};
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

void add_parameters(ParallelAdamW& optimizer, const ParameterStore& store, const Recipe& recipe,
                    const Mesh& mesh) {
  for (const Parameter& parameter : store.parameters()) {
    const Variable& variable = parameter.variable;
    if (!variable.requires_grad()) continue;
    const bool decays = variable.value().ndim() >= 2 || recipe.optimizer.decay_norms_and_biases;
    const double decay = decays ? recipe.optimizer.weight_decay : 0.0;
    const auto& replicas = parameter.is_spread() ? mesh.expert_replicas() : mesh.data();
    optimizer.add_group(parameter.name, {{parameter.name, variable}}, decay, replicas,
                        parameter.share.rank, parameter.share.ranks);
  }
}

}  // namespace lectern
