// The kinds of sample sources that a recipe can name, and how a source is made from its table.
//
//   [[data.sources]] --read--> SourceSettings --open--> SampleSource
//
// Reading checks a recipe without touching a file that it names; opening reads shards and texts.
#pragma once

#include "data/samples/source.h"
#include "data/shards/shard_set.h"

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// The keys of one source, whatever they are written in. A getter without a default requires its
/// key; each refuses a value of another type or out of range with a ConfigError that says where it
/// stands.
class SettingsReader {
 public:
  virtual ~SettingsReader() = default;
  virtual std::int64_t integer(std::string_view key, std::optional<std::int64_t> otherwise,
                               std::int64_t least = std::numeric_limits<std::int64_t>::min(),
                               std::int64_t most = std::numeric_limits<std::int64_t>::max()) = 0;
  virtual double number(std::string_view key, std::optional<double> otherwise,
                        double least = -std::numeric_limits<double>::infinity(),
                        double most = std::numeric_limits<double>::infinity()) = 0;
  /// Two numbers, the smaller first.
  virtual std::array<double, 2> range(std::string_view key, std::array<double, 2> otherwise,
                                      double least, double most) = 0;
  virtual bool boolean(std::string_view key, std::optional<bool> otherwise) = 0;
  virtual std::string string(std::string_view key, std::optional<std::string> otherwise) = 0;
  virtual std::string choice(std::string_view key, std::optional<std::string> otherwise,
                             const std::vector<std::string>& choices) = 0;
  virtual std::vector<std::string> strings(std::string_view key,
                                           std::optional<std::vector<std::string>> otherwise) = 0;
  /// Throws ConfigError: "<place>: <key> <message>".
  [[noreturn]] virtual void refuse(std::string_view key, std::string_view message) = 0;
};

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
};

/// All that a recipe says of one source.
struct SourceSettings {
  std::string label;  // part of the source's name where the recipe gives none

  virtual ~SourceSettings() = default;
  /// Throws ConfigError and IoError.
  virtual std::shared_ptr<const SampleSource> open(const SourceContext& context) const = 0;
};

/// Names of the kinds, in the order of their table.
std::vector<std::string> source_kinds();

/// Reads the settings of a source of `kind`, one of source_kinds().
std::shared_ptr<const SourceSettings> read_source_settings(std::string_view kind,
                                                           SettingsReader& table,
                                                           const SourceDefaults& defaults);

}  // namespace lectern
