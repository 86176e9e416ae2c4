// What quickstart.sh made, gathered into its report and its metrics.json.
#pragma once

#include "recipes/report/report.h"

#include <nlohmann/json_fwd.hpp>

#include <filesystem>

namespace lectern {

/// Reads out/quickstart: stage1..3 (metrics.jsonl), eval/stage1..3 and eval/pages (scores.json,
/// samples.json, images/), export/*. Throws IoError naming what is missing.
ReportData quickstart_report(const std::filesystem::path& folder);

/// {"stages": [{stage, steps, loss_first, loss_last, seconds, samples_per_second, heldout_cer}],
///  "heldout": {pages, edit_distance, cer, repetition_rate}, "export": {format, path}}.
nlohmann::ordered_json quickstart_metrics(const std::filesystem::path& folder);

}  // namespace lectern
