// Reading configuration: a TOML file plus `--set key=value` overrides, read field by field with
// type, range and default, so that every mistake is one line that names file, line and key.
//
//   ConfigDocument document = ConfigDocument::load("recipe.toml", {"mesh.pp=2"});
//   ConfigReader root = document.root();
//   const auto steps = root.integer("steps", kRequired, at_least(1));
//   const auto rate = root.table("optimizer").number("learning_rate", 1e-4, positive());
//   root.finish();                      // refuses keys that nothing asked for
//   write_file("config.toml", document.resolved());   // with every default written out
//
// A file may stand on another: `base = "NAME"` names it (find_recipe_from), and what the file says
// replaces what the base says, tables key by key, values, lists and lists of tables as a whole. A
// base may have a base.
#pragma once

#include "core/io/record.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// In place of a default: the key must be in the file.
inline constexpr std::nullopt_t kRequired = std::nullopt;

class ConfigReader;

/// One parsed file and what has been asked of it. Copies share both.
class ConfigDocument {
 public:
  /// Reads `path`, a file or the name of a recipe (find_recipe), and what it stands on (at most 1
  /// MiB each) and applies the overrides in order. Throws IoError for a file that cannot be read,
  /// ConfigError for anything wrong with its content, its base or an override.
  static ConfigDocument load(const std::filesystem::path& path,
                             const std::vector<std::string>& overrides = {});
  /// As load, from text, which has no base; `name` stands for the file in messages.
  static ConfigDocument parse(std::string_view text, const std::string& name,
                              const std::vector<std::string>& overrides = {});

  ConfigReader root() const;
  /// The file that was read, or parse()'s name.
  const std::string& name() const;

  /// TOML of everything read so far, defaults included, in the order in which it was asked for.
  /// Parsing it gives the same values, numbers bit for bit.
  std::string resolved() const;

  struct Impl;

 private:
  explicit ConfigDocument(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

/// One table of a document. Each getter remembers the key as known, writes the value into the
/// resolved form, and throws ConfigError "recipe.toml:12: optimizer.learning_rate must be a
/// number, got a string" (or "--set optimizer.learning_rate: ...") when it does not fit.
class ConfigReader {
 public:
  std::int64_t integer(std::string_view key, std::optional<std::int64_t> otherwise,
                       Range<std::int64_t> range = {});
  /// Integers are taken as numbers too; infinities and NaN never.
  double number(std::string_view key, std::optional<double> otherwise, Range<double> range = {});
  bool boolean(std::string_view key, std::optional<bool> otherwise);
  std::string string(std::string_view key, std::optional<std::string> otherwise);
  /// A string that must be one of `choices`.
  std::string choice(std::string_view key, std::optional<std::string> otherwise,
                     const std::vector<std::string>& choices);
  /// Lists; the range holds for each element.
  std::vector<std::int64_t> integers(std::string_view key,
                                     std::optional<std::vector<std::int64_t>> otherwise,
                                     Range<std::int64_t> range = {});
  std::vector<double> numbers(std::string_view key, std::optional<std::vector<double>> otherwise,
                              Range<double> range = {});
  std::vector<std::string> strings(std::string_view key,
                                   std::optional<std::vector<std::string>> otherwise);

  /// The sub-table; when the file has none it is empty and every default holds.
  ConfigReader table(std::string_view key);
  /// A list of tables ([[key]]), none when the file has no such key. Messages name them key[0] ...,
  /// and `--set key.0.field=value` reaches into them.
  std::vector<ConfigReader> tables(std::string_view key);
  bool has(std::string_view key) const;

  /// Refuses what is in this table, or in one below it, and was never asked for: "recipe.toml:9:
  /// unknown key `learning_rat` in [optimizer]; did you mean `learning_rate`?".
  void finish() const;

  /// Throws ConfigError at this key's place: "<place>: <key> <message>", for rules that need more
  /// than one field ("must divide batch.global_size = 10, got 4").
  [[noreturn]] void refuse(std::string_view key, std::string_view message) const;

 private:
  friend class ConfigDocument;
  ConfigReader(std::shared_ptr<ConfigDocument::Impl> document, std::vector<std::string> path)
      : document_(std::move(document)), path_(std::move(path)) {}

  std::shared_ptr<ConfigDocument::Impl> document_;
  std::vector<std::string> path_;
};

}  // namespace lectern
