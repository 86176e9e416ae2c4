#include "nn/optim/optimizer.h"

#include "core/ops/adamw.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

namespace lectern {
namespace {

void check_range(std::string_view field, double value, bool ok, std::string_view rule) {
  if (!ok || !std::isfinite(value))
    fail<ConfigError>(fmt::format("AdamW: {} must be {}, got {}", field, rule, value));
}

std::vector<Tensor> gradients(const NamedParameters& parameters) {
  std::vector<Tensor> out;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) out.push_back(parameter.grad().contiguous());
  return out;
}

}  // namespace

AdamW::AdamW(const AdamWArgs& args) : args_(args) {
  check_range("learning_rate", args.learning_rate, args.learning_rate >= 0, ">= 0");
  check_range("beta1", args.beta1, args.beta1 >= 0 && args.beta1 < 1, "in [0, 1)");
  check_range("beta2", args.beta2, args.beta2 >= 0 && args.beta2 < 1, "in [0, 1)");
  check_range("epsilon", args.epsilon, args.epsilon > 0, "> 0");
  check_range("weight_decay", args.weight_decay, args.weight_decay >= 0, ">= 0");
}

void AdamW::add_group(const std::string& name, const NamedParameters& parameters,
                      std::optional<double> weight_decay) {
  const double decay = weight_decay.value_or(args_.weight_decay);
  check_range("weight_decay", decay, decay >= 0, ">= 0");
  std::set<const VariableState*> known;
  for (const Slot& slot : slots_) known.insert(slot.parameter.state());
  std::vector<Slot> fresh;
  std::map<std::string, std::size_t> index = index_;
  for (const auto& [parameter_name, parameter] : parameters) {
    const auto refuse = [&, &shown = parameter_name](std::string_view rule) {
      fail<ConfigError>(fmt::format("AdamW: group {}: parameter {} {}", name, shown, rule));
    };
    const Tensor& value = parameter.value();
    if (value.dtype() != DType::f32 && value.dtype() != DType::f64)
      refuse(fmt::format("must be f32 or f64, got {}", value.describe()));
    if (!value.is_contiguous()) refuse("must be contiguous");
    if (!known.insert(parameter.state()).second) refuse("must be given once, is here again");
    if (!index.emplace(parameter_name, slots_.size() + fresh.size()).second)
      refuse("must have a name of its own, another has it too");
    fresh.push_back({parameter_name, parameter, decay, {}, {}, 0});
  }
  index_ = std::move(index);
  slots_.insert(slots_.end(), fresh.begin(), fresh.end());
}

void AdamW::step(double learning_rate, double gradient_scale) {
  check_range("learning_rate", learning_rate, learning_rate >= 0, ">= 0");
  check_range("gradient_scale", gradient_scale, true, "finite");
  std::vector<AdamWParameter> updates;
  std::vector<Slot*> touched;
  for (Slot& slot : slots_) {
    const Tensor& grad = slot.parameter.grad();
    if (!grad.defined()) continue;
    const Tensor& value = slot.parameter.value();
    check_shape(grad, value.shape(), "AdamW", "gradient of " + slot.name);
    check_dtype(grad, value.dtype(), "AdamW", "gradient of " + slot.name);
    if (!slot.exp_avg.defined()) {
      slot.exp_avg = Tensor::zeros_like(value);
      slot.exp_avg_sq = Tensor::zeros_like(value);
    }
    updates.push_back({value, grad.contiguous(), slot.exp_avg, slot.exp_avg_sq, slot.weight_decay,
                       slot.steps + 1});
    touched.push_back(&slot);
  }
  adamw_update(updates, {.learning_rate = learning_rate,
                         .beta1 = args_.beta1,
                         .beta2 = args_.beta2,
                         .epsilon = args_.epsilon,
                         .gradient_scale = gradient_scale});
  for (Slot* slot : touched) ++slot->steps;
}

void AdamW::clear_gradients() {
  for (Slot& slot : slots_) slot.parameter.clear_grad();
}

std::vector<std::pair<std::string, Tensor>> AdamW::state() const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const Slot& slot : slots_) {
    if (slot.steps == 0) continue;
    out.emplace_back(slot.name + ".exp_avg", slot.exp_avg);
    out.emplace_back(slot.name + ".exp_avg_sq", slot.exp_avg_sq);
  }
  return out;
}

std::map<std::string, std::int64_t> AdamW::step_counts() const {
  std::map<std::string, std::int64_t> out;
  for (const Slot& slot : slots_)
    if (slot.steps > 0) out.emplace(slot.name, slot.steps);
  return out;
}

void AdamW::load_state(const std::vector<std::pair<std::string, Tensor>>& state,
                       const std::map<std::string, std::int64_t>& steps) {
  std::map<std::string, Tensor> tensors(state.begin(), state.end());
  std::vector<Slot> loaded = slots_;
  for (Slot& slot : loaded) {
    slot.exp_avg = slot.exp_avg_sq = Tensor();
    slot.steps = 0;
  }
  for (const auto& [name, count] : steps) {
    const auto found = index_.find(name);
    if (found == index_.end())
      fail<ConfigError>(fmt::format("AdamW: state must be of known parameters, got {}", name));
    if (count < 1)
      fail<ConfigError>(fmt::format("AdamW: step count of {} must be >= 1, got {}", name, count));
    Slot& slot = loaded[found->second];
    const auto take = [&](const std::string& key) {
      const auto tensor = tensors.find(key);
      if (tensor == tensors.end())
        fail<ConfigError>(fmt::format("AdamW: state must have a tensor {}, it is missing", key));
      check_shape(tensor->second, slot.parameter.shape(), "AdamW", key);
      check_dtype(tensor->second, slot.parameter.dtype(), "AdamW", key);
      Tensor copy = Tensor::empty_like(slot.parameter.value());
      copy.copy_from(tensor->second);
      tensors.erase(tensor);
      return copy;
    };
    slot.exp_avg = take(name + ".exp_avg");
    slot.exp_avg_sq = take(name + ".exp_avg_sq");
    slot.steps = count;
  }
  if (!tensors.empty())
    fail<ConfigError>(fmt::format("AdamW: state has a tensor {} that belongs to no step count",
                                  tensors.begin()->first));
  slots_ = std::move(loaded);
}

NamedParameters AdamW::parameters() const {
  NamedParameters out;
  for (const Slot& slot : slots_) out.emplace_back(slot.name, slot.parameter);
  return out;
}

std::int64_t AdamW::state_bytes() const {
  std::int64_t bytes = 0;
  for (const Slot& slot : slots_)
    if (slot.exp_avg.defined()) bytes += 2 * static_cast<std::int64_t>(slot.exp_avg.bytes());
  return bytes;
}

double gradient_norm(const NamedParameters& parameters) {
  return std::sqrt(sum_of_squares(gradients(parameters)));
}

double clip_scale(double norm, double max_norm) { return std::min(1.0, max_norm / (norm + 1e-6)); }

std::optional<std::string> first_non_finite(const NamedParameters& parameters) {
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined() && !all_finite(parameter.grad().contiguous())) return name;
  return {};
}

}  // namespace lectern
