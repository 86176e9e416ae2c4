// What a run writes down while it goes: metrics.jsonl, TensorBoard events, progress lines. One rank
// writes; on the others everything here does nothing.
#pragma once

#include "recipes/log/metrics.h"
#include "recipes/log/progress.h"
#include "recipes/log/tensorboard.h"
#include "recipes/recipe/recipe.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lectern {

class RunLog {
 public:
  /// Opens the files of `folder`, dropping what is after `step`. A null folder: writes nothing.
  RunLog(const Recipe& recipe, const RunFolder* folder, std::int64_t step);

  /// Progress of a step; cheap, for every step.
  void update(const StepReport& report);
  /// A line for the reader.
  void say(std::string_view message);
  /// A record of metrics.jsonl. As events, "name" becomes "train/name" and, of an evaluation,
  /// "eval_cer/words" becomes "eval/cer/words".
  void record(std::int64_t step, const MetricFields& fields);
  void record_evaluation(std::int64_t step, const MetricFields& fields);
  /// Forces the records to the disk. Any thread may call it while another records.
  void sync();

 private:
  std::optional<MetricsWriter> metrics_;
  std::optional<EventWriter> events_;
  std::optional<Progress> progress_;
};

}  // namespace lectern
