#include "recipes/plan/adapter_plan.h"

#include "nn/model.h"
#include "recipes/train/adapter_setup.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

constexpr double kMib = 1 << 20;

/// Rows and columns of every matrix that may have a pair, by name; `merged`: its parameter's
/// bytes where operations take the sum itself (stacks of experts, routers, the head).
struct Matrix {
  double rows = 0, columns = 0;
  std::string parameter;
  double sum_bytes = 0;
};

std::map<std::string, Matrix> matrices_of(const OcrModel& model) {
  std::map<std::string, Matrix> out;
  for (const Parameter& parameter : model.store().parameters()) {
    if (parameter.low_rank == nullptr) continue;
    const Shape shape = parameter.variable.shape();
    const bool is_summed = shape.ndim() == 3 || Decoder::is_head(parameter.name) ||
                           matches_any(parameter.name, {kRouters});
    const double bytes = is_summed ? 4.0 * static_cast<double>(shape.numel()) : 0.0;
    for (const ParameterPart& part : parameter.parts)
      out[matrix_of_tensor(part.name)] = {static_cast<double>(part.end - part.begin),
                                          static_cast<double>(shape[shape.ndim() - 1]),
                                          parameter.name, bytes};
  }
  return out;
}

AdapterCost cost_of(const std::string& target, const AdapterShape& shape,
                    const std::map<std::string, Matrix>& matrices) {
  AdapterCost out;
  out.target = target;
  for (const auto& [name, pair] : shape) {
    const Matrix& matrix = matrices.at(name);
    ++out.pairs;
    out.parameters += static_cast<double>(pair.rank) * (matrix.rows + matrix.columns);
    out.merged = std::max(out.merged, matrix.sum_bytes);
  }
  constexpr double kCopies = 4;  // value, gradient, two moments
  out.bytes = kCopies * sizeof(float) * out.parameters;
  return out;
}

nlohmann::ordered_json json_of(const AdapterCost& cost) {
  return {{"target", cost.target},
          {"pairs", cost.pairs},
          {"parameters", cost.parameters},
          {"bytes", cost.bytes},
          {"sum_bytes", cost.merged}};
}

}  // namespace

AdapterPlan plan_adapter(const Recipe& recipe, const ModelConfig& config) {
  const auto model = config.make(0, DType::f32, ParameterValues::absent);
  const auto matrices = matrices_of(*model);
  AdapterPlan out;
  const AdapterInfo info = adapter_of(recipe, config);
  out.rank = info.rank;
  const bool is_bf16 = compute_dtype_of(recipe.dtype) == DType::bf16;
  for (const Parameter& parameter : model->store().parameters()) {
    const bool is_matrix = parameter.variable.shape().ndim() >= 2;
    out.model_bytes += (is_bf16 && is_matrix ? 2.0 : 4.0) *
                       static_cast<double>(parameter.variable.shape().numel());
  }
  const PairShape pair = {info.rank, 1.0};
  for (const auto& [name, patterns] : config.named_parts()) {
    if (name == "decoder" || name == "encoder") continue;  // sums of others
    const AdapterShape shape = adapter_shape(config, config.prefixes_of({name}), pair);
    if (!shape.empty()) out.targets.push_back(cost_of(name, shape, matrices));
  }
  out.chosen = cost_of("", info.shape, matrices);
  return out;
}

std::string adapter_table(const AdapterPlan& plan) {
  std::string out = fmt::format(
      "The model stays in its file: {:.0f} MiB, mapped. Pairs of rank {}, f32, with gradients and "
      "AdamW's moments:\n\n| target | pairs | parameters | MiB | sums W + BA, MiB "
      "|\n|---|---|---|---|---|\n",
      plan.model_bytes / kMib, plan.rank);
  const auto row = [&](const std::string& name, const AdapterCost& cost) {
    out += fmt::format("| {} | {} | {:.0f} | {:.1f} | {} |\n", name, cost.pairs, cost.parameters,
                       cost.bytes / kMib,
                       cost.merged > 0 ? fmt::format("{:.0f}", cost.merged / kMib) : "-");
  };
  for (const AdapterCost& cost : plan.targets) row(cost.target, cost);
  row("**the recipe's**", plan.chosen);
  out +=
      "\nSums are made where an operation takes the matrix itself; of layers one at a time with "
      "`recompute`, else of all. Activations are those of training the same units.\n";
  return out;
}

nlohmann::ordered_json adapter_plan_json(const AdapterPlan& plan) {
  nlohmann::ordered_json targets = nlohmann::ordered_json::array();
  for (const AdapterCost& cost : plan.targets) targets.push_back(json_of(cost));
  return {{"rank", plan.rank},
          {"model_bytes", plan.model_bytes},
          {"targets", targets},
          {"chosen", json_of(plan.chosen)}};
}

}  // namespace lectern
