// Learning-rate schedules: the rate of an update as a pure function of its number, so that nothing
// but the step has to be saved to go on with a run.
//
//   warm-up    rate = peak * (step + 1) / warmup_steps          for step < warmup_steps
//   then, with s = step - warmup_steps and n = total_steps - warmup_steps:
//   cosine     rate = minimum + (peak - minimum) * (1 + cos(pi * s / (n - 1))) / 2
//              the peak at s = 0, the minimum at the last step and ever after
//   constant   rate = peak
//   step       rate = peak * factors[i], i the last milestone <= step; peak before the first.
//              A milestone inside the warm-up multiplies the warm-up's rate.
// Steps count from 0.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lectern {

enum class ScheduleKind : std::uint8_t { cosine, constant, step };

/// "cosine", "constant" or "step"; throws ConfigError for any other name.
ScheduleKind schedule_kind(std::string_view name);

struct ScheduleArgs {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0;                       ///< >= 0, rate after the warm-up
  double minimum = 0;                    ///< 0 .. peak; cosine only
  std::int64_t warmup_steps = 0;         ///< >= 0; 0: none
  std::int64_t total_steps = 0;          ///< >= 1; cosine only
  std::vector<std::int64_t> milestones;  ///< rising; step only
  std::vector<double> factors;           ///< one a milestone, >= 0, of the peak (not cumulative)
};

/// Rate of update number `step` (from 0). Throws ConfigError naming the field that is unusable.
double learning_rate(const ScheduleArgs& args, std::int64_t step);

}  // namespace lectern
