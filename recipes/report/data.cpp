// Gathering what a report shows from the files of a run.
#include "core/error.h"
#include "core/io/fields.h"
#include "core/io/file.h"
#include "recipes/log/metrics.h"
#include "recipes/report/report.h"

#include <nlohmann/json.hpp>

#include <limits>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

double number(const Fields& in, const char* key) {
  constexpr double kAny = std::numeric_limits<double>::max();
  return in.number(key, 0, -kAny, kAny);
}
std::int64_t integer(const Fields& in, const char* key) {
  using Limits = std::numeric_limits<std::int64_t>;
  return in.size(key, 0, Limits::min(), Limits::max());
}

/// A list of [text, text].
std::vector<std::pair<std::string, std::string>> pairs(const Fields& in, const char* key) {
  std::vector<std::pair<std::string, std::string>> out;
  if (!in.has(key)) return out;
  const Json& list = in.raw(key);
  for (const Json& pair : list.is_array() ? list : Json::array({list})) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
      fail<IoError>(fmt::format("{}.{}: must be a list of [text, text], got {}", in.where(), key,
                                list.dump()));
    out.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>());
  }
  return out;
}

double value_of(const MetricFields& record, const char* key) {
  const auto found = record.find(key);
  return found != record.end() && found->is_number() ? found->get<double>() : 0.0;
}

void add_point(Curve& curve, const MetricFields& record, const char* key) {
  const auto found = record.find(key);
  if (found == record.end() || !found->is_number()) return;
  curve.step.push_back(value_of(record, "step"));
  curve.value.push_back(found->get<double>());
}

void name_stage(ReportStage& stage) {
  if (stage.stage == 1 && stage.name.empty()) {
    stage.name = "encoder";
    stage.trained = "everything trains; of the decoder nothing need be kept";
  } else if (stage.stage == 2 && stage.name.empty()) {
    stage.name = "queries and decoder";
    stage.trained = "vision tokenizer frozen; LM encoder and decoder train";
  } else if (stage.stage == 3 && stage.name.empty()) {
    stage.name = "decoder";
    stage.trained = "encoder frozen, its output cached; the decoder trains";
  }
}

void read_lists(const Fields& in, const fs::path& folder, ReportData& out) {
  for (const Fields& each : in.objects("samples")) {
    ReportSample& sample = out.samples.emplace_back();
    sample.image = folder / each.text("image", "");
    sample.truth = each.text("truth", "");
    sample.read = each.text("read", "");
    sample.note = each.text("note", "");
    sample.page = each.boolean("page", false);
  }
  for (const Fields& each : in.objects("token_budget")) {
    TokenBudgetRow& row = out.token_budget.emplace_back();
    row.name = each.text("name", "");
    row.width = integer(each, "width");
    row.height = integer(each, "height");
    row.tiles = integer(each, "tiles");
    row.vision_tokens = each.size("vision_tokens", 0);
    row.text_tokens = integer(each, "text_tokens");
  }
  for (const Fields& each : in.objects("exports")) {
    ReportExport& item = out.exports.emplace_back();
    item.format = each.text("format", "");
    item.path = each.text("path", "");
    item.check = each.text("check", "");
    item.bytes = integer(each, "bytes");
  }
}

ReportData read_report_json(const fs::path& path) {
  const fs::path folder = path.parent_path();
  const Json json = parse_json(read_file(path, kMaxBytes), path.string());
  const Fields in(json, path.string());
  ReportData out;
  if (in.has("title")) out.title = in.text("title", "");
  out.summary = in.text("summary", "");
  out.facts = pairs(in, "facts");
  out.next = pairs(in, "next");
  out.limits = in.texts("limits");
  for (const Fields& each : in.objects("stages")) {
    ReportStage stage;
    if (each.has("run")) stage = read_stage(folder / each.text("run", ""));
    stage.stage = integer(each, "stage");
    stage.name = each.text("name", "");
    stage.trained = each.text("trained", "");
    name_stage(stage);
    if (each.has("heldout")) stage.heldout = read_heldout(folder / each.text("heldout", ""));
    out.stages.push_back(std::move(stage));
  }
  read_lists(in, folder, out);
  return out;
}

}  // namespace

std::string page_of(const std::string& key) { return key.substr(0, key.find('|')); }

HeldOut read_heldout(const fs::path& path) {
  const Json json = parse_json(read_file(path, kMaxBytes), path.string());
  const Fields in(json, path.string());
  HeldOut out;
  out.samples = integer(in, "pages");
  out.edit_distance = number(in, "edit_distance");
  out.cer = number(in, "cer");
  out.f1 = number(in, "f1");
  out.repetition_rate = number(in, "repetition_rate");
  out.exact = integer(in, "exact");
  return out;
}

ReportStage read_stage(const fs::path& run_folder) {
  ReportStage out;
  for (const MetricFields& record : read_metrics(run_folder / "metrics.jsonl")) {
    out.steps = std::max(out.steps, static_cast<std::int64_t>(value_of(record, "step")));
    add_point(out.loss, record, "loss");
    add_point(out.grad_norm, record, "grad_norm");
    add_point(out.learning_rate, record, "lr");
    add_point(out.heldout_cer, record, "eval_cer");
    const double seconds = value_of(record, "seconds"), samples = value_of(record, "samples");
    out.seconds += seconds;
    out.samples += samples;
    out.tokens += value_of(record, "tokens");
    if (seconds > 0 && samples > 0) {
      out.samples_per_second.step.push_back(value_of(record, "step"));
      out.samples_per_second.value.push_back(samples / seconds);
    }
  }
  // With log_every > 1 a record stands for several steps.
  if (!out.samples_per_second.value.empty()) {
    const double scale =
        static_cast<double>(out.steps) / static_cast<double>(out.samples_per_second.value.size());
    for (double* sum : {&out.seconds, &out.samples, &out.tokens}) *sum *= scale;
  }
  return out;
}

ReportData load_report(const fs::path& folder) {
  if (fs::exists(folder / "report.json"))
    return read_data_file([&] { return read_report_json(folder / "report.json"); });
  ReportData out;
  out.title = fs::absolute(folder).lexically_normal().filename().string();
  for (int stage = 1; stage <= 3; ++stage) {
    const fs::path run = folder / fmt::format("stage{}", stage);
    if (!fs::exists(run / "metrics.jsonl")) continue;
    out.stages.push_back(read_stage(run));
    out.stages.back().stage = stage;
    name_stage(out.stages.back());
  }
  if (out.stages.empty()) {
    if (!fs::exists(folder / "metrics.jsonl"))
      fail<IoError>(folder.string() +
                    ": must have a report.json, a metrics.jsonl or run folders stage1 to stage3, "
                    "got none of them");
    out.stages.push_back(read_stage(folder));
  }
  return out;
}

}  // namespace lectern
