#include "nn/optim/schedule.h"

#include "core/error.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lectern {
namespace {

[[noreturn]] void refuse(std::string_view rule, const std::string& found) {
  fail<ConfigError>(fmt::format("schedule: {}, got {}", rule, found));
}

/// True for finite numbers of 0 or more; false for NaN.
bool is_rate(double value) { return value >= 0 && std::isfinite(value); }

void check_steps(const ScheduleArgs& args) {
  if (args.factors.size() != args.milestones.size())
    refuse(fmt::format("factors must be one for each of the {} milestones", args.milestones.size()),
           fmt::format("{}", args.factors.size()));
  for (std::size_t i = 0; i < args.milestones.size(); ++i) {
    if (i > 0 && args.milestones[i] <= args.milestones[i - 1])
      refuse("milestones must rise",
             fmt::format("{} after {}", args.milestones[i], args.milestones[i - 1]));
    if (!is_rate(args.factors[i]))
      refuse("factors must be 0 or more", fmt::format("{}", args.factors[i]));
  }
}

void check(const ScheduleArgs& args, std::int64_t step) {
  if (step < 0) refuse("step must be 0 or more", fmt::format("{}", step));
  if (!is_rate(args.peak)) refuse("peak must be 0 or more", fmt::format("{}", args.peak));
  if (args.warmup_steps < 0)
    refuse("warmup_steps must be 0 or more", fmt::format("{}", args.warmup_steps));
  if (args.kind == ScheduleKind::step) check_steps(args);
  if (args.kind != ScheduleKind::cosine) return;
  if (!is_rate(args.minimum) || args.minimum > args.peak)
    refuse(fmt::format("minimum must be in 0..peak = {}", args.peak),
           fmt::format("{}", args.minimum));
  if (args.total_steps < 1)
    refuse("total_steps must be 1 or more", fmt::format("{}", args.total_steps));
}

double cosine_rate(const ScheduleArgs& args, std::int64_t step) {
  const std::int64_t last = args.total_steps - 1;
  if (step > last) return args.minimum;
  // With a single step after the warm-up there is nothing to fall through: it gets the peak.
  const auto length = static_cast<double>(std::max<std::int64_t>(last - args.warmup_steps, 1));
  const double progress = static_cast<double>(step - args.warmup_steps) / length;
  const double share = 0.5 * (1 + std::cos(std::numbers::pi * progress));
  return args.minimum + (args.peak - args.minimum) * share;
}

double step_factor(const ScheduleArgs& args, std::int64_t step) {
  const auto next = std::upper_bound(args.milestones.begin(), args.milestones.end(), step);
  const auto passed = static_cast<std::size_t>(next - args.milestones.begin());
  return passed == 0 ? 1.0 : args.factors[passed - 1];
}

}  // namespace

ScheduleKind schedule_kind(std::string_view name) {
  if (name == "cosine") return ScheduleKind::cosine;
  if (name == "constant") return ScheduleKind::constant;
  if (name == "step") return ScheduleKind::step;
  refuse("kind must be cosine, constant or step", fmt::format("\"{}\"", name));
}

double learning_rate(const ScheduleArgs& args, std::int64_t step) {
  check(args, step);
  const double factor = args.kind == ScheduleKind::step ? step_factor(args, step) : 1.0;
  if (step < args.warmup_steps)
    return args.peak * factor * static_cast<double>(step + 1) /
           static_cast<double>(args.warmup_steps);
  return args.kind == ScheduleKind::cosine ? cosine_rate(args, step) : args.peak * factor;
}

}  // namespace lectern
