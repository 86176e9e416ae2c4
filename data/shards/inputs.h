// What a shard build reads: which pages there are, of which documents. Private to this room.
#pragma once

#include "data/pages/list.h"
#include "data/shards/builder.h"

#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace lectern::detail {

struct PageFile {
  std::filesystem::path path;  // .json
  std::string document;
};

struct ShardInputs {
  std::vector<PageFile> files;                     // in an order that mixes documents
  std::map<std::string, DocumentEntry> documents;  // as far as pages.json knows them
  std::vector<DroppedShardPage> dropped;           // could not even be listed
  std::int64_t dropped_before = 0;                 // by `data pages`
  std::string fingerprint;  // of names, sizes and times of all files, tokenizer and settings
};

/// Throws IoError when a folder cannot be read or holds no page.
ShardInputs find_inputs(const ShardBuildOptions& options, const std::string& tokenizer_sha256);

struct HeldOut {
  std::set<std::string> documents;        // whole
  std::set<std::filesystem::path> pages;  // of the only document there is

  bool contains(const PageFile& file) const {
    return documents.contains(file.document) || pages.contains(file.path);
  }
};

/// What is kept for validation. Throws ConfigError when a document is not among the inputs, and
/// when a share is asked for of a single page.
HeldOut choose_validation(const ShardBuildOptions& options, const ShardInputs& inputs);

}  // namespace lectern::detail
