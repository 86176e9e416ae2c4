// The first reading of all inputs: what they hold, which documents there are, and which of these
// are kept for validation. Private to this room.
#pragma once

#include "data/pairs/builder.h"
#include "data/pairs/item.h"

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace lectern::detail {

/// The inputs of a build, those of validation after the others.
struct PairInput {
  std::filesystem::path path;
  std::string name;  // of its records: the file's, made unique
  bool is_validation = false;
};
std::vector<PairInput> inputs_of(const PairBuildOptions& options);

enum class DocumentRule { key, picture, folder };

/// The id of an item's record, or of the first of its records.
std::string id_of(const PairInput& input, const PairItem& item, std::int64_t number);
/// What it belongs to; its own id for a text without a key.
std::string document_of(const PairItem& item, const std::string& id, DocumentRule rule);

struct PairScan {
  struct Input {
    std::string is;
    std::map<std::string, std::int64_t> forms;
    std::int64_t records = 0;
  };
  std::vector<Input> inputs;
  std::int64_t records = 0;
  std::map<std::string, std::int64_t> notes;
  DocumentRule rule = DocumentRule::picture;
  std::string grouped_by;  // in words
  std::string fingerprint;
  /// High halves of the keys of documents that are kept for validation, ascending.
  std::vector<std::uint64_t> held_out;

  bool holds_out(const std::string& document) const;
};

/// Throws IoError when an input cannot be read, ConfigError when a share is asked for of a single
/// document. `progress` is called with the number of records that were read.
PairScan scan_inputs(const PairBuildOptions& options, const std::vector<PairInput>& inputs,
                     const std::string& tokenizer_sha256,
                     const std::function<void(std::int64_t)>& progress);

/// What reading an input asks of records.
FormOptions form_options(const PairBuildOptions& options);

}  // namespace lectern::detail
