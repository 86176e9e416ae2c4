#include "recipes/train/step_totals.h"

#include "distributed/world.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

namespace lectern {
namespace {

using Json = nlohmann::json;

Json to_json(const StreamStatistics& s) {
  return {s.tokens,    s.gain_forward, s.gain_backward, s.gain_forward_min, s.gain_backward_min,
          s.deviation, s.entropy};
}

/// JSON has no NaN and no infinity: it stores null.
double number(const Json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

StreamStatistics from_json(const std::string& stack, const Json& v) {
  StreamStatistics out;
  out.stack = stack;
  out.tokens = v[0].get<std::int64_t>();
  out.gain_forward = number(v[1]);
  out.gain_backward = number(v[2]);
  out.gain_forward_min = number(v[3]);
  out.gain_backward_min = number(v[4]);
  out.deviation = number(v[5]);
  out.entropy = number(v[6]);
  return out;
}

/// In the order of ranks, so that the means have the same bits on each.
void combine_streams(Communicator& ranks, std::map<std::string, StreamStatistics>& streams) {
  Json here = Json::object();
  for (const auto& [stack, statistics] : streams) here[stack] = to_json(statistics);
  streams.clear();
  for (const std::string& text : all_gather_text(ranks, here.dump())) {
    const Json other = Json::parse(text);
    for (const auto& [stack, values] : other.items())
      streams[stack] = combined(streams[stack], from_json(stack, values));
  }
}

void add_sums(Communicator& ranks, StepTotals& totals) {
  const std::vector<double> sums = reduced(
      ranks, {totals.loss_sum, totals.balance_sum, static_cast<double>(totals.micro_batches),
              static_cast<double>(totals.trained_tokens), static_cast<double>(totals.tokens),
              static_cast<double>(totals.samples)});
  totals.loss_sum = sums[0];
  totals.balance_sum = sums[1];
  totals.micro_batches = std::llround(sums[2]);
  totals.trained_tokens = std::llround(sums[3]);
  totals.tokens = std::llround(sums[4]);
  totals.samples = std::llround(sums[5]);
}

}  // namespace

void StepTotals::add_expert_counts(const std::map<std::int64_t, Tensor>& counts) {
  for (const auto& [layer, count] : counts) {
    const Tensor here = count.to(Device{});
    auto [at, is_new] = expert_counts.try_emplace(layer, Tensor());
    if (is_new) {
      at->second = here.clone();
      continue;
    }
    for (std::int64_t i = 0; i < count.numel(); ++i)
      at->second.data<std::int32_t>()[i] += here.data<std::int32_t>()[i];
  }
}

double StepTotals::worst_expert_load() const {
  double worst = other_expert_load;
  for (const auto& [layer, count] : expert_counts) {
    const std::int32_t* n = count.data<std::int32_t>();
    double sum = 0, most = 0;
    for (std::int64_t i = 0; i < count.numel(); ++i) {
      sum += n[i];
      most = std::max(most, static_cast<double>(n[i]));
    }
    if (sum > 0) worst = std::max(worst, most * static_cast<double>(count.numel()) / sum);
  }
  return worst;
}

void add_over_ranks(Communicator& ranks, StepTotals& totals) {
  if (ranks.size() == 1) return;
  add_sums(ranks, totals);
  std::vector<Handle> handles;
  for (auto& [layer, counts] : totals.expert_counts)
    handles.push_back(ranks.start_all_reduce(counts));
  for (Handle& handle : handles) handle.wait();
  const bool any = reduced(ranks, totals.streams.empty() ? 0.0 : 1.0, Reduction::max) > 0;
  if (any) combine_streams(ranks, totals.streams);
}

void add_over_stages(Communicator& stages, StepTotals& totals) {
  if (stages.size() == 1) return;
  add_sums(stages, totals);
  const std::vector<double> most = reduced(
      stages, {totals.worst_expert_load(), totals.work_spread, totals.streams.empty() ? 0.0 : 1.0},
      Reduction::max);
  totals.other_expert_load = most[0];
  totals.work_spread = most[1];
  if (most[2] > 0) combine_streams(stages, totals.streams);
}

}  // namespace lectern
