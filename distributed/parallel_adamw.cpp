#include "distributed/parallel_adamw.h"

#include "core/ops/adamw.h"
#include "distributed/world.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace lectern {

std::string piece_name(const std::string& parameter, std::int64_t begin, std::int64_t end) {
  return fmt::format("{}[{}:{}]", parameter, begin, end);
}

/// Parameters with one set of ranks. Alone, a rank needs no buckets.
struct ParallelAdamW::Group {
  std::shared_ptr<Communicator> replicas;
  NamedParameters parameters;
  std::vector<double> decays;
  std::vector<std::pair<std::int64_t, std::int64_t>> parts;  // which, of how many
  std::unique_ptr<GradientBuckets> buckets;
  /// What the optimizer updates: pieces (ZeRO) or the parameters themselves.
  struct Slot {
    std::string name;
    Variable variable;
    std::size_t parameter = 0;
    std::int64_t begin = 0, end = 0;
  };
  std::vector<Slot> slots;

  const std::string& name_of(const Slot& slot) const { return parameters[slot.parameter].first; }
  /// Elements of the parameter, as checkpoints know it, before those of this rank.
  std::int64_t first_of(const Slot& slot) const {
    return parts[slot.parameter].first * parameters[slot.parameter].second.value().numel();
  }
};

class ParallelAdamW::Observer final : public BackwardObserver {
 public:
  explicit Observer(std::vector<GradientBuckets*> buckets) : buckets_(std::move(buckets)) {}
  void gradient_complete(VariableState* leaf) override {
    for (GradientBuckets* each : buckets_) each->gradient_complete(leaf);
  }
  void operation_done() override { buckets_.front()->operation_done(); }

 private:
  std::vector<GradientBuckets*> buckets_;
};

ParallelAdamW::ParallelAdamW(const AdamWArgs& args, std::shared_ptr<Communicator> world,
                             const ParallelAdamWOptions& options)
    : optimizer_(args), world_(std::move(world)), options_(options) {}

ParallelAdamW::~ParallelAdamW() = default;

void ParallelAdamW::add_group(const std::string& name, const NamedParameters& parameters,
                              double weight_decay, const std::shared_ptr<Communicator>& replicas,
                              std::int64_t part, std::int64_t parts) {
  if (prepared_)
    fail<ConfigError>(fmt::format("AdamW: group {} must be added before training begins", name));
  // One set of buckets for each set of ranks: groups of decay may share theirs.
  auto group = std::find_if(groups_.begin(), groups_.end(),
                            [&](const auto& each) { return each->replicas == replicas; });
  if (group == groups_.end()) {
    groups_.push_back(std::make_unique<Group>());
    groups_.back()->replicas = replicas;
    group = groups_.end() - 1;
  }
  for (const auto& parameter : parameters) {
    (*group)->parameters.push_back(parameter);
    (*group)->decays.push_back(weight_decay);
    (*group)->parts.emplace_back(part, parts);
  }
}

void ParallelAdamW::prepare() {
  if (prepared_) return;
  prepared_ = true;
  std::vector<GradientBuckets*> buckets;
  for (const auto& group : groups_) {
    const bool alone = group->replicas->size() == 1;
    if (!alone) {
      group->buckets = std::make_unique<GradientBuckets>(
          group->parameters, group->replicas, options_.bucket_bytes,
          options_.zero ? GradientBuckets::Result::own_part : GradientBuckets::Result::whole);
      buckets.push_back(group->buckets.get());
    }
    if (alone || !options_.zero) {
      for (std::size_t i = 0; i < group->parameters.size(); ++i) {
        const auto& [name, variable] = group->parameters[i];
        group->slots.push_back({name, variable, i, 0, variable.value().numel()});
      }
    } else {
      for (const ParameterPiece& piece : group->buckets->own()) {
        const auto& [name, variable] = group->parameters[piece.parameter];
        const Tensor value = variable.value().view({-1}).slice(0, piece.begin, piece.end);
        group->slots.push_back({piece_name(name, piece.begin, piece.end), Variable(value, true),
                                piece.parameter, piece.begin, piece.end});
      }
    }
    std::vector<std::pair<double, NamedParameters>> by_decay;
    for (const Group::Slot& slot : group->slots) {
      const double decay = group->decays[slot.parameter];
      auto at = std::find_if(by_decay.begin(), by_decay.end(),
                             [&](const auto& each) { return each.first == decay; });
      if (at == by_decay.end()) at = by_decay.insert(at, {decay, {}});
      at->second.emplace_back(slot.name, slot.variable);
    }
    for (const auto& [decay, parameters] : by_decay)
      optimizer_.add_group(fmt::format("weight_decay {}", decay), parameters, decay);
  }
  if (!buckets.empty()) observer_ = std::make_unique<Observer>(std::move(buckets));
}

BackwardObserver* ParallelAdamW::observer() {
  prepare();
  return observer_.get();
}

void ParallelAdamW::clear_gradients() {
  prepare();
  optimizer_.clear_gradients();
  for (const auto& group : groups_)
    for (auto& [name, variable] : group->parameters) variable.clear_grad();
}

void ParallelAdamW::reduce_gradients() {
  prepare();
  for (const auto& group : groups_) {
    if (!group->buckets) continue;
    group->buckets->reduce();
    if (!options_.zero) continue;
    const auto& own = group->buckets->own();
    for (std::size_t i = 0; i < own.size(); ++i)
      if (group->buckets->has_gradient(own[i].parameter))
        group->slots[i].variable.set_grad(own[i].gradient);
  }
}

void ParallelAdamW::each_owned_gradient(
    const std::function<void(const std::string&, const Tensor&)>& f) const {
  for (const auto& group : groups_) {
    if (group->buckets) {
      for (const ParameterPiece& piece : group->buckets->own())
        if (group->buckets->has_gradient(piece.parameter))
          f(group->parameters[piece.parameter].first, piece.gradient);
    } else {
      for (const auto& [name, variable] : group->parameters)
        if (variable.grad().defined()) f(name, variable.grad().contiguous());
    }
  }
}

double ParallelAdamW::gradient_norm() {
  std::vector<Tensor> owned;
  each_owned_gradient([&](const std::string&, const Tensor& grad) { owned.push_back(grad); });
  return std::sqrt(reduced(*world_, sum_of_squares(owned)));
}

std::map<std::string, double> ParallelAdamW::gradient_squares() {
  std::map<std::string, double> here, out;
  each_owned_gradient([&](const std::string& name, const Tensor& grad) {
    here[name] += sum_of_squares(std::vector<Tensor>{grad});
  });
  if (world_->size() == 1) return here;
  for (const std::string& text : all_gather_text(*world_, nlohmann::json(here).dump())) {
    const nlohmann::json there = nlohmann::json::parse(text);
    for (const auto& [name, value] : there.items())
      out[name] += value.is_number() ? value.get<double>() : std::nan("");  // JSON has no NaN
  }
  return out;
}

std::optional<std::string> ParallelAdamW::first_non_finite_here() const {
  for (const auto& group : groups_) {
    if (group->buckets && options_.zero) {
      if (const auto name = group->buckets->first_non_finite_here()) return name;
    } else if (const auto name = lectern::first_non_finite(group->parameters)) {
      return name;
    }
  }
  return {};
}

void ParallelAdamW::step(double learning_rate, double gradient_scale) {
  optimizer_.step(learning_rate, gradient_scale);
  if (!options_.zero) return;
  for (const auto& group : groups_)
    if (group->buckets) group->buckets->gather_values();
}

std::vector<MomentPiece> ParallelAdamW::state() const {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, tensor] : optimizer_.state()) tensors[name] = tensor;
  const auto counts = optimizer_.step_counts();
  std::vector<MomentPiece> out;
  const auto add = [&](const Group& group, const Group::Slot& slot, std::int64_t begin,
                       std::int64_t end) {
    const auto count = counts.find(slot.name);
    if (count == counts.end()) return;
    const Shape& whole = group.parameters[slot.parameter].second.shape();
    const bool is_whole = end - begin == whole.numel() && group.parts[slot.parameter].second == 1;
    const std::int64_t first = group.first_of(slot);
    MomentPiece piece{group.name_of(slot),
                      first + begin,
                      first + end,
                      is_whole,
                      tensors.at(slot.name + ".exp_avg"),
                      tensors.at(slot.name + ".exp_avg_sq"),
                      count->second};
    for (Tensor* moment : {&piece.exp_avg, &piece.exp_avg_sq})
      *moment = is_whole ? moment->view(whole)
                         : moment->view({-1}).slice(0, begin - slot.begin, end - slot.begin);
    out.push_back(std::move(piece));
  };
  for (const auto& group : groups_) {
    if (group->buckets && !options_.zero) {
      // All replicas have everything: each saves its own part.
      for (const ParameterPiece& piece : group->buckets->own())
        add(*group, group->slots[piece.parameter], piece.begin, piece.end);
    } else {
      for (const Group::Slot& slot : group->slots) add(*group, slot, slot.begin, slot.end);
    }
  }
  return out;
}

void ParallelAdamW::load_state(const Moments& moment,
                               const std::map<std::string, std::int64_t>& steps) {
  prepare();
  std::string names;  // a line each
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::map<std::string, std::int64_t> slot_steps;
  for (const auto& group : groups_) {
    for (const auto& [name, variable] : group->parameters) names += name + "\n";
    for (const Group::Slot& slot : group->slots) {
      const std::string& parameter = group->name_of(slot);
      const auto count = steps.find(parameter);
      if (count == steps.end()) continue;
      slot_steps[slot.name] = count->second;
      for (const char* kind : {".exp_avg", ".exp_avg_sq"})
        tensors.emplace_back(slot.name + kind,
                             moment(parameter + kind, group->first_of(slot) + slot.begin,
                                    group->first_of(slot) + slot.end)
                                 .view(slot.variable.shape()));
    }
  }
  std::set<std::string> known;  // on any rank
  for (const std::string& text : all_gather_text(*world_, names))
    for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
      known.insert(text.substr(at, text.find('\n', at) - at));
  for (const auto& [name, count] : steps)
    if (!known.contains(name))
      fail<ConfigError>(fmt::format("AdamW: state must be of known parameters, got {}", name));
  optimizer_.load_state(tensors, slot_steps);
}

}  // namespace lectern
