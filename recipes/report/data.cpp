// Gathering what a report shows from the files of a run.
#include "core/error.h"
#include "core/io/file.h"
#include "recipes/log/metrics.h"
#include "recipes/report/report.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

/// One object of report.json; getters name the file and field that does not fit.
class Fields {
 public:
  Fields(const Json& json, std::string name) : json_(json), name_(std::move(name)) {
    if (!json_.is_object())
      fail<IoError>(fmt::format("{} must be an object, got {}", name_, json_.type_name()));
  }

  std::string text(const char* key) const {
    const Json* value = find(key);
    if (value && !value->is_string()) refuse(key, "a string", *value);
    return value ? value->get<std::string>() : "";
  }
  double number(const char* key) const {
    const Json* value = find(key);
    if (value && !value->is_number()) refuse(key, "a number", *value);
    return value ? value->get<double>() : 0.0;
  }
  std::int64_t integer(const char* key) const {
    const Json* value = find(key);
    if (value && !value->is_number_integer()) refuse(key, "an integer", *value);
    return value ? value->get<std::int64_t>() : 0;
  }
  bool boolean(const char* key) const {
    const Json* value = find(key);
    if (value && !value->is_boolean()) refuse(key, "true or false", *value);
    return value && value->get<bool>();
  }
  bool has(const char* key) const { return find(key) != nullptr; }

  /// Calls f(Fields) for each object of a list.
  template <typename F>
  void each(const char* key, F&& f) const {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_array()) refuse(key, "a list", *value);
    for (std::size_t i = 0; i < value->size(); ++i)
      f(Fields((*value)[i], fmt::format("{}: {}[{}]", name_, key, i)));
  }
  /// Pairs of strings: an object, in its order of keys, or a list of [string, string].
  std::vector<std::pair<std::string, std::string>> pairs(const char* key) const {
    std::vector<std::pair<std::string, std::string>> out;
    const Json* value = find(key);
    if (!value) return out;
    if (!value->is_array()) refuse(key, "a list of [text, text]", *value);
    for (const Json& pair : *value) {
      if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
        refuse(key, "a list of [text, text]", pair);
      out.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>());
    }
    return out;
  }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> out;
    const Json* value = find(key);
    if (!value) return out;
    if (!value->is_array()) refuse(key, "a list of texts", *value);
    for (const Json& text : *value) {
      if (!text.is_string()) refuse(key, "a list of texts", text);
      out.push_back(text.get<std::string>());
    }
    return out;
  }

 private:
  const Json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  [[noreturn]] void refuse(const char* key, const char* wanted, const Json& found) const {
    fail<IoError>(fmt::format("{}: {} must be {}, got {}", name_, key, wanted, found.type_name()));
  }

  const Json& json_;
  std::string name_;
};

HeldOut read_heldout(const fs::path& path) {
  const Json json = parse_json(read_file(path, kMaxBytes), path.string());
  const Fields in(json, path.string());
  HeldOut out;
  out.samples = in.integer("pages");
  out.edit_distance = in.number("edit_distance");
  out.cer = in.number("cer");
  out.f1 = in.number("f1");
  out.repetition_rate = in.number("repetition_rate");
  out.exact = in.integer("exact");
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
  in.each("samples", [&](const Fields& each) {
    ReportSample& sample = out.samples.emplace_back();
    sample.image = folder / each.text("image");
    sample.truth = each.text("truth");
    sample.read = each.text("read");
    sample.note = each.text("note");
    sample.page = each.boolean("page");
  });
  in.each("token_budget", [&](const Fields& each) {
    TokenBudgetRow& row = out.token_budget.emplace_back();
    row.name = each.text("name");
    row.width = each.integer("width");
    row.height = each.integer("height");
    row.tiles = each.integer("tiles");
    row.vision_tokens = each.integer("vision_tokens");
    row.text_tokens = each.integer("text_tokens");
  });
  in.each("exports", [&](const Fields& each) {
    ReportExport& item = out.exports.emplace_back();
    item.format = each.text("format");
    item.path = each.text("path");
    item.check = each.text("check");
    item.bytes = each.integer("bytes");
  });
}

ReportData read_report_json(const fs::path& path) {
  const fs::path folder = path.parent_path();
  const Json json = parse_json(read_file(path, kMaxBytes), path.string());
  const Fields in(json, path.string());
  ReportData out;
  if (in.has("title")) out.title = in.text("title");
  out.summary = in.text("summary");
  out.facts = in.pairs("facts");
  out.next = in.pairs("next");
  out.limits = in.texts("limits");
  in.each("stages", [&](const Fields& each) {
    ReportStage stage;
    if (each.has("run")) stage = read_stage(folder / each.text("run"));
    stage.stage = each.integer("stage");
    stage.name = each.text("name");
    stage.trained = each.text("trained");
    name_stage(stage);
    if (each.has("heldout")) stage.heldout = read_heldout(folder / each.text("heldout"));
    out.stages.push_back(std::move(stage));
  });
  read_lists(in, folder, out);
  return out;
}

}  // namespace

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
  if (fs::exists(folder / "report.json")) return read_report_json(folder / "report.json");
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
