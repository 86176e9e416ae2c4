// The report of a run: one HTML file that needs nothing else (plots are inline SVG, pictures inline
// base64), readable on a phone, on paper, in light and dark.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// A field of metrics.jsonl over the steps that have it (null is left out).
struct Curve {
  std::vector<double> step, value;
};

/// Scores on held-out documents, as scores_json() names them.
struct HeldOut {
  std::int64_t samples = 0;
  double edit_distance = 0, cer = 0, f1 = 0, repetition_rate = 0;
  std::int64_t exact = 0;  // read without an error
};

struct ReportStage {
  std::int64_t stage = 0;
  std::string name;     // "encoder", shown after "Stage 1"
  std::string trained;  // what trained and what stood still, one phrase
  std::int64_t steps = 0;
  double seconds = 0;              // sum over steps; 0: not recorded
  double samples = 0, tokens = 0;  // sums over steps
  Curve loss, grad_norm, learning_rate;
  Curve samples_per_second;        // from samples / seconds of each step
  Curve heldout_cer;               // of the evaluations during the stage (field `eval_cer`)
  std::optional<HeldOut> heldout;  // after the stage
};

/// A picture beside what was read from it.
struct ReportSample {
  std::filesystem::path image;  // PNG or JPEG
  std::string truth, read;
  std::string note;                         // where it comes from
  bool page = false;                        // a whole page: shown larger, text scrolls
  std::string other_name = "", other = "";  // what another program read; no name: there is none
};

/// What a page costs as pictures and as text.
struct TokenBudgetRow {
  std::string name;
  std::int64_t width = 0, height = 0;  // pixels
  std::int64_t tiles = 0;
  std::int64_t vision_tokens = 0;
  std::int64_t text_tokens = 0;
};

struct ReportExport {
  std::string format, path;
  std::string check;  // "re-read, logits equal to 2e-6"
  std::int64_t bytes = 0;
};

/// How the model that a run began with had come to be: held-out figures over samples.
struct ReportHistory {
  std::string title, text;
  std::vector<std::pair<std::string, Curve>> curves;  // name; `step` counts samples
};

struct ReportData {
  std::string title = "lectern";
  std::string summary;                                     // one or two sentences under the title
  std::vector<std::pair<std::string, std::string>> facts;  // "parameters" -> "3.9 M"
  std::vector<ReportStage> stages;
  std::optional<ReportHistory> history;
  std::vector<ReportSample> samples;
  std::vector<TokenBudgetRow> token_budget;
  std::vector<ReportExport> exports;
  std::vector<std::pair<std::string, std::string>> next;  // what -> command
  std::vector<std::string> limits;  // paragraphs of "what such a run can and cannot do"
};

/// The page that a sample's key names: the rest of it tells pieces of one page apart, and no
/// reader.
std::string page_of(const std::string& key);

/// Scores of a scores.json that `lectern eval --out` wrote. Throws IoError.
HeldOut read_heldout(const std::filesystem::path& path);

/// Curves and totals of a metrics.jsonl. Throws IoError.
ReportStage read_stage(const std::filesystem::path& run_folder);

/// Assembles the data of a folder:
///   report.json          every field of ReportData by its name; a stage names its run folder in
///                        `run` and its scores_json() file in `heldout`; paths are relative to it
///   or stage1/ .. stage3/, or the folder itself as one run, when there is no report.json.
/// Throws IoError naming the file and field.
ReportData load_report(const std::filesystem::path& folder);

/// The HTML. Throws IoError when a picture cannot be read, is neither PNG nor JPEG, or is over 8
/// MiB.
std::string render_report(const ReportData& data);

}  // namespace lectern
