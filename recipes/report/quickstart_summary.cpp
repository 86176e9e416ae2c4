#include "recipes/report/quickstart_summary.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/images/image.h"
#include "data/tokenizer/tokenizer.h"
#include "nn/families.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/log/metrics.h"
#include "recipes/log/progress.h"
#include "recipes/read/reader.h"
#include "recipes/recipe/recipe.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr int kStages = 3;
constexpr std::size_t kWordsShown = 24;

struct StageText {
  const char* name;
  const char* trained;
};
constexpr StageText kStageTexts[kStages] = {
    {"encoder", "everything trains: vision tokenizer, LM encoder and decoder"},
    {"query enhancement", "vision tokenizer frozen; LM encoder and decoder train"},
    {"decoder", "encoder frozen and its output cached on disk; the decoder trains"},
};

json read_object(const std::filesystem::path& path) {
  return parse_json(read_file(path), path.string());
}

template <typename T>
T field(const json& object, const char* name, const std::filesystem::path& path) {
  try {
    return object.at(name).get<T>();
  } catch (const json::exception& error) {
    fail<IoError>(fmt::format("{}: {}: {}", path.string(), name, error.what()));
  }
}

/// Samples that `lectern eval --out` wrote, the first `limit` of them.
std::vector<ReportSample> read_samples(const std::filesystem::path& folder, std::size_t limit,
                                       bool page) {
  const auto path = folder / "samples.json";
  std::vector<ReportSample> out;
  for (const json& sample : read_object(path)) {
    if (out.size() == limit) break;
    out.push_back({folder / "images" / (field<std::string>(sample, "stem", path) + ".png"),
                   field<std::string>(sample, "truth", path),
                   field<std::string>(sample, "read", path),
                   page_of(field<std::string>(sample, "name", path)), page});
  }
  return out;
}

/// What held-out pages would cost a full-size model: image tokens against tokens of their text.
std::vector<TokenBudgetRow> token_budget(const std::filesystem::path& folder,
                                         const Tokenizer& tokenizer) {
  const auto path = folder / "eval" / "pages" / "samples.json";
  const ViewOptions full_size = view_options(*families().front().released());
  // An A4 page at 144 dots per inch, the resolution at which `lectern ocr` draws PDFs.
  constexpr std::int64_t kWidth = 1191, kHeight = 1684;
  const ViewGrid grid = choose_grid(kWidth, kHeight, full_size);
  std::vector<TokenBudgetRow> out;
  for (const json& sample : read_object(path)) {
    const auto text = field<std::string>(sample, "truth", path);
    out.push_back({page_of(field<std::string>(sample, "name", path)), kWidth, kHeight, grid.tiles(),
                   image_token_count(full_size, grid),
                   static_cast<std::int64_t>(tokenizer.encode(text).size())});
  }
  return out;
}

std::vector<ReportExport> exports(const std::filesystem::path& folder) {
  std::vector<ReportExport> out;
  for (const char* format : {"hf", "original"}) {
    const auto path = folder / "export" / format;
    std::int64_t bytes = 0;
    if (!std::filesystem::exists(path)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      bytes += static_cast<std::int64_t>(entry.file_size());
    out.push_back({format, path.string(), "read back, every tensor equal bit for bit", bytes});
  }
  return out;
}

/// The model that stage 1 began with; empty for a run from nothing.
std::filesystem::path starting_model(const std::filesystem::path& folder) {
  const auto path = folder / "stage1" / "config.toml";
  if (!std::filesystem::exists(path)) return {};
  const std::string init = load_recipe(path).model.init;
  return init == "random" ? std::filesystem::path() : std::filesystem::path(init);
}

/// What curve.json of a shipped model says of its training from nothing.
std::optional<ReportHistory> history_of(const std::filesystem::path& model) {
  const auto path = model / "curve.json";
  if (model.empty() || !std::filesystem::exists(path)) return std::nullopt;
  const json curve = read_object(path);
  ReportHistory out;
  out.title = "Where it began: nano, from nothing";
  out.text = fmt::format(
      "Stage 1 went on from {}, which lectern had trained from nothing on {} samples in {} of "
      "training. Its held-out errors on the way; its card has the rest.",
      model.string(), format_count(field<double>(curve, "samples", path)),
      format_duration(field<double>(curve, "seconds", path)));
  const json held_out = field<json>(curve, "held_out", path);
  for (const auto& [name, points] : held_out.items())
    out.curves.push_back({name,
                          {field<std::vector<double>>(points, "samples", path),
                           field<std::vector<double>>(points, "cer", path)}});
  return out;
}

/// What such a run can and cannot do.
std::vector<std::string> limits(bool from_nothing) {
  if (!from_nothing)
    return {
        "It goes on from the small model that comes with lectern, for minutes and on fewer "
        "documents than that has seen: what it can read it could mostly read before. The curve "
        "from nothing above says what that took.",
        "Pages are read as runs of words, which are found by their ink, each in a small view; "
        "reading whole pages at one go needs the full views (1024 and 768 pixels), more data and "
        "GPUs: the full-size recipes have the papers' schedules."};
  return {
      "Trained for minutes on single words cut from a few hundred pages, this model can read many "
      "short words in the typefaces it has seen, and guesses at the rest: errors are often real "
      "words that look or begin alike, because the decoder has learnt which words are common.",
      "It cannot read lines or pages: its one view is a small square with one word, and a whole "
      "page scaled into that square is a grey smudge. The pages below are shown as they come out. "
      "Reading pages needs the full views (1024 and 768 pixels), more data and GPUs: the "
      "full-size recipes have the papers' schedules."};
}

std::filesystem::path stage_folder(const std::filesystem::path& folder, int stage) {
  return folder / fmt::format("stage{}", stage);
}

}  // namespace

ReportData quickstart_report(const std::filesystem::path& folder) {
  ReportData data;
  data.title = "lectern quickstart";
  const std::filesystem::path start = starting_model(folder);
  const bool from_nothing = start.empty();
  data.history = history_of(start);
  double seconds = 0;
  for (int i = 1; i <= kStages; ++i) {
    ReportStage stage = read_stage(stage_folder(folder, i));
    stage.stage = i;
    stage.name = kStageTexts[i - 1].name;
    stage.trained = kStageTexts[i - 1].trained;
    stage.heldout = read_heldout(folder / "eval" / fmt::format("stage{}", i) / "scores.json");
    seconds += stage.seconds;
    data.stages.push_back(std::move(stage));
  }
  const LoadedModel loaded = load_model_folder(stage_folder(folder, kStages));
  const HeldOut& last = *data.stages.back().heldout;
  data.summary = fmt::format(
      "A DeepSeek-OCR 2 of {} parameters, trained {} through its three stages in {} on this "
      "machine's CPU. It reads {} of {} words of documents that no stage trained on without an "
      "error; character error rate {:.1f} %.",
      format_count(static_cast<double>(loaded.model->store().parameter_count())),
      from_nothing ? "from nothing" : fmt::format("on from {}", start.string()),
      format_duration(seconds), last.exact, last.samples, 100 * last.cer);
  data.facts = {
      {"parameters", format_count(static_cast<double>(loaded.model->store().parameter_count()))},
      {"vocabulary", std::to_string(loaded.tokenizer.vocab_size())},
      {"view", fmt::format("{0} x {0} pixels", loaded.model->config().reading.global_size)},
      {"tokens of a view", fmt::format("{} + 1", loaded.model->config().decoder_tokens(
                                                     loaded.model->config().reading.global_size))}};
  if (const auto before = folder / "eval" / "start" / "scores.json";
      std::filesystem::exists(before))
    data.facts.emplace_back("at the start",
                            fmt::format("{:.1f} % of the characters of these words wrong",
                                        100 * read_heldout(before).cer));
  data.samples = read_samples(folder / "eval" / "stage3", kWordsShown, false);
  for (ReportSample& page : read_samples(folder / "eval" / "pages", 3, true))
    data.samples.push_back(std::move(page));
  data.token_budget = token_budget(folder, loaded.tokenizer);
  data.exports = exports(folder);
  const std::string model = (folder / "stage3").string();
  data.next = {{"Read a picture with this model",
                fmt::format("build/lectern ocr --checkpoint {} picture.png", model)},
               {"Train longer",
                fmt::format("build/lectern train quickstart{}/stage1 --set steps=20000 --set "
                            "run_dir=out/longer",
                            from_nothing ? "" : "-nano")},
               {"Full size: the papers' three stages",
                fmt::format("build/lectern train {}/stage1", families().front().name)},
               {"Watch the curves", fmt::format("tensorboard --logdir {}", folder.string())}};
  data.limits = limits(from_nothing);
  return data;
}

nlohmann::ordered_json quickstart_metrics(const std::filesystem::path& folder) {
  nlohmann::ordered_json stages = nlohmann::ordered_json::array();
  HeldOut heldout;
  for (int i = 1; i <= kStages; ++i) {
    const ReportStage stage = read_stage(stage_folder(folder, i));
    heldout = read_heldout(folder / "eval" / fmt::format("stage{}", i) / "scores.json");
    if (stage.loss.value.empty())
      fail<IoError>(fmt::format("{}: has no losses", stage_folder(folder, i).string()));
    stages.push_back({{"stage", i},
                      {"steps", stage.steps},
                      {"loss_first", stage.loss.value.front()},
                      {"loss_last", stage.loss.value.back()},
                      {"seconds", stage.seconds},
                      {"samples_per_second", stage.seconds > 0 ? stage.samples / stage.seconds : 0},
                      {"heldout_cer", heldout.cer}});
  }
  return {{"stages", stages},
          {"heldout",
           {{"pages", heldout.samples},
            {"edit_distance", heldout.edit_distance},
            {"cer", heldout.cer},
            {"repetition_rate", heldout.repetition_rate}}},
          {"export", {{"format", "hf"}, {"path", (folder / "export" / "hf").string()}}}};
}

}  // namespace lectern
