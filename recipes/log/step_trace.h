// A Chrome trace of a few training steps: what `lectern train --profile` writes, for Perfetto
// (https://ui.perfetto.dev) or chrome://tracing.
//
// Three rows: the steps, inside them every operation of the training thread (the time since the one
// before, so that nothing is missing), inside those the matrix products; and with a GPU one row of
// what ran there, by launch. Times are in microseconds, from the beginning of the first step.
#pragma once

#include "core/device.h"
#include "core/profile.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <vector>

namespace lectern {

/// Steps of a run from `next` (counted from 1) to `last` that are traced: three, after two that
/// warm up, or as many of the last ones as there are. `last` is before `first` when there is none.
struct TracedSteps {
  std::int64_t first, last;
};
TracedSteps traced_steps(std::int64_t next, std::int64_t last);

class StepTrace {
 public:
  StepTrace(std::filesystem::path file, TracedSteps steps, Device device)
      : file_(std::move(file)), steps_(steps), device_(device) {}

  const std::filesystem::path& file() const { return file_; }
  /// Around each step of the run, on the thread that trains.
  void begin(std::int64_t step);
  void end(std::int64_t step);
  /// Writes the file when the last traced step is done, or with `run_is_over` what there is; true
  /// when it did. Throws IoError.
  bool write(bool run_is_over = false);

 private:
  struct Step {
    std::int64_t number;
    double begin, end;
  };
  nlohmann::json events(const std::vector<ProfileSpan>& host,
                        const std::vector<ProfileSpan>& device) const;

  std::filesystem::path file_;
  TracedSteps steps_;
  Device device_;
  std::vector<Step> done_;
  double begin_ = 0;
  bool written_ = false;
};

}  // namespace lectern
