// Tables, curves and the page of an ablation.
//
// What all ablations share is in ablate_report.cpp; what is said of residual connections in
// ablate_report_residual.cpp, and of trainings in ablate_report_training.cpp.
#pragma once

#include "core/statistics.h"
#include "recipes/ablate/ablate.h"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace lectern {

/// Held-out texts of about one length.
struct LengthGroup {
  std::int64_t from = 0;                   ///< characters of the shortest
  double characters = 0, text_tokens = 0;  ///< of one, in the mean
  MeanWithError cer;
};

/// One variant at one size, over seeds. Gaps and overheads are against the
/// baseline (plain) with the same seed.
struct AblationRow {
  std::string variant, label;
  std::size_t finished = 0, diverged = 0;
  MeanWithError loss, loss_gap;
  MeanWithError gain_forward, gain_backward, deviation;  ///< largest of a run
  MeanWithError grad_norm_ratio;                 ///< largest gradient norm / median, second half
  MeanWithError time_overhead, memory_overhead;  ///< 0.05: 5 %
  MeanWithError cer;                             ///< OCR and training only
  // Of trainings only.
  MeanWithError cer_gap, exact, train_seconds;
  double visual_tokens = 0, decoder_tokens = 0;  ///< of a view
  std::vector<LengthGroup> lengths;
};

/// A block of rows: "text, 24 layers", "OCR" or "training".
struct AblationTable {
  std::string task, title;
  std::string baseline;  ///< variant
  std::int64_t depth = 0;
  std::vector<AblationRow> rows;
};

/// results: the result.json of finished jobs, in any order.
std::vector<AblationTable> ablation_tables(const AblationRecipe& recipe,
                                           const std::vector<nlohmann::json>& results);

/// What the numbers say, in plain words; one sentence for each of the paper's findings, with the
/// scale it was seen at, or for each variant of a training.
std::vector<std::string> ablation_findings(const std::vector<AblationTable>& tables);

std::string ablation_markdown(const AblationRecipe& recipe,
                              const std::vector<AblationTable>& tables);
/// One page that loads nothing. Curves come from jobs/<id>/metrics.jsonl.
std::string ablation_html(const AblationRecipe& recipe, const std::vector<AblationTable>& tables);

}  // namespace lectern
