// lectern ablate: the same training with different residual connections, side by side.
//
// An ablation is a list of jobs: every variant, at every depth, with every seed, on text and on the
// OCR task. Variants with the same seed see the same batches in the same order and start from the
// same weights where they have them in common. Each job is a process of its own and leaves
// jobs/<id>/result.json; a job whose result is there for the same settings is not run again, so
// that an ablation that was interrupted goes on where it was.
#pragma once

#include "nn/residual_config.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

/// One way to connect layers.
struct AblationVariant {
  std::string name;   ///< in recipes and file names
  std::string label;  ///< in the report
  ResidualConfig residual;
};

/// plain; hc; mhc (deepseek-v4: rows first), mhc-paper (columns first), mhc-megatron; exact; and HC
/// with its mappings switched on one after another, the paper's Table 1: hc-res, hc-res-pre. (mHC's
/// H_res alone would do nothing: streams that are written alike stay equal under rows that sum to
/// 1.) Merge is the mean for all.
const std::vector<AblationVariant>& ablation_variants();
/// Throws ConfigError for an unknown name.
const AblationVariant& ablation_variant(const std::string& name);

/// [text] Next-byte prediction with the OCR decoder's layers (dense), on plain text files.
struct TextAblation {
  bool enabled = true;
  std::string folder;                ///< of the .txt files
  std::string fetch;                 ///< script that fills the folder when it has none; "": none
  std::vector<std::int64_t> depths;  ///< layers
  std::vector<std::string> variants;
  std::vector<std::int64_t> seeds;
  std::int64_t width = 64, heads = 4;
  std::int64_t sequence = 128, batch = 8;  ///< bytes a row, rows a step
  std::int64_t steps = 0;
  double learning_rate = 1e-3;
  std::int64_t warmup_steps = 0;
  double clip_norm = 0;                     ///< 0: none, so that instability is not hidden
  std::int64_t validation_sequences = 256;  ///< held-out rows that the final loss is measured on
};

/// [ocr] A training recipe with other residuals.
struct OcrAblation {
  bool enabled = true;
  std::string recipe;  ///< stage 1
  std::vector<std::string> variants;
  std::vector<std::int64_t> seeds;
  std::int64_t steps = 0;
  std::int64_t evaluation_samples = 200;  ///< held-out words read at the end
};

struct AblationRecipe {
  std::string name;                    ///< of the file, for messages
  std::filesystem::path out;           ///< folder
  std::int64_t parallel = 0;           ///< jobs side by side; 0: one a core
  std::int64_t diagnostics_every = 5;  ///< steps between gains
  TextAblation text;
  OcrAblation ocr;
};

/// Throws IoError or ConfigError naming file and field.
AblationRecipe load_ablation(const std::filesystem::path& path,
                             const std::vector<std::string>& overrides = {});

struct AblationJob {
  std::string id;  ///< "text-d24-mhc-s1", "ocr-plain-s2"
  std::string task;
  std::string variant;
  std::int64_t depth = 0;  ///< layers of the decoder
  std::int64_t seed = 0;
  double cost = 0;  ///< in proportion to the time it takes, for the time left
};

/// All jobs, so ordered that the first ones make a small complete ablation: seed by seed.
std::vector<AblationJob> ablation_jobs(const AblationRecipe& recipe);
/// What a result must have been made with to count.
std::string job_settings(const AblationRecipe& recipe, const AblationJob& job);

/// Runs one job in this process and writes jobs/<id>/metrics.jsonl and result.json.
void run_ablation_job(const AblationRecipe& recipe, const AblationJob& job);
/// The two kinds of job: fields of result.json; metrics.jsonl lands in `folder`.
nlohmann::ordered_json run_text_job(const AblationRecipe& recipe, const AblationJob& job,
                                    const std::filesystem::path& folder);
nlohmann::ordered_json run_ocr_job(const AblationRecipe& recipe, const AblationJob& job,
                                   const std::filesystem::path& folder);

/// Runs what is missing, `parallel` jobs at a time, each as `program ablate FILE --job ID`, and
/// writes table.md and report.html after each. Returns the number of jobs that failed.
std::int64_t run_ablation(const AblationRecipe& recipe, const std::filesystem::path& program,
                          const std::vector<std::string>& arguments);

}  // namespace lectern
