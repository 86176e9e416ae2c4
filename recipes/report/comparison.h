// Two readers side by side: what lectern and tesseract read from the same pictures, which
// scripts/eval-beside-tesseract.sh gathers in a folder:
//   <level>/            word, line, region, page: written by `lectern eval --out`
//     samples.json      stem, document, truth, read
//     images/<stem>.png
//     tesseract/<stem>.txt
#pragma once

#include "recipes/evaluate/score.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

struct ComparedSample {
  std::string stem, document, note;
  std::string truth, read, other;  ///< `other`: tesseract's reading, "" where it found nothing
  std::filesystem::path picture;
};

/// A level, or one document of it. Both sides are scored after normalize_text().
struct ComparedScores {
  std::string level, document;  ///< document "": all
  Scores ours, other;
};

struct Comparison {
  std::filesystem::path folder;
  std::string model, tesseract;  ///< what was compared: model.txt and tesseract.txt of the folder
  std::vector<std::string> levels;
  std::vector<std::vector<ComparedSample>> samples;  ///< of each level
  std::vector<std::vector<ComparedScores>> scores;   ///< of each level: its documents, then all
};

/// Reads and scores the levels that are there. Throws IoError naming file and field; a level whose
/// folder has no tesseract/ is an error, a picture without a text of its is read empty.
Comparison read_comparison(const std::filesystem::path& folder);

nlohmann::ordered_json comparison_json(const Comparison& comparison);
std::string comparison_markdown(const Comparison& comparison);
/// One page that loads nothing: the table, and of each level the samples that lectern read worst
/// and best, with both readings.
std::string comparison_html(const Comparison& comparison);

}  // namespace lectern
