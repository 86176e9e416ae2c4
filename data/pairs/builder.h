// Pictures with answers, as people have them -> shards (data/shards/shard.h): OUT/train,
// OUT/validation, OUT/tokenizer.json, OUT/dropped.jsonl and OUT/manifest.json.
//
// Inputs are read as streams, twice or three times: to learn what they hold and which documents
// there are, and once for each split. What is held in memory of each record are sixteen bytes of
// hash for its content, its picture and its document, and the records of one shard. A build that
// was interrupted goes on behind its last whole shard and gives the same bytes.
//
// manifest.json: {"format": "lectern-pairs", "version": 1, "inputs_sha256", "settings",
//   "tokenizer": {"source", "sha256", "tokens"},
//   "inputs": [{"file", "split", "is", "forms": {form: records}, "kept"}],
//   "splits": {"train": {"records", "pictures", "boxes", "documents", "tokens", "bytes",
//                        "shards": [{"file", "sha256", "bytes", "pages"}]}, "validation": ...},
//   "grouped_by", "dropped": {reason: {"records", "first"}}, "notes": {note: records}}
// dropped.jsonl: a line a record: {"file", "line" (not of a folder), "reason", "detail"}
#pragma once

#include "data/images/views.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

/// How a model takes a record: by it those that are too long are dropped.
struct PairModel {
  ViewOptions view;
  std::int64_t positions = 0;   // that its decoder has
  std::int64_t vocabulary = 0;  // ids that it has
  bool has_begin = true;        // a begin token stands before the picture
};

struct PairProgress {
  bool is_listing = false;  // the first reading, which finds documents; `total` is not known
  std::int64_t done = 0, total = 0;  // records
  double seconds = 0;                // of this process
  std::int64_t done_before = 0;      // by a process that was interrupted
};

struct PairBuildOptions {
  std::vector<std::filesystem::path> inputs;      // JSON lines, JSON lists, folders
  std::vector<std::filesystem::path> validation;  // the same, for validation alone
  std::filesystem::path tokenizer;
  std::filesystem::path out;
  std::optional<PairModel> model;
  /// Of pictures that come without one, as their records say it; "": the reader's own, which is
  /// stored as none at all.
  std::string prompt;
  std::string own_prompt = "<image>\nFree OCR.";  // the reader's, for lengths and its line break
  /// A key of the records by which they belong together.
  std::string group_by;
  /// What a document is where there is no group_by: "picture" (a PDF, or a picture without the page
  /// number of its name), "folder", or "auto": folders when there are ten or more and none has more
  /// than a fifth of the records.
  std::string documents = "auto";
  /// About this share of the records is for training; whole documents make up the rest. 1: all.
  double train_share = 1;
  std::uint64_t seed = 0;              // of the split
  double dots_per_inch = 144;          // of pages of PDFs
  std::int64_t records_per_shard = 0;  // 0: as many as fit into shard_bytes
  std::int64_t shard_bytes = std::int64_t{64} << 20;
  std::function<void(const PairProgress&)> progress;
};

struct PairInputSummary {
  std::string file, split, is;                // "a folder"
  std::map<std::string, std::int64_t> forms;  // records of each
  std::int64_t records = 0, kept = 0;
};

struct PairSplitSummary {
  std::string name;
  std::int64_t records = 0, pictures = 0, boxes = 0, documents = 0, tokens = 0, shards = 0,
               bytes = 0;
};

struct PairDrops {
  std::int64_t records = 0;
  std::string first;  // "mine.jsonl, line 3: answer must not be empty"
};

struct PairBuildSummary {
  bool up_to_date = false;
  std::int64_t went_on_after = 0;  // shards of an interrupted build that were taken over
  std::vector<PairInputSummary> inputs;
  std::vector<PairSplitSummary> splits;
  std::string grouped_by;                    // in words
  std::map<std::string, PairDrops> dropped;  // by reason
  std::map<std::string, std::int64_t> notes;
  double seconds = 0;

  std::int64_t dropped_records() const;
};

/// Makes `out` anew, beside its old content (in <out>.partial) until it is whole, and leaves it
/// alone when it was made from the same inputs, pictures, tokenizer and settings. A record that
/// cannot be used is dropped and listed. Throws ConfigError on unusable options (a share that there
/// are too few documents for, a folder `out` that holds something else), IoError when an input
/// cannot be read or has nothing that can be used, when `out` cannot be written, and when another
/// process makes it; what was done until then is taken up by the next call.
PairBuildSummary build_pairs(const PairBuildOptions& options);

}  // namespace lectern
