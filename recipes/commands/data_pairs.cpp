// lectern data pairs: pictures with answers -> HDF5 shards.
#include "core/error.h"
#include "core/io/file.h"
#include "data/pairs/builder.h"
#include "data/pairs/sheet.h"
#include "nn/families.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/commands/command.h"
#include "recipes/log/progress.h"
#include "recipes/read/reader.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

namespace lectern::commands {
namespace {

using nlohmann::json;

struct PairArguments {
  PairBuildOptions options;
  std::vector<std::string> inputs, validation;
  std::string checkpoint, tokenizer, out, sheet;
  PairSheetOptions look;
  bool json = false;
};

/// Tokenizer, prompt and limits: of a model, or of a tokenizer alone without limits.
void choose_model(PairArguments& arguments) {
  PairBuildOptions& options = arguments.options;
  options.tokenizer = arguments.tokenizer;
  if (arguments.checkpoint.empty() == arguments.tokenizer.empty())
    fail<ConfigError>(fmt::format(
        "data pairs: needs --checkpoint (a model, by which lengths are checked, too) or "
        "--tokenizer, got {}",
        arguments.checkpoint.empty() ? "neither" : "both"));
  if (arguments.checkpoint.empty()) return;
  const std::filesystem::path folder = resolve_model_folder(arguments.checkpoint);
  options.tokenizer = folder / "tokenizer.json";
  const std::unique_ptr<ModelConfig> config = read_model_config(folder / "config.json");
  check_tokenizer(Tokenizer::load(options.tokenizer), *config, options.tokenizer.string());
  options.own_prompt = config->reading.prompt;
  options.model = PairModel{.view = view_options(*config),
                            .positions = config->decoder.max_position_embeddings,
                            .vocabulary = config->decoder.vocab_size,
                            .has_begin = config->decoder.bos_token_id >= 0};
}

json to_json(const PairBuildSummary& summary, const std::string& out) {
  json inputs = json::array(), splits = json::object(), dropped = json::object();
  for (const PairInputSummary& each : summary.inputs)
    inputs.push_back({{"file", each.file},
                      {"split", each.split},
                      {"is", each.is},
                      {"forms", each.forms},
                      {"records", each.records},
                      {"kept", each.kept}});
  for (const PairSplitSummary& each : summary.splits)
    splits[each.name] = {{"records", each.records}, {"pictures", each.pictures},
                         {"boxes", each.boxes},     {"documents", each.documents},
                         {"tokens", each.tokens},   {"shards", each.shards},
                         {"bytes", each.bytes}};
  for (const auto& [reason, drops] : summary.dropped)
    dropped[reason] = {{"records", drops.records}, {"first", drops.first}};
  return {{"out", out},
          {"up_to_date", summary.up_to_date},
          {"went_on_after_shards", summary.went_on_after},
          {"inputs", std::move(inputs)},
          {"grouped_by", summary.grouped_by},
          {"splits", std::move(splits)},
          {"dropped", std::move(dropped)},
          {"notes", summary.notes},
          {"seconds", summary.seconds}};
}

void print_inputs(const PairBuildSummary& summary) {
  for (const PairInputSummary& input : summary.inputs) {
    std::string forms;
    for (const auto& [form, records] : input.forms)
      forms += fmt::format("{}{} {}", forms.empty() ? "" : ", ", records, form);
    fmt::print("{}: {} of {} records ({}); {} kept\n", input.file, input.is, input.records, forms,
               input.kept);
  }
}

void print_splits(const PairBuildSummary& summary, const PairBuildOptions& options) {
  for (const PairSplitSummary& split : summary.splits)
    fmt::print(
        "{:<10}  {} records of {} documents, {} with pictures, {} boxes, {} tokens; {} shards, "
        "{:.1f} MiB\n",
        split.name, split.records, split.documents, split.pictures, split.boxes, split.tokens,
        split.shards, static_cast<double>(split.bytes) / (1 << 20));
  const bool wants_validation = options.train_share < 1 || !options.validation.empty();
  if (wants_validation && summary.splits.size() < 2)
    fmt::print("validation  none: nothing of it is left\n");
  if (options.train_share < 1) fmt::print("split       by {}\n", summary.grouped_by);
  for (const auto& [note, records] : summary.notes)
    fmt::print("note        {} ({} records)\n", note, records);
  if (!options.model)
    fmt::print(
        "note        lengths were not checked: only a model (--checkpoint) says how many "
        "positions there are\n");
}

void print(const PairBuildSummary& summary, const PairArguments& arguments) {
  if (summary.went_on_after > 0)
    fmt::print("went on after {} shards of an interrupted call\n", summary.went_on_after);
  if (summary.up_to_date)
    fmt::print("{}: up to date\n", arguments.out);
  else
    fmt::print("{}: written in {:.1f} s\n", arguments.out, summary.seconds);
  print_inputs(summary);
  print_splits(summary, arguments.options);
  if (summary.dropped.empty()) return;
  fmt::print("dropped     {} records, listed in {}/dropped.jsonl:\n", summary.dropped_records(),
             arguments.out);
  for (const auto& [reason, drops] : summary.dropped)
    fmt::print("  {:>7}  {}\n           such as {}\n", drops.records, reason, drops.first);
}

void show_progress(const PairProgress& progress, double& next) {
  constexpr double kSecondsBetween = 2;
  if (progress.seconds < next) return;
  next = progress.seconds + kSecondsBetween;
  if (progress.is_listing) return fmt::print(stderr, "listing: {} records\n", progress.done);
  const double speed =
      static_cast<double>(progress.done - progress.done_before) / std::max(progress.seconds, 1e-9);
  fmt::print(
      stderr, "records {}/{}  {:.1f} records/s  left {}\n", progress.done, progress.total, speed,
      format_duration(static_cast<double>(progress.total - progress.done) / std::max(speed, 1e-9)));
}

void run_pairs(PairArguments& arguments) {
  PairBuildOptions& options = arguments.options;
  choose_model(arguments);
  options.inputs.assign(arguments.inputs.begin(), arguments.inputs.end());
  options.validation.assign(arguments.validation.begin(), arguments.validation.end());
  options.out = arguments.out;
  double next = 2;
  options.progress = [&](const PairProgress& progress) { show_progress(progress, next); };
  const PairBuildSummary summary = build_pairs(options);
  if (arguments.json)
    fmt::print("{}\n", to_json(summary, arguments.out)
                           .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  else
    print(summary, arguments);
  if (arguments.sheet.empty()) return;
  arguments.look.own_prompt = options.own_prompt;
  write_png(pair_sheet(options.out / "train", arguments.look), arguments.sheet);
}

}  // namespace

void add_data_pairs(Command data) {
  auto arguments = std::make_shared<PairArguments>();
  PairBuildOptions& options = arguments->options;
  Command command = data.add_subcommand(
      "pairs", "Pictures with answers -> HDF5 shards OUT/train, OUT/validation and a manifest");
  command
      .add_option("INPUT", arguments->inputs,
                  "JSON lines or a JSON list of records (image and text, messages, "
                  "conversations), or folders with name.png, .jpg or .pdf beside name.md or .txt")
      .required();
  command.add_option("--out", arguments->out, "Folder of shards, made anew").required();
  command.add_option("--checkpoint", arguments->checkpoint,
                     "Model, checkpoint or run folder that is to learn them: its tokenizer, "
                     "prompt, views and positions");
  command.add_option("--tokenizer", arguments->tokenizer,
                     "tokenizer.json, in place of a model; lengths are not checked then");
  command.add_option("--prompt", options.prompt,
                     "Of pictures whose records have none, stored with them; default: the "
                     "model's own, or its recipe's");
  command
      .add_option("--split", options.train_share,
                  "Share of the records for training; whole documents make up the rest")
      .show_default();
  command.add_option("--validation", arguments->validation,
                     "Inputs for validation, in place of --split");
  command.add_option("--group-by", options.group_by,
                     "Key of the records: those of one value are never split");
  command
      .add_option("--documents", options.documents,
                  "What is never split without --group-by: a picture (or PDF), or a folder of "
                  "pictures; auto: folders when there are ten or more and all are small")
      .one_of({"auto", "picture", "folder"});
  command.add_option("--seed", options.seed, "Of the split").show_default();
  command.add_option("--dpi", options.dots_per_inch, "At which pages of PDFs are drawn")
      .show_default();
  command
      .add_option("--records-per-shard", options.records_per_shard,
                  "0: as many as make a file of about 64 MiB")
      .show_default();
  command.add_option("--contact-sheet", arguments->sheet,
                     "One PNG of training records: pictures with boxes, prompts and answers");
  command.add_option("--sheet-records", arguments->look.records, "Of the contact sheet")
      .range(1, 1000);
  command.add_option("--columns", arguments->look.columns, "Of the contact sheet").range(1, 16);
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.callback([arguments] { run_pairs(*arguments); });
}

}  // namespace lectern::commands
