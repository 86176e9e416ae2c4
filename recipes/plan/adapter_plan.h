// What low-rank adapters of a model cost in memory, target by target.
#pragma once

#include "nn/model_config.h"
#include "recipes/recipe/recipe.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

struct AdapterCost {
  std::string target;
  std::int64_t pairs = 0;
  double parameters = 0;  ///< of A and B
  double bytes = 0;       ///< values, gradients, two moments: f32
  double merged = 0;      ///< bytes of the sums W + B A that exist at one time, f32
};

struct AdapterPlan {
  std::int64_t rank = 0;
  double model_bytes = 0;  ///< of the base as `dtype` maps it: matrices in bf16, or all in f32
  std::vector<AdapterCost> targets;  ///< every part that may have pairs
  AdapterCost chosen;                ///< what the recipe says; `target` is empty
};

/// Counted from shapes; nothing is made. Throws as adapter_of().
AdapterPlan plan_adapter(const Recipe& recipe, const ModelConfig& config);
std::string adapter_table(const AdapterPlan& plan);
nlohmann::ordered_json adapter_plan_json(const AdapterPlan& plan);

}  // namespace lectern
