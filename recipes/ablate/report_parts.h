// Pieces of ablation reports. Private to this room.
#pragma once

#include "recipes/ablate/report.h"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace lectern {

/// "1.2345 ± 0.0012"; the sign of a gap is always shown.
std::string with_error(const MeanWithError& spread, int digits, bool is_gap = false);
/// "+12 %"
std::string percent(const MeanWithError& spread);
/// The variant's row, if it has a result.
const AblationRow* find_row(const AblationTable& table, const std::string& variant);
/// "lower", "higher" or "not told apart from <other>": a gap counts beyond two standard errors.
std::string judged(const MeanWithError& gap, const std::string& other);

/// A plot of the mean over seeds.
struct CurvePlot {
  const char *field, *title;
  bool log, smooth;
  const char* x = "step";  ///< another field, whose mean over seeds is taken too
};

/// What tells one kind of ablation from another in a report.
struct AblationWords {
  std::string title, lead;
  nlohmann::json values;  ///< of ablation.html
  std::vector<CurvePlot> plots;
};
AblationWords residual_words(const AblationRecipe& recipe);
AblationWords training_words(const AblationRecipe& recipe,
                             const std::vector<AblationTable>& tables);

std::vector<std::string> residual_header(const AblationTable& table);
std::vector<std::string> residual_cells(const AblationTable& table, const AblationRow& row);
std::vector<std::string> residual_findings(const std::vector<AblationTable>& tables);

std::vector<std::string> training_header(const AblationTable& table);
std::vector<std::string> training_cells(const AblationTable& table, const AblationRow& row);
std::vector<std::string> training_findings(const std::vector<AblationTable>& tables);
/// Error rates by the length of the text: the table's head, then its rows.
std::vector<std::vector<std::string>> length_table(const AblationTable& table);

}  // namespace lectern
