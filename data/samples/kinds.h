// The kinds of sample sources that a recipe can name, and how a source is made from its table.
//
//   [[data.sources]] --describe--> SourceSettings --open--> SampleSource
//
// Describing reads a recipe without touching a file that it names; opening reads shards and texts.
#pragma once

#include "core/io/record.h"
#include "data/samples/source.h"
#include "data/shards/shard_set.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// What [data] says for all of its sources; a source may say otherwise.
struct SourceDefaults {
  std::string prompt;
  bool ascii_only = false;
  std::int64_t max_characters = 0;   // of a word or line; 0: any
  std::int64_t max_text_tokens = 0;  // longest answer
};

/// Folders of shards, each opened once.
class OpenShards {
 public:
  std::shared_ptr<const ShardSet> open(const std::string& folder);

 private:
  std::map<std::string, std::shared_ptr<const ShardSet>> open_;
};

/// What a source is opened with.
struct SourceContext {
  const Tokenizer& tokenizer;
  OpenShards& shards;
  std::uint64_t seed = 0;  // the source's own
  bool is_read = false;    // by a model that is scored: what has no picture is left out
};

/// Throws ConfigError: "<place>: <key> <message>".
using RefuseKey = std::function<void(std::string_view key, std::string_view message)>;

/// All that a recipe says of one source.
class SourceSettings {
 public:
  virtual ~SourceSettings() = default;
  /// Part of the source's name where the recipe gives none.
  virtual std::string label() const = 0;
  /// The keys of the kind, as describe() of any record (core/io/record.h).
  virtual void describe(FieldVisitor& f, const SourceDefaults& defaults) = 0;
  /// Refuses what the description of a single key cannot.
  virtual void check(const RefuseKey& /*refuse*/) const {}
  /// Files and folders that it reads.
  virtual std::vector<std::filesystem::path> inputs() const = 0;
  /// Throws ConfigError and IoError.
  virtual std::shared_ptr<const SampleSource> open(const SourceContext& context) const = 0;

 protected:
  // The keys that kinds share.
  static void describe_ascii_only(FieldVisitor& f, bool& value, const SourceDefaults& defaults);
  static void describe_max_text_tokens(FieldVisitor& f, std::int64_t& value,
                                       const SourceDefaults& defaults);
  static void describe_shards(FieldVisitor& f, std::string& folder);
};

/// Names of the kinds, in the order of their table.
std::vector<std::string> source_kinds();

/// Settings of a source of `kind`, one of source_kinds(), before they are read.
std::unique_ptr<SourceSettings> make_source_settings(std::string_view kind);

}  // namespace lectern
