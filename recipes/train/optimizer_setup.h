// The optimizer that a recipe asks for.
#pragma once

#include "distributed/mesh.h"
#include "distributed/parallel_adamw.h"
#include "nn/optim/schedule.h"
#include "nn/parameter.h"
#include "recipes/recipe/recipe.h"

namespace lectern {

AdamWArgs adamw_args(const Recipe& recipe);
ScheduleArgs schedule_args(const Recipe& recipe);

/// Gives the trained parameters to the optimizer, each with the ranks that hold it too. Matrices
/// decay; norms, biases and other vectors do so only when the recipe says.
void add_parameters(ParallelAdamW& optimizer, const ParameterStore& store, const Recipe& recipe,
                    const Mesh& mesh);

}  // namespace lectern
