// The report of `lectern eval --out`: scores by document, and pictures beside what was read.
#pragma once

#include "recipes/evaluate/evaluate.h"

#include <filesystem>
#include <string>

namespace lectern {

/// What was read, and what is known of it.
struct EvaluationSource {
  std::string level, model, shards;
  bool was_trained_on = false;  ///< the model's run says that it trained on the shards
};

/// One HTML file that needs nothing else: a table of the documents, the samples that were read
/// worst and those that were read best. `images` holds the pictures of result.samples as
/// 00000.png, 00001.png, ... Throws IoError when one cannot be read.
std::string render_evaluation(const EvaluationResult& result, const EvaluationSource& source,
                              const std::filesystem::path& images);

}  // namespace lectern
