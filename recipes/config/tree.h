// The parsed form of a configuration file, free of the TOML library. Private to
// this room.
#pragma once

#include "recipes/config/toml_config.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// One TOML value and the line it stands on.
struct ConfigValue {
  enum class Kind { boolean, integer, number, string, date, list, table };
  Kind kind = Kind::table;
  bool boolean = false;
  std::int64_t integer = 0;
  double number = 0;
  std::string string;
  std::vector<std::string> keys;   // of a table, beside `items`
  std::vector<ConfigValue> items;  // of a list or table
  std::int64_t line = 0;           // 0: came from an override, not from a file
  std::size_t file = 0;            // of ConfigDocument::Impl::files

  const ConfigValue* find(std::string_view key) const;
  ConfigValue* find(std::string_view key);
};

/// What was found, for messages: `the string "fast"`, `3.5`, `a table`.
std::string describe(const ConfigValue& value);

/// A key that the program asked for, with its final value as TOML text (empty for a table and for
/// a list of tables). The items of a list of tables are known as tables "[0]", "[1]" ... below it.
struct KnownKey {
  std::vector<std::string> table;
  std::string key;
  std::string literal;
  bool is_table = false;
};

struct ConfigDocument::Impl {
  std::vector<std::string> files;  // the one that was read, its base, the base of that ...
  ConfigValue root;

  const std::string& name() const { return files.front(); }
  std::vector<KnownKey> known;
};

}  // namespace lectern
