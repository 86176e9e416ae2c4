// lectern eval: reads held-out samples and scores them.
#include "core/error.h"
#include "core/io/file.h"
#include "core/parallel.h"
#include "data/samples/cut.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/commands/command.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/machine/device.h"
#include "recipes/read/piece_reader.h"
#include "recipes/recipe/recipe.h"
#include "recipes/report/evaluation.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <memory>
#include <optional>

namespace lectern::commands {
namespace {

struct EvalOptions {
  std::string checkpoint, shards, out, level = "page", dtype = "fp32", device = "cpu";
  EvaluationArgs evaluation;
  CutOptions source;
  SampleOptions samples;
  std::int64_t max_tokens = 0, threads = 0;
  bool json = false, by_pieces = false, by_page = false;
  std::optional<std::int64_t> text_height, margin;
};

/// Scores as `lectern eval` prints them, split by document.
std::string result_json(const EvaluationResult& result, const EvalOptions& options,
                        bool with_pages) {
  auto out = nlohmann::ordered_json::parse(scores_json(result.scores, with_pages));
  out["level"] = options.level;
  out["documents"] = nlohmann::ordered_json::array();
  for (const auto& [document, scores] : scores_by_document(result))
    out["documents"].push_back({{"document", document},
                                {"pieces", scores.pages.size()},
                                {"cer", scores.cer},
                                {"edit_distance", scores.edit_distance},
                                {"repetition_rate", scores.repetition_rate},
                                {"exact", scores.exact}});
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string document_table(const EvaluationResult& result) {
  const auto row = [](const std::string& name, const Scores& scores) {
    return fmt::format("{:<32} {:>6}  {:>7.4f}  {:>13.4f}  {:>10.4f}  {:>5}\n", name,
                       scores.pages.size(), scores.cer, scores.edit_distance,
                       scores.repetition_rate, scores.exact);
  };
  std::string out = fmt::format("{:<32} {:>6}  {:>7}  {:>13}  {:>10}  {:>5}\n", "document",
                                "pieces", "CER", "edit distance", "repetition", "exact");
  for (const auto& [document, scores] : scores_by_document(result)) out += row(document, scores);
  return out + row("all", result.scores);
}

void write_samples(const std::filesystem::path& folder, const EvaluationResult& result,
                   const EvalOptions& options) {
  std::filesystem::create_directories(folder / "pred");
  std::filesystem::create_directories(folder / "gt");
  std::filesystem::create_directories(folder / "images");
  nlohmann::json list = nlohmann::json::array();
  std::string table = "level\tstem\tdocument\n";
  for (std::size_t i = 0; i < result.samples.size(); ++i) {
    const ReadSample& sample = result.samples[i];
    const std::string stem = fmt::format("{:05}", i);
    write_file(folder / "pred" / (stem + ".txt"), sample.read);
    write_file(folder / "gt" / (stem + ".txt"), sample.truth);
    write_png(sample.picture, folder / "images" / (stem + ".png"));
    list.push_back({{"stem", stem},
                    {"name", sample.name},
                    {"document", sample.document},
                    {"truth", sample.truth},
                    {"read", sample.read}});
    table += fmt::format("{}\t{}\t{}\n", options.level, stem, sample.document);
  }
  write_file(folder / "samples.tsv", table);
  write_file(folder / "samples.json", list.dump(1) + "\n");
  write_file(folder / "scores.json", result_json(result, options, true) + "\n");
  write_file(folder / "report.html",
             render_evaluation(result, options.level, options.checkpoint, folder / "images"));
}

/// Whole pages are read as the model's configuration says, or the user.
void choose_reading(const ReadingSettings& settings, EvalOptions& options) {
  const bool is_page = options.level == "page";
  if (options.by_pieces && !is_page)
    fail<ConfigError>(
        fmt::format("eval: --level must be page with --pieces, got {}", options.level));
  EvaluationArgs& args = options.evaluation;
  args.by_pieces = is_page && (options.by_pieces || (settings.by_pieces && !options.by_page));
  args.reader.max_new_tokens = options.max_tokens > 0 ? options.max_tokens
                               : args.by_pieces       ? kPieceTokens
                                                      : args.reader.max_new_tokens;
  if (args.by_pieces) args.reader.batch = kPiecesAtOnce;
}

/// Words, lines and regions lie in the view as the model's pieces do.
void lay_as_trained(const ReadingSettings& settings, EvalOptions& options) {
  SampleOptions& samples = options.samples;
  if (settings.by_pieces) {
    samples.margin = settings.piece_margin;
    samples.text_height = settings.piece_text_height;
    samples.at_top = settings.piece_at_top;
  }
  samples.margin = options.margin.value_or(samples.margin);
  samples.text_height = options.text_height.value_or(samples.text_height);
}

void run_eval(EvalOptions& options) {
  if (options.threads > 0) set_thread_count(static_cast<int>(options.threads));
  const Device device = use_device(options.device);
  const LoadedModel loaded = load_model_folder(options.checkpoint, weight_dtype(options.dtype));
  loaded.model->store().to(device);
  const ModelConfig& config = loaded.model->config();
  options.source.shards = std::make_shared<const ShardSet>(options.shards);
  options.source.level = level_from(options.level);
  options.source.prompt = config.reading.prompt;
  options.samples.views = {view_options(config)};
  options.samples.begin_token = static_cast<std::int32_t>(config.decoder.bos_token_id);
  options.samples.end_token = static_cast<std::int32_t>(config.decoder.eos_token_id);
  options.samples.image_token = static_cast<std::int32_t>(config.image_token_id);
  lay_as_trained(config.reading, options);
  const SampleSet samples({{make_cut_source(options.source, loaded.tokenizer)}}, options.samples);
  choose_reading(config.reading, options);
  const EvaluationResult result = evaluate(*loaded.model, loaded.tokenizer, samples,
                                           options.evaluation, [&](std::int64_t done) {
                                             if (done % 100 == 0)
                                               fmt::print(stderr, "read {}\n", done);
                                           });
  if (!options.out.empty()) write_samples(options.out, result, options);
  if (options.json) {
    fmt::print("{}\n", result_json(result, options, false));
    return;
  }
  fmt::print("{}\n", document_table(result));
  const Scores& s = result.scores;
  fmt::print(
      "pages                 {}\nexact                 {}\ncharacter error rate  {:.4f}\n"
      "edit distance         {:.4f}\nword precision        {:.4f}\n"
      "word recall           {:.4f}\nword F1               {:.4f}\n"
      "repetition rate       {:.4f}\nseconds               {:.1f}\n"
      "tokens/s decoded      {:.1f}\n",
      s.pages.size(), s.exact, s.cer, s.edit_distance, s.precision, s.recall, s.f1,
      s.repetition_rate, result.seconds, result.tokens_per_second);
}

}  // namespace

void add_eval(Command app) {
  auto options = std::make_shared<EvalOptions>();
  Command command = app.add_subcommand("eval", "read held-out samples and score them");
  command.add_option("--checkpoint", options->checkpoint, "model, checkpoint or run folder")
      .required();
  command.add_option("--shards", options->shards, "folder made by `lectern data shards`")
      .required();
  command.add_option("--level", options->level, "word, line, region or page")
      .one_of({"word", "line", "region", "page"});
  command.add_option("--samples", options->evaluation.samples, "how many").range(1, 1 << 30);
  command.add_option("--seed", options->evaluation.seed, "which ones");
  command
      .add_option("--max-tokens", options->max_tokens,
                  "longest answer; default: 1024, for a piece of a page 64")
      .range(1, 1 << 20);
  Option pieces = command.add_flag("--pieces", options->by_pieces,
                                   "level page: read runs of words, which are found by their ink; "
                                   "default: as the model's config.json says (read_by)");
  command.add_flag("--whole-pages", options->by_page, "level page: read pages as wholes")
      .excludes(pieces);
  command.add_option("--no-repeat-ngram", options->evaluation.reader.guard.ngram,
                     "forbid repeating n-grams of this length; 0: off");
  command.add_flag("--ascii-only", options->source.ascii_only, "leave out other text");
  command.add_option("--max-characters", options->source.max_characters,
                     "longest word or line; 0: any");
  command
      .add_option("--cut-width", options->source.cut_width,
                  "cut lines between words into runs, regions into windows, of so many pixels")
      .range(0, 1 << 20);
  command.add_option("--region-lines", options->source.region_lines, "most lines of a region")
      .range(1, 1000);
  command.add_option("--text-height", options->text_height,
                     "pixels that words and lines are scaled to, 0: as they are; default: as the "
                     "model reads pieces");
  command.add_option("--margin", options->margin,
                     "pixels left of a word or line; default: as the model reads pieces");
  command.add_option("--out", options->out,
                     "write predictions, truths, pictures, scores and a report");
  command.add_option("--device", options->device, "cpu or cuda").one_of({"cpu", "cuda"});
  command.add_option("--dtype", options->dtype, "of the weights: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command.add_option("--threads", options->threads, "CPU threads; 0: all cores");
  command.add_flag("--json", options->json, "print one JSON object");
  command.callback([options] { run_eval(*options); });
}

}  // namespace lectern::commands
