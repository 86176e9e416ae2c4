#include "recipes/train/diagnostics.h"

#include "distributed/world.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdlib>

namespace lectern {
namespace {

struct Stack {
  const char* name;
  const char* prefix;  ///< of its layers' parameters, followed by the number
};
constexpr std::array<Stack, 2> kStacks = {
    {{"encoder", "model.qwen2_model.model.model.layers."}, {"decoder", "model.layers."}}};

}  // namespace

void add_stream_fields(const std::map<std::string, StreamStatistics>& stacks,
                       MetricFields& fields) {
  for (const auto& [name, stack] : stacks) {
    if (stack.tokens == 0) continue;
    const std::string prefix = name == "decoder" ? "" : name + "_";
    fields[prefix + "gain_forward"] = stack.gain_forward;
    fields[prefix + "gain_backward"] = stack.gain_backward;
    fields[prefix + "gain_forward_min"] = stack.gain_forward_min;
    fields[prefix + "gain_backward_min"] = stack.gain_backward_min;
    fields[prefix + "stream_deviation"] = stack.deviation;
    fields[prefix + "stream_entropy"] = stack.entropy;
  }
}

std::vector<std::pair<std::string, double>> layer_gradient_norms(
    const std::map<std::string, double>& squares) {
  std::vector<std::pair<std::string, double>> out;
  for (const Stack& stack : kStacks) {
    std::map<long, double> layers;
    const std::string prefix = stack.prefix;
    for (const auto& [name, square] : squares)
      if (name.starts_with(prefix))
        layers[std::strtol(name.c_str() + prefix.size(), nullptr, 10)] += square;
    for (const auto& [layer, square] : layers)
      out.emplace_back(fmt::format("{}_{:02}", stack.name, layer), std::sqrt(square));
  }
  return out;
}

std::vector<std::pair<std::string, double>> layer_gradient_norms(const NamedParameters& trainable) {
  std::map<std::string, double> squares;
  for (const auto& [name, variable] : trainable) {
    const double norm = gradient_norm({{name, variable}});
    squares[name] = norm * norm;
  }
  return layer_gradient_norms(squares);
}

void fail_not_finite(Communicator& world, const ParallelAdamW& optimizer, const BadStep& bad) {
  const auto parameter = optimizer.first_non_finite_here();
  std::string what = parameter ? fmt::format("the gradient of {} is not finite", *parameter)
                     : std::isfinite(bad.loss_here) ? ""
                                                    : "the loss is not finite";
  if (world.size() > 1) {
    if (!what.empty()) what += " on " + rank_label(world);
    for (const std::string& finding : all_gather_text(world, what))
      if (what.empty()) what = finding;
  }
  if (what.empty())
    what = std::isfinite(bad.loss) ? "the sum of the ranks' gradients is not finite"
                                   : "the loss is not finite";
  fail<NumericError>(
      fmt::format("train: step {}: {} (loss {}, gradient norm {}); no parameter was updated",
                  bad.step, what, bad.loss, bad.gradient_norm));
}

}  // namespace lectern
