// The report of `lectern eval --out`: scores by document, and pictures beside what was read.
#pragma once

#include "recipes/evaluate/evaluate.h"

#include <filesystem>
#include <string>

namespace lectern {

/// One HTML file that needs nothing else: a table of the documents, the samples that were read
/// worst and those that were read best. `images` holds the pictures of result.samples as
/// 00000.png, 00001.png, ... Throws IoError when one cannot be read.
std::string render_evaluation(const EvaluationResult& result, const std::string& level,
                              const std::string& model, const std::filesystem::path& images);

}  // namespace lectern
