// lectern ablate: the same training with one thing changed, side by side.
//
// An ablation is a list of jobs. One of residual connections has [text] and [ocr]: every variant,
// at every depth, with every seed, on text and on the OCR task. One of anything else that a
// training recipe can say has [training]: every variant with every seed. Variants with the same
// seed see the same batches in the same order and start from the same weights where they have them
// in common. Each job is a process of its own and leaves jobs/<id>/result.json; a job whose result
// is there for the same settings is not run again, so that an ablation that was interrupted goes on
// where it was.
#pragma once

#include "nn/blocks/residual_config.h"

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
  std::string folder;  ///< of the .txt files
  std::string fetch;   ///< command that fills the folder it is given when that has none; "": none
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

/// [[training.variants]] One way to train.
struct TrainedVariant {
  std::string name, label;           ///< in file names; in the report
  std::vector<std::string> set;      ///< of all its runs, as `lectern train --set` takes them
  std::vector<std::int64_t> stages;  ///< of the runs after the first, one for each of `then`
};

/// [[training.then]] A run that goes on from the one before; its stage is the variant's.
struct FollowingRun {
  std::int64_t steps = 0;
  std::vector<std::string> set;
};

/// [training] A training recipe, with settings or stages of its own for each variant. Runs that no
/// variant changes, the first ones of variants without `set`, are made once a seed.
struct TrainingAblation {
  bool enabled = false;
  std::string title, about;      ///< of the report: a headline, what is compared
  std::string recipe;            ///< stage 1
  std::string needs, fetch;      ///< when this path is missing, run this command; "": nothing
  std::vector<std::string> set;  ///< of all runs of all variants
  std::vector<TrainedVariant> variants;  ///< at least one
  std::string baseline;                  ///< variant that the others are compared with
  std::vector<FollowingRun> then;
  std::vector<std::int64_t> seeds;
  std::int64_t steps = 0;                 ///< of the first run
  std::int64_t curve_every = 500;         ///< steps between held-out figures in the curves
  std::int64_t curve_samples = 100;       ///< that these are measured on
  std::int64_t evaluation_samples = 500;  ///< held-out samples read at the end, of each set
};

struct AblationRecipe {
  std::string name;                    ///< of the file, for messages
  std::filesystem::path out;           ///< folder
  std::int64_t parallel = 0;           ///< jobs side by side; 0: one a core
  std::int64_t diagnostics_every = 5;  ///< steps between gains
  TextAblation text;
  OcrAblation ocr;
  TrainingAblation training;
};

/// Throws IoError or ConfigError naming file and field.
AblationRecipe load_ablation(const std::filesystem::path& path,
                             const std::vector<std::string>& overrides = {});

struct AblationJob {
  std::string id;    ///< "text-d24-mhc-s1", "ocr-plain-s2", "queries-8-s1", "start-s1"
  std::string task;  ///< "text", "ocr", "training", or "start": a first run that variants share
  std::string variant;
  std::int64_t depth = 0;  ///< layers of the decoder
  std::int64_t seed = 0;
  double cost = 0;  ///< in proportion to the time it takes, for the time left
};

/// All jobs, so ordered that the first ones make a small complete ablation: seed by seed.
std::vector<AblationJob> ablation_jobs(const AblationRecipe& recipe);
/// What the report calls a variant of a task, and which variant it compares with.
std::string variant_label(const AblationRecipe& recipe, const std::string& task,
                          const std::string& variant);
std::string baseline_of(const AblationRecipe& recipe, const std::string& task);

/// What a result must have been made with to count.
std::string job_settings(const AblationRecipe& recipe, const AblationJob& job);

/// Runs one job in this process and writes jobs/<id>/metrics.jsonl and result.json.
void run_ablation_job(const AblationRecipe& recipe, const AblationJob& job);
/// The kinds of job: fields of result.json; metrics.jsonl lands in `folder`.
nlohmann::ordered_json run_text_job(const AblationRecipe& recipe, const AblationJob& job,
                                    const std::filesystem::path& folder);
nlohmann::ordered_json run_ocr_job(const AblationRecipe& recipe, const AblationJob& job,
                                   const std::filesystem::path& folder);
nlohmann::ordered_json run_training_job(const AblationRecipe& recipe, const AblationJob& job,
                                        const std::filesystem::path& folder);
/// The first run that variants share: trains it unless it is there. Safe from several processes at
/// once: the others wait. Returns its folder.
std::filesystem::path run_shared_start(const AblationRecipe& recipe, std::int64_t seed);
std::string training_settings(const AblationRecipe& recipe, const AblationJob& job);

/// Runs what is missing, `parallel` jobs at a time, each as `program ablate FILE --job ID`, and
/// writes table.md and report.html after each. Returns the number of jobs that failed.
std::int64_t run_ablation(const AblationRecipe& recipe, const std::filesystem::path& program,
                          const std::vector<std::string>& arguments);

}  // namespace lectern
