// Held-out samples in the middle of a run: read, scored and told, each rank its share of them.
#pragma once

#include "distributed/communicator.h"
#include "nn/model.h"
#include "recipes/log/metrics.h"
#include "recipes/recipe/recipe.h"
#include "recipes/train/training_data.h"

#include <string>
#include <vector>

namespace lectern {

struct ValidationResult {
  double cer = 0;
  double loss = 0;                 ///< mean over the sets
  MetricFields fields;             ///< of metrics.jsonl
  std::vector<std::string> lines;  ///< for the reader, without the step
};

/// Reads and scores all sets. The same on every rank of `ranks`, whatever their number. Collective.
ValidationResult validate(const OcrModel& model, const Tokenizer& tokenizer,
                          const std::vector<ValidationSet>& sets, const EvaluationRecipe& recipe,
                          Communicator& ranks);

}  // namespace lectern
