// Folders of pages -> shards: OUT/train/shard-00000.h5 ..., OUT/validation/..., OUT/tokenizer.json
// and OUT/manifest.json.
//
// manifest.json: {"format": "lectern-shards", "version": 1, "inputs": hash of all that was read,
//   "settings", "tokenizer": {"source", "sha256", "tokens"},
//   "splits": {"train": {"documents", "pages", "lines", "words", "tokens", "characters",
//                        "shards": [{"file", "sha256", "bytes", "pages"}]}, "validation": ...},
//   "mixture": [{"document", "source", "sha256", "licence", "split", "pages", "tokens", "share"}],
//   "dropped": [{"page", "reason"}], "dropped_before": pages that `data pages` had dropped}
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct ShardProgress {
  std::int64_t done = 0, total = 0;  // pages, dropped ones included
  double seconds = 0;
};

struct ShardBuildOptions {
  std::vector<std::filesystem::path> pages;  // folders that `data pages` wrote
  std::filesystem::path tokenizer;           // tokenizer.json
  std::filesystem::path out;
  /// Ids of documents that training must not see. At most one of this and train_share is set.
  std::vector<std::string> validation_documents;
  /// About this share of the pages is for training; whole documents, drawn with `seed`, are put
  /// aside for the rest (at least one when there are two). Of an only document it is pages in a row
  /// that are put aside, which is told: they are more like the training pages than another document
  /// would be. 1: none.
  double train_share = 1;
  std::uint64_t seed = 0;            // of the split and of the order of pages
  std::int64_t pages_per_shard = 0;  // 0: as many as fit into shard_bytes
  std::int64_t shard_bytes = std::int64_t{64} << 20;
  std::function<void(const ShardProgress&)> progress;
};

struct DroppedShardPage {
  std::string page;  // path of its .json
  std::string reason;
};

struct SplitSummary {
  std::string name;  // train, validation
  std::int64_t documents = 0, pages = 0, lines = 0, words = 0, tokens = 0, shards = 0, bytes = 0;
};

struct ShardBuildSummary {
  bool up_to_date = false;
  bool shares_document = false;  // validation has other pages of training's only document
  std::vector<SplitSummary> splits;
  std::vector<DroppedShardPage> dropped;
  double seconds = 0;
};

/// Makes `out` anew, beside its old content (in <out>.partial, which one process at a time works
/// in: FolderLock) until it is whole; leaves it alone when it was made from the same pages,
/// tokenizer and settings. A page that cannot be used (broken file, missing picture, no text, a
/// special token in its text) is dropped and listed. Throws ConfigError on unusable options (an
/// unknown document, a share of a single page, a folder `out` that holds something else), IoError
/// when another process makes `out`, a folder or the tokenizer cannot be read, `out` cannot be
/// written, or no page is left.
ShardBuildSummary build_shards(const ShardBuildOptions& options);

}  // namespace lectern
