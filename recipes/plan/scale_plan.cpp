#include "recipes/plan/scale_plan.h"

#include "nn/unit_work.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

constexpr double kFloat = 4, kHalf = 2;  // bytes
constexpr double kDay = 86400;           // seconds

/// Bytes of a (token, choice) pair on its way to another rank and back, as
/// autograd/ops/exchanged_experts.cpp sends them: a row, its weight and its expert's number; the
/// result; in backward its gradient; those of the row and of the weight.
struct PairBytes {
  explicit PairBytes(double width)
      : dispatch(kFloat * width + 8), combine(kFloat * width), backward(kFloat * (2 * width + 1)) {}
  double dispatch, combine, backward;
};

/// What a stage holds, in elements, on one rank.
struct StageSize {
  double weights = 0;
  double shared_trained = 0;  // with all data-parallel ranks
  double expert_trained = 0;  // with those that hold the same experts
  double largest = 0;         // parameter that trains
  double trained() const { return shared_trained + expert_trained; }
};

/// A prediction in the making.
class Planner {
 public:
  Planner(const ScaleInput& input, const Recipe& recipe, const MeshRecipe& mesh,
          std::int64_t micro_batch)
      : input_(input), hardware_(input.hardware), recipe_(recipe), mesh_(mesh) {
    Recipe checked = recipe;
    checked.mesh = mesh;
    checked.batch.micro_batch = micro_batch;
    check_mesh(checked, input.cluster.ranks());
    plan_.mesh = mesh_shape(input.cluster.ranks(), mesh.pp, mesh.ep);
    if (mesh.ep > 1 && (input.experts == 0 || input.experts % mesh.ep != 0))
      fail<ConfigError>(fmt::format("mesh.ep must divide the {} routed experts of a layer, got {}",
                                    input.experts, mesh.ep));
    plan_.zero = mesh.zero;
    plan_.micro_batch = micro_batch;
    const std::int64_t rows = recipe.batch.global_size / plan_.mesh.dp;
    micro_batches_ = recipe.data.pack_tokens > 0 ? rows : rows / micro_batch;
    costs_ = &input.costs.at(micro_batch);
  }

  ScalePlan plan() {
    place();
    measure_stages();
    count_gradients();
    count_memory();
    plan_.seconds =
        plan_.pipeline.seconds + plan_.gradients_exposed + plan_.update + plan_.parameters;
    share_cores();
    const double pages = to_double(recipe_.batch.global_size) * input_.pages;
    plan_.pages_a_day = pages / plan_.seconds * kDay;
    plan_.tokens_a_day = plan_.pages_a_day * input_.page_tokens;
    if (hardware_.product_rate > 0) {
      double operations = 0;
      for (std::size_t u = 0; u < costs_->work.size(); ++u)
        if (!is_cached(u)) operations += costs_->work[u].forward + costs_->work[u].backward;
      operations *= to_double(micro_batches_ * plan_.mesh.dp);
      plan_.utilisation =
          operations / (plan_.seconds * to_double(input_.cluster.ranks()) * hardware_.product_rate);
    }
    return plan_;
  }

 private:
  /// Units of a frozen encoder whose rows are read from the cache.
  bool is_cached(std::size_t u) const {
    return input_.encoder_cached && plan_.mesh.pp == 1 && !costs_->work[u].has_backward &&
           costs_->work[u].width == 0 && u + 1 < costs_->work.size();
  }

  /// Cuts the units into stages and runs the schedule.
  void place() {
    const LinkLoad of_experts = expert_load(input_.cluster, plan_.mesh);
    const LinkLoad of_pipeline = pipeline_load(input_.cluster, plan_.mesh);
    std::vector<UnitCost> units = costs_->seconds;
    MeshDetails details;
    details.chunks = mesh_.chunks;
    details.ends = mesh_.split;
    std::vector<double> exchanges(units.size(), 0);
    for (std::size_t u = 0; u < units.size(); ++u) {
      const UnitWork& work = costs_->work[u];
      details.transfer.push_back((of_pipeline * work.output_bytes).seconds(hardware_));
      if (is_cached(u)) units[u].forward = 0;
      if (plan_.mesh.ep == 1 || work.routed_rows == 0) continue;
      const PairBytes pair(work.width);
      const auto seconds = [&](double bytes) {
        return (of_experts * (work.routed_rows * bytes)).seconds(hardware_);
      };
      const double hidden = hardware_.overlaps ? hardware_.seconds_of_products(work.shared) : 0;
      const double forward = std::max(0.0, seconds(pair.dispatch) - hidden) + seconds(pair.combine);
      double bytes = pair.dispatch + pair.combine, backward = 0;
      if (units[u].trained) {
        backward = seconds(pair.backward) + (recipe_.recompute ? forward : 0);
        bytes += pair.backward + (recipe_.recompute ? bytes : 0);
      }
      units[u].forward += forward;
      units[u].backward += backward;
      exchanges[u] = (forward + backward) * to_double(micro_batches_);
      expert_bytes_.push_back({u, work.routed_rows * bytes * to_double(micro_batches_)});
    }
    plan_.pipeline = plan_mesh(units, plan_.mesh.pp, plan_.mesh.dp, micro_batches_, details);
    plan_.pipeline.micro_batch = plan_.micro_batch;
    for (const UnitCost& unit : units)
      if (unit.trained) last_backward_ += unit.backward;
    count_expert_bytes(of_experts, exchanges);
    count_activations(of_pipeline);
  }

  /// f(stage, unit) for every unit.
  template <typename F>
  void each_unit(F&& f) const {
    std::int64_t begin = 0;
    const auto& ends = plan_.pipeline.ends;
    for (std::size_t piece = 0; piece < ends.size(); begin = ends[piece], ++piece)
      for (std::int64_t u = begin; u < ends[piece]; ++u)
        f(piece % static_cast<std::size_t>(plan_.mesh.pp), static_cast<std::size_t>(u));
  }

  void count_expert_bytes(const LinkLoad& of_experts, const std::vector<double>& exchanges) {
    std::vector<double> bytes(static_cast<std::size_t>(plan_.mesh.pp), 0), seconds = bytes;
    double all = 0;
    each_unit([&](std::size_t stage, std::size_t u) {
      seconds[stage] += exchanges[u];
      for (const auto& [unit, sent] : expert_bytes_)
        if (unit == u) {
          bytes[stage] += sent;
          all += sent;
        }
    });
    const double most = *std::max_element(bytes.begin(), bytes.end());
    plan_.expert_load = of_experts * most;
    plan_.expert_load.total = of_experts.total * all / to_double(plan_.mesh.pp);
    plan_.experts = *std::max_element(seconds.begin(), seconds.end());
  }

  void count_activations(const LinkLoad& of_pipeline) {
    const auto& ends = plan_.pipeline.ends;
    double most = 0, all = 0;
    for (std::size_t piece = 0; piece + 1 < ends.size(); ++piece) {
      const UnitWork& last = costs_->work[static_cast<std::size_t>(ends[piece] - 1)];
      const double bytes = last.output_bytes * to_double(micro_batches_);
      most = std::max(most, bytes);
      all += bytes * (last.has_backward ? 2 : 1);
    }
    plan_.activation_load = of_pipeline * most;
    plan_.activation_load.total = all * to_double(plan_.mesh.dp);
  }

  void measure_stages() {
    stages_.resize(static_cast<std::size_t>(plan_.mesh.pp));
    const double ep = to_double(plan_.mesh.ep);
    each_unit([&](std::size_t stage, std::size_t u) {
      const UnitWork& work = costs_->work[u];
      StageSize& size = stages_[stage];
      const double experts = to_double(work.expert_parameters),
                   trained = to_double(work.trained_experts);
      size.weights += to_double(work.parameters) - experts + experts / ep;
      size.shared_trained += to_double(work.trained_parameters) - (ep > 1 ? trained : 0);
      size.expert_trained += ep > 1 ? trained / ep : 0;
      size.largest =
          std::max(size.largest, to_double(work.largest_parameter) / (trained > 0 ? ep : 1));
    });
  }

  double owned(const StageSize& size) const {
    if (!plan_.zero) return size.trained();
    return size.shared_trained / to_double(plan_.mesh.dp) +
           size.expert_trained * to_double(plan_.mesh.ep) / to_double(plan_.mesh.dp);
  }

  void count_gradients() {
    LinkCount count(input_.cluster);
    for (std::int64_t stage = 0; stage < plan_.mesh.pp; ++stage) {
      const StageSize& size = stages_[static_cast<std::size_t>(stage)];
      for (const auto& group : data_groups(plan_.mesh, stage))
        count.collective(group, kFloat * size.shared_trained, hardware_.direct);
      if (plan_.mesh.ep > 1)
        for (const auto& group : replica_groups(plan_.mesh, stage))
          count.collective(group, kFloat * size.expert_trained, hardware_.direct);
    }
    const LinkLoad once = count.load();
    plan_.gradient_load = once * (plan_.zero ? 1 : 2);
    plan_.gradients = plan_.gradient_load.seconds(hardware_);
    if (plan_.zero) plan_.parameter_load = once;
    plan_.parameters = plan_.parameter_load.seconds(hardware_);
    plan_.gradients_exposed = plan_.gradients;
    double most = 0, whole = 0, update = 0;
    for (const StageSize& size : stages_) {
      most = std::max(most, owned(size));
      whole += size.trained() + size.expert_trained * to_double(plan_.mesh.ep - 1);
      // norm and AdamW: w, g, m, v read, w, m, v written; gradients into and values out of buckets
      update = std::max(update, 32 * owned(size) + (plan_.mesh.dp > 1 ? 16 : 0) * size.trained());
    }
    plan_.update = input_.update_seconds > 0 ? input_.update_seconds * most / std::max(1.0, whole)
                                             : hardware_.seconds_of_memory(update);
    // Buckets leave during the last backward pass, but for the last of them; a pipeline sends them
    // when all its passes are over.
    if (!hardware_.overlaps || plan_.mesh.pp > 1 || plan_.gradients == 0) return;
    const double bytes = kFloat * stages_[0].trained();
    const double last = plan_.gradients * std::min(1.0, to_double(mesh_.bucket_bytes) / bytes);
    plan_.gradients_exposed = std::max(last, plan_.gradients - last_backward_);
  }

  void count_memory() {
    const std::size_t stages = stages_.size();
    std::vector<double> kept(stages, 0), block(stages, 0);
    each_unit([&](std::size_t stage, std::size_t u) {
      const UnitWork& work = costs_->work[u];
      if (is_cached(u)) return;
      block[stage] = std::max(block[stage], work.block_bytes);
      if (work.has_backward) kept[stage] += recipe_.recompute ? work.input_bytes : work.kept_bytes;
    });
    const bool exchanges = plan_.mesh.dp > 1;
    for (std::size_t stage = 0; stage < stages; ++stage) {
      const StageSize& size = stages_[stage];
      PredictedMemory memory;
      memory.weights = kFloat * size.weights;
      if (recipe_.dtype == "bf16") memory.copies = kHalf * size.weights;
      memory.gradients = kFloat * size.trained();
      if (exchanges) memory.buckets = kFloat * (size.trained() + (plan_.zero ? owned(size) : 0));
      memory.moments = 2 * kFloat * owned(size);
      const double in_flight = to_double(plan_.pipeline.in_flight[stage]) / to_double(mesh_.chunks);
      memory.activations = in_flight * kept[stage];
      memory.workspace = block[stage] + kFloat * size.largest;
      if (memory.total() > plan_.memory.total()) plan_.memory = memory;
    }
    plan_.fits = hardware_.memory_bytes == 0 ||
                 plan_.memory.total() <= hardware_.memory_bytes - hardware_.reserve_bytes;
  }

  /// Ranks that share cores take turns, and making samples takes from them too.
  void share_cores() {
    if (input_.cores == 0) return;
    const double samples =
        to_double(recipe_.batch.global_size) / to_double(plan_.mesh.dp) * input_.pages;
    const double busy = plan_.pipeline.seconds * (1 - plan_.pipeline.bubble) + plan_.gradients +
                        plan_.update + plan_.parameters;
    const double of_rank = input_.threads * busy + input_.load_seconds * samples;
    plan_.seconds =
        std::max(plan_.seconds, to_double(input_.cluster.per_node) * of_rank / input_.cores);
  }

  const ScaleInput& input_;
  const Hardware& hardware_;
  const Recipe& recipe_;
  const MeshRecipe& mesh_;
  const MicroBatchCosts* costs_ = nullptr;
  ScalePlan plan_;
  std::int64_t micro_batches_ = 1;
  std::vector<std::pair<std::size_t, double>> expert_bytes_;  // unit, sent by a rank in a step
  std::vector<StageSize> stages_;
  double last_backward_ = 0;  // seconds
};

}  // namespace

ScalePlan plan_scale(const ScaleInput& input, const Recipe& recipe, const MeshRecipe& mesh,
                     std::int64_t micro_batch) {
  return Planner(input, recipe, mesh, micro_batch).plan();
}

std::vector<ScalePlan> plan_scales(const ScaleInput& input, const Recipe& recipe) {
  const std::int64_t ranks = input.cluster.ranks();
  const auto units = static_cast<std::int64_t>(input.costs.begin()->second.seconds.size());
  std::vector<ScalePlan> out;
  std::string reason;
  for (std::int64_t pp = 1; pp <= std::min(ranks, units); ++pp) {
    for (std::int64_t ep = 1; ep <= std::max<std::int64_t>(1, input.experts); ++ep) {
      const bool fits =
          ranks % pp == 0 && ranks / pp % ep == 0 && (ep == 1 || input.experts % ep == 0);
      if (!fits) continue;
      MeshRecipe mesh = recipe.mesh;
      mesh.pp = pp;
      mesh.ep = ep;
      mesh.chunks = 1;
      mesh.split.clear();
      std::optional<ScalePlan> best;
      for (const auto& [micro_batch, costs] : input.costs) {
        try {
          ScalePlan plan = plan_scale(input, recipe, mesh, micro_batch);
          if (!best || plan.seconds < best->seconds) best = std::move(plan);
        } catch (const ConfigError& error) {
          reason = error.what();
        }
      }
      if (best) out.push_back(std::move(*best));
    }
  }
  if (out.empty()) fail<ConfigError>(fmt::format("plan: {} ranks fit no mesh: {}", ranks, reason));
  std::stable_sort(out.begin(), out.end(), [](const ScalePlan& a, const ScalePlan& b) {
    return a.fits != b.fits ? a.fits : a.seconds < b.seconds;
  });
  return out;
}

}  // namespace lectern
