#include "distributed/pipeline_schedule.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>

namespace lectern {
namespace {

void check(const PipelineShape& shape) {
  if (shape.stages < 1 || shape.micro_batches < 1 || shape.chunks < 1)
    fail<ConfigError>(fmt::format(
        "pipeline: stages, micro-batches and chunks must be at least 1, got {}, {} and {}",
        shape.stages, shape.micro_batches, shape.chunks));
  if (shape.first_trained < 0 || shape.first_trained > shape.virtual_stages())
    fail<ConfigError>(
        fmt::format("pipeline: the first trained stage must be 0 to {} (none), got {}",
                    shape.virtual_stages(), shape.first_trained));
  if (shape.chunks > 1 && shape.micro_batches % shape.stages != 0)
    fail<ConfigError>(fmt::format(
        "pipeline: with {} chunks a rank the micro-batches of a step must be a multiple of the {} "
        "stages, got {}",
        shape.chunks, shape.stages, shape.micro_batches));
}

/// The k-th forward (or backward) of a rank. Micro-batches come in groups of S: a group passes
/// through all chunks, first to last (or last to first), before the next group begins.
PipelineTask task_at(const PipelineShape& shape, PipelineAction action, std::int64_t k) {
  if (shape.chunks == 1) return {action, k, 0};
  const std::int64_t group = k / (shape.stages * shape.chunks);
  const std::int64_t within = k % (shape.stages * shape.chunks);
  std::int64_t chunk = within / shape.stages;
  if (action == PipelineAction::backward) chunk = shape.chunks - 1 - chunk;
  return {action, group * shape.stages + within % shape.stages, chunk};
}

/// Forwards that a rank runs before its first backward.
std::int64_t warm_up(const PipelineShape& shape, std::int64_t stage) {
  const std::int64_t total = shape.micro_batches * shape.chunks;
  const std::int64_t behind = shape.stages - 1 - stage;
  if (shape.chunks == 1) return std::min(total, behind);
  return std::min(total, 2 * behind + (shape.chunks - 1) * shape.stages);
}

/// Ends of all tasks, by virtual stage and micro-batch; empty until they ran.
class Clock {
 public:
  explicit Clock(const PipelineShape& shape, const PipelineCosts& costs)
      : shape_(shape), costs_(costs) {
    const auto cells = static_cast<std::size_t>(shape.virtual_stages() * shape.micro_batches);
    forward_.resize(cells);
    backward_.resize(cells);
  }

  /// When what the task needs is there, or nothing while that has not run.
  std::optional<double> ready(const PipelineTask& task, std::int64_t stage) const {
    const std::int64_t at = virtual_stage(task, stage);
    const std::int64_t last = shape_.virtual_stages() - 1;
    if (task.action == PipelineAction::forward)
      return at == 0 ? std::optional<double>(0) : sent(forward_[cell(at - 1, task.micro_batch)]);
    if (at == last) return forward_[cell(at, task.micro_batch)];
    return sent(backward_[cell(at + 1, task.micro_batch)]);
  }

  double seconds(const PipelineTask& task, std::int64_t stage) const {
    const auto at = static_cast<std::size_t>(virtual_stage(task, stage));
    return task.action == PipelineAction::forward ? costs_.forward[at] : costs_.backward[at];
  }

  void finish(const PipelineTask& task, std::int64_t stage, double end) {
    auto& ends = task.action == PipelineAction::forward ? forward_ : backward_;
    ends[cell(virtual_stage(task, stage), task.micro_batch)] = end;
  }

  bool is_trained(const PipelineTask& task, std::int64_t stage) const {
    return virtual_stage(task, stage) >= shape_.first_trained;
  }

 private:
  std::int64_t virtual_stage(const PipelineTask& task, std::int64_t stage) const {
    return task.chunk * shape_.stages + stage;
  }
  std::size_t cell(std::int64_t at, std::int64_t micro_batch) const {
    return static_cast<std::size_t>(at * shape_.micro_batches + micro_batch);
  }
  std::optional<double> sent(const std::optional<double>& end) const {
    if (!end || shape_.stages == 1) return end;
    return *end + costs_.transfer;
  }

  const PipelineShape& shape_;
  const PipelineCosts& costs_;
  std::vector<std::optional<double>> forward_, backward_;
};

void check(const PipelineShape& shape, const PipelineCosts& costs) {
  const auto wanted = static_cast<std::size_t>(shape.virtual_stages());
  for (const auto* side : {&costs.forward, &costs.backward})
    if (side->size() != wanted)
      fail<ConfigError>(
          fmt::format("pipeline: there must be a cost for each of {} virtual stages, got {}",
                      wanted, side->size()));
}

}  // namespace

std::vector<PipelineTask> pipeline_schedule(const PipelineShape& shape, std::int64_t stage) {
  check(shape);
  if (stage < 0 || stage >= shape.stages)
    fail<ConfigError>(
        fmt::format("pipeline: stage must be 0 to {}, got {}", shape.stages - 1, stage));
  const std::int64_t total = shape.micro_batches * shape.chunks;
  const std::int64_t first = warm_up(shape, stage);
  std::vector<PipelineTask> tasks;
  const auto add = [&](PipelineAction action, std::int64_t k) {
    const PipelineTask task = task_at(shape, action, k);
    const bool frozen = task.chunk * shape.stages + stage < shape.first_trained;
    if (action == PipelineAction::forward || !frozen) tasks.push_back(task);
  };
  for (std::int64_t k = 0; k < first; ++k) add(PipelineAction::forward, k);
  for (std::int64_t k = 0; k < total; ++k) {
    if (first + k < total) add(PipelineAction::forward, first + k);
    add(PipelineAction::backward, k);
  }
  return tasks;
}

PipelineTimeline simulate_pipeline(const PipelineShape& shape, const PipelineCosts& costs) {
  check(shape);
  check(shape, costs);
  Clock clock(shape, costs);
  const auto ranks = static_cast<std::size_t>(shape.stages);
  std::vector<std::vector<PipelineTask>> tasks;
  for (std::int64_t stage = 0; stage < shape.stages; ++stage)
    tasks.push_back(pipeline_schedule(shape, stage));
  std::vector<std::vector<PipelineSpan>> spans(ranks);
  PipelineTimeline out;
  out.in_flight.assign(ranks, 0);
  std::vector<std::int64_t> kept(ranks, 0);
  double busy = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      const auto stage = static_cast<std::int64_t>(rank);
      while (spans[rank].size() < tasks[rank].size()) {
        const PipelineTask task = tasks[rank][spans[rank].size()];
        const std::optional<double> ready = clock.ready(task, stage);
        if (!ready) break;
        const double free = spans[rank].empty() ? 0 : spans[rank].back().end;
        const double begin = std::max(free, *ready), end = begin + clock.seconds(task, stage);
        spans[rank].push_back({stage, task, begin, end});
        clock.finish(task, stage, end);
        busy += end - begin;
        out.seconds = std::max(out.seconds, end);
        if (clock.is_trained(task, stage))
          kept[rank] += task.action == PipelineAction::forward ? 1 : -1;
        out.in_flight[rank] = std::max(out.in_flight[rank], kept[rank]);
        moved = true;
      }
    }
  }
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    if (spans[rank].size() != tasks[rank].size())
      fail<Error>(fmt::format("pipeline: rank {} waits forever at its task {} of {}", rank,
                              spans[rank].size() + 1, tasks[rank].size()));
    out.spans.insert(out.spans.end(), spans[rank].begin(), spans[rank].end());
  }
  if (out.seconds > 0) out.bubble = 1 - busy / (static_cast<double>(shape.stages) * out.seconds);
  return out;
}

std::vector<std::int64_t> split_by_cost(const std::vector<double>& costs, std::int64_t parts) {
  const auto layers = static_cast<std::int64_t>(costs.size());
  if (parts < 1 || layers < parts)
    fail<ConfigError>(
        fmt::format("pipeline: {} layers cannot be split into {} stages", layers, parts));
  for (const double cost : costs)
    if (!(cost >= 0) || !std::isfinite(cost))
      fail<ConfigError>(fmt::format("pipeline: a layer's cost must be at least 0, got {}", cost));
  std::vector<double> sum(costs.size() + 1, 0);
  for (std::size_t i = 0; i < costs.size(); ++i) sum[i + 1] = sum[i] + costs[i];
  // best[k][i]: smallest largest part when the first i layers make k parts.
  const double never = std::numeric_limits<double>::infinity();
  const auto columns = costs.size() + 1;
  std::vector<std::vector<double>> best(static_cast<std::size_t>(parts) + 1,
                                        std::vector<double>(columns, never));
  std::vector<std::vector<std::size_t>> cut(best.size(), std::vector<std::size_t>(columns, 0));
  best[0][0] = 0;
  for (std::size_t k = 1; k < best.size(); ++k)
    for (std::size_t i = k; i < columns; ++i)
      for (std::size_t j = k - 1; j < i; ++j) {
        const double largest = std::max(best[k - 1][j], sum[i] - sum[j]);
        if (largest < best[k][i]) {
          best[k][i] = largest;
          cut[k][i] = j;
        }
      }
  std::vector<std::int64_t> ends(static_cast<std::size_t>(parts));
  std::size_t end = costs.size();
  for (std::size_t k = ends.size(); k > 0; --k) {
    ends[k - 1] = static_cast<std::int64_t>(end);
    end = cut[k][end];
  }
  return ends;
}

}  // namespace lectern
