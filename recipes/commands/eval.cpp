// lectern eval: reads samples of shards and scores them.
#include "core/error.h"
#include "core/io/file.h"
#include "core/io/folder_lock.h"
#include "core/parallel.h"
#include "data/samples/cut.h"
#include "data/samples/pairs.h"
#include "data/text/utf8.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/commands/command.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/machine/device.h"
#include "recipes/read/piece_reader.h"
#include "recipes/recipe/recipe.h"
#include "recipes/report/evaluation.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <system_error>

namespace lectern::commands {
namespace {

namespace fs = std::filesystem;

struct EvalOptions {
  std::string checkpoint, adapter, shards, out, level = "page", dtype = "fp32", device = "cpu";
  EvaluationArgs evaluation;
  CutOptions source;
  SampleOptions samples;
  std::int64_t max_tokens = 0, threads = 0;
  bool json = false, by_pieces = false, by_page = false, overwrite = false;
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

/// Everything that eval writes into its folder, and what scripts/eval-beside-tesseract.sh adds.
constexpr const char* kOwnEntries[] = {"pred",         "gt",          "images",      "samples.tsv",
                                       "samples.json", "scores.json", "report.html", "tesseract"};

/// The folder of --out: whole when everything is written, else as it was. Leftovers of another
/// evaluation would be scored with this one's, so a used folder is refused unless the user has
/// eval's own files replaced.
class OutFolder {
 public:
  /// Throws ConfigError for a used folder, IoError when nothing can be written there or another
  /// process is at it.
  OutFolder(const fs::path& folder, bool overwrite) : folder_(folder) {
    std::error_code error;
    was_there_ = fs::exists(folder_, error);
    if (was_there_ && !fs::is_directory(folder_, error))
      fail<ConfigError>(fmt::format("--out: {}: must be a folder", folder_.string()));
    fs::create_directories(folder_, error);
    if (error)
      fail<IoError>(fmt::format("--out: {}: must be a folder that can be written, got: {}",
                                folder_.string(), error.message()));
    lock_.emplace(folder_, "lectern eval");
    check_use(overwrite);
    fs::remove_all(staging(), error);  // of one that was killed
    fs::create_directories(staging());
  }
  ~OutFolder() {
    std::error_code ignored;
    fs::remove_all(staging(), ignored);
    lock_.reset();
    if (!was_there_) fs::remove(folder_, ignored);  // when it is empty
  }
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

  fs::path staging() const { return folder_ / kStaging; }

  /// Puts what was written into staging() in place of what was there.
  void commit() {
    for (const char* name : kOwnEntries) fs::remove_all(folder_ / name);
    for (const char* name : kOwnEntries)
      if (fs::exists(staging() / name)) fs::rename(staging() / name, folder_ / name);
    was_there_ = true;
  }

 private:
  static constexpr const char *kStaging = ".eval.tmp", *kLock = ".lectern-lock";

  void check_use(bool overwrite) const {
    std::error_code error;
    for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
      const std::string name = at->path().filename().string();
      if (name == kStaging || name == kLock) continue;
      if (!overwrite)
        fail<ConfigError>(
            fmt::format("--out: {}: must be a new or empty folder, got one with {}; --overwrite "
                        "replaces the files of another evaluation",
                        folder_.string(), name));
      if (std::find(std::begin(kOwnEntries), std::end(kOwnEntries), name) == std::end(kOwnEntries))
        fail<ConfigError>(
            fmt::format("--out: {}: must hold nothing but files of another evaluation, got {}",
                        folder_.string(), name));
    }
    if (error)
      fail<IoError>(
          fmt::format("--out: {}: cannot be listed: {}", folder_.string(), error.message()));
  }

  fs::path folder_;
  std::optional<FolderLock> lock_;
  bool was_there_ = true;
};

/// Whether the run that the checkpoint is of says that it trained on these shards. It need not know
/// of all training: a run goes on from the weights of others.
bool is_known_to_have_trained_on(const fs::path& checkpoint, const fs::path& shards) {
  std::error_code ignored;
  for (const fs::path& run : {checkpoint, checkpoint / ".." / ".."}) {
    if (!fs::exists(run / "config.toml", ignored)) continue;
    try {
      const Recipe recipe = load_recipe(run / "config.toml");
      for (const std::string& trained : recipe.data.shards)
        if (fs::equivalent(trained, shards, ignored)) return true;
    } catch (const Error&) {  // of another version, or no recipe: then nothing is known
    }
  }
  return false;
}

void write_samples(const fs::path& folder, const EvaluationResult& result,
                   const EvalOptions& options) {
  for (const char* part : {"pred", "gt", "images"}) fs::create_directories(folder / part);
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
    table += fmt::format("{}\t{}\t{}\n", options.level, stem, lossy_utf8(sample.document));
  }
  write_file(folder / "samples.tsv", table);
  write_file(folder / "samples.json",
             list.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
  write_file(folder / "scores.json", result_json(result, options, true) + "\n");
  write_file(folder / "report.html",
             render_evaluation(result,
                               {.level = options.level,
                                .model = options.checkpoint,
                                .shards = options.shards,
                                .was_trained_on = is_known_to_have_trained_on(options.checkpoint,
                                                                              options.shards)},
                               folder / "images"));
}

/// Whole pages are read as the model's configuration says, or the user; pairs as they are trained,
/// the whole picture in a view, unless the user wants pieces.
void choose_reading(const ReadingSettings& settings, bool holds_pairs, EvalOptions& options) {
  const bool is_page = options.level == "page";
  if (options.by_pieces && !is_page)
    fail<ConfigError>(
        fmt::format("eval: --level must be page with --pieces, got {}", options.level));
  EvaluationArgs& args = options.evaluation;
  args.by_pieces =
      is_page && (options.by_pieces || (settings.by_pieces && !options.by_page && !holds_pairs));
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

void print_scores(const EvaluationResult& result, const EvalOptions& options) {
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

/// Pieces of pages, or the pictures of pairs.
std::shared_ptr<const SampleSource> source_of(const EvalOptions& options,
                                              const Tokenizer& tokenizer) {
  if (!options.source.shards->holds_pairs()) return make_cut_source(options.source, tokenizer);
  if (options.level != "page")
    fail<ConfigError>(
        fmt::format("--level: must be left out for {}, which holds pairs of a picture and an "
                    "answer; got {}",
                    options.shards, options.level));
  return make_pair_source({.shards = options.source.shards,
                           .prompt = options.source.prompt,
                           .max_response_tokens = options.source.max_response_tokens,
                           .pictures_only = true},
                          tokenizer);
}

void run_eval(EvalOptions& options) {
  std::optional<OutFolder> out;
  if (!options.out.empty()) out.emplace(options.out, options.overwrite);
  if (options.threads > 0) set_thread_count(static_cast<int>(options.threads));
  const Device device = use_device(options.device);
  const LoadedModel loaded =
      load_model_folder(options.checkpoint, weight_dtype(options.dtype), options.adapter);
  loaded.to(device);
  const ModelConfig& config = loaded.model->config();
  options.source.shards = std::make_shared<const ShardSet>(options.shards);
  options.source.level = level_from(options.level);
  options.source.prompt = config.reading.prompt;
  options.samples.views = {view_options(config)};
  options.samples.begin_token = static_cast<std::int32_t>(config.decoder.bos_token_id);
  options.samples.end_token = static_cast<std::int32_t>(config.decoder.eos_token_id);
  options.samples.image_token = static_cast<std::int32_t>(config.image_token_id);
  lay_as_trained(config.reading, options);
  const bool holds_pairs = options.source.shards->holds_pairs();
  const SampleSet samples({{source_of(options, loaded.tokenizer)}}, options.samples);
  choose_reading(config.reading, holds_pairs, options);
  if (holds_pairs) options.level = "pair";
  const EvaluationResult result = evaluate(*loaded.model, loaded.tokenizer, samples,
                                           options.evaluation, [&](std::int64_t done) {
                                             if (done % 100 == 0)
                                               tell(fmt::format("read {}", done));
                                           });
  print_scores(result, options);  // first: they are not lost when the folder cannot be written
  if (!out) return;
  write_samples(out->staging(), result, options);
  out->commit();
}

}  // namespace

void add_eval(Command app) {
  auto options = std::make_shared<EvalOptions>();
  Command command = app.add_subcommand("eval", "read samples of shards and score them");
  command.add_option("--checkpoint", options->checkpoint, "model, checkpoint or run folder")
      .required();
  command.add_option("--adapter", options->adapter,
                     "low-rank adapter to read with: a run that trained one, or a PEFT folder");
  command
      .add_option("--shards", options->shards,
                  "folder made by `lectern data shards` or `data pairs`")
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
                     "write predictions, truths, pictures, scores and a report into this new or "
                     "empty folder");
  command.add_flag("--overwrite", options->overwrite,
                   "replace another evaluation in the folder of --out");
  command.add_option("--device", options->device, "cpu or cuda").one_of({"cpu", "cuda"});
  command.add_option("--dtype", options->dtype, "of the weights: fp32 or bf16")
      .one_of({"fp32", "bf16"});
  command.add_option("--threads", options->threads, "CPU threads; 0: all cores");
  command.add_flag("--json", options->json, "print one JSON object");
  command.callback([options] { run_eval(*options); });
}

}  // namespace lectern::commands
