// lectern data shards: pages -> HDF5 shards.
#include "data/shards/builder.h"
#include "recipes/commands/command.h"
#include "recipes/log/progress.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>

namespace lectern::commands {
namespace {

using nlohmann::json;

constexpr std::size_t kListed = 20;  // dropped pages on the screen; all are in the manifest

struct ShardArguments {
  ShardBuildOptions options;
  std::vector<std::string> pages;
  std::string tokenizer, out;
  bool json = false;
};

json to_json(const ShardBuildSummary& summary, const std::string& out) {
  json splits = json::object(), dropped = json::array();
  for (const SplitSummary& split : summary.splits)
    splits[split.name] = {{"documents", split.documents}, {"pages", split.pages},
                          {"lines", split.lines},         {"words", split.words},
                          {"tokens", split.tokens},       {"shards", split.shards},
                          {"bytes", split.bytes}};
  for (const DroppedShardPage& page : summary.dropped)
    dropped.push_back({{"page", page.page}, {"reason", page.reason}});
  return {{"out", out},
          {"up_to_date", summary.up_to_date},
          {"shares_document", summary.shares_document},
          {"splits", std::move(splits)},
          {"dropped", std::move(dropped)},
          {"seconds", summary.seconds}};
}

void print(const ShardBuildSummary& summary, const std::string& out, bool wants_validation) {
  if (summary.up_to_date)
    fmt::print("{}: up to date\n", out);
  else
    fmt::print("{}: written in {:.1f} s\n", out, summary.seconds);
  for (const SplitSummary& split : summary.splits)
    fmt::print(
        "{:<10}  {} pages of {} documents, {} lines, {} words, {} tokens; {} shards, {:.1f} "
        "MiB\n",
        split.name, split.pages, split.documents, split.lines, split.words, split.tokens,
        split.shards, static_cast<double>(split.bytes) / (1 << 20));
  if (wants_validation && summary.splits.size() < 2)
    fmt::print(
        "validation  none: whole documents are held out, and there are too few for this --split; "
        "add documents, or name some with --validation-documents\n");
  if (summary.shares_document)
    fmt::print(
        "validation  other pages of the one document there is: easier to read than a document that "
        "training has nothing of; add documents to hold out a whole one\n");
  if (summary.dropped.empty()) return;
  fmt::print("dropped     {} pages:\n", summary.dropped.size());
  for (std::size_t i = 0; i < std::min(summary.dropped.size(), kListed); ++i)
    fmt::print("  {}: {}\n", summary.dropped[i].page, summary.dropped[i].reason);
  if (summary.dropped.size() > kListed)
    fmt::print("  ... and {} more, listed in {}/manifest.json\n", summary.dropped.size() - kListed,
               out);
}

void run_shards(ShardArguments& arguments) {
  ShardBuildOptions& options = arguments.options;
  options.pages.assign(arguments.pages.begin(), arguments.pages.end());
  options.tokenizer = arguments.tokenizer;
  options.out = arguments.out;
  double next = 2;
  options.progress = [&](const ShardProgress& progress) {
    if (progress.seconds < next) return;
    next = progress.seconds + 2;
    const double speed = static_cast<double>(progress.done) / std::max(progress.seconds, 1e-9);
    fmt::print(stderr, "pages {}/{}  {:.1f} pages/s  left {}\n", progress.done, progress.total,
               speed, format_duration(static_cast<double>(progress.total - progress.done) / speed));
  };
  const ShardBuildSummary summary = build_shards(options);
  if (arguments.json)
    fmt::print("{}\n", to_json(summary, arguments.out)
                           .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  else
    print(summary, arguments.out, options.train_share < 1);
}

}  // namespace

void add_data_shards(Command data) {
  auto arguments = std::make_shared<ShardArguments>();
  ShardBuildOptions& options = arguments->options;
  Command command = data.add_subcommand(
      "shards", "Folders of pages -> HDF5 shards OUT/train, OUT/validation and a manifest");
  command.add_option("--pages", arguments->pages, "Folders that `data pages` wrote").required();
  command.add_option("--tokenizer", arguments->tokenizer, "tokenizer.json").required();
  command.add_option("--out", arguments->out, "Folder of shards, made anew").required();
  command.add_option("--validation-documents", options.validation_documents,
                     "Ids of documents that training must not see");
  command
      .add_option(
          "--split", options.train_share,
          "Share of the pages for training; whole documents make up the rest, or pages of the "
          "only one")
      .show_default();
  command.add_option("--seed", options.seed, "Of the split and of the order of pages")
      .show_default();
  command
      .add_option("--pages-per-shard", options.pages_per_shard,
                  "0: as many as make a file of about 64 MiB")
      .show_default();
  command.add_flag("--json", arguments->json, "Print one JSON object");
  command.callback([arguments] { run_shards(*arguments); });
}

}  // namespace lectern::commands
