#include "core/error.h"
#include "data/text/edit_distance.h"
#include "data/text/utf8.h"
#include "recipes/config/nearest.h"
#include "recipes/config/toml_config.h"
#include "recipes/config/tree.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

namespace lectern {
namespace {

using Kind = ConfigValue::Kind;
using Path = std::vector<std::string>;

/// An item of a list of tables stands in a path as "[0]".
bool is_item(std::string_view part) { return part.starts_with('['); }
std::string item_name(std::size_t index) { return fmt::format("[{}]", index); }

std::string dotted(const Path& table, std::string_view key = {}) {
  std::string out;
  for (const std::string& part : table) out += (out.empty() || is_item(part) ? "" : ".") + part;
  if (!key.empty()) out += (out.empty() ? "" : ".") + std::string(key);
  return out;
}

/// At most 60 bytes, never half a UTF-8 character.
std::string shorten(const std::string& text) {
  return text.size() <= 60 ? text : std::string(utf8_prefix(text, 57)) + "...";
}

std::string in_table(const Path& table) {
  return table.empty() ? "" : fmt::format(" in [{}]", dotted(table));
}

/// "recipe.toml:12", or "--set" for a value that an override brought.
std::string place(const ConfigDocument::Impl& document, const ConfigValue* value) {
  if (!value) return document.name();
  return value->line > 0 ? fmt::format("{}:{}", document.files[value->file], value->line) : "--set";
}

const ConfigValue* find_table(const ConfigDocument::Impl& document, const Path& path) {
  const ConfigValue* table = &document.root;
  for (const std::string& part : path) {
    if (is_item(part)) {
      const auto index = static_cast<std::size_t>(std::stoul(part.substr(1)));
      table = index < table->items.size() ? &table->items[index] : nullptr;
    } else {
      table = table->find(part);
    }
    if (!table) return nullptr;
  }
  return table;
}

const ConfigValue* lookup(const ConfigDocument::Impl& document, const Path& path,
                          std::string_view key) {
  const ConfigValue* table = find_table(document, path);
  return table ? table->find(key) : nullptr;
}

bool is_known(const ConfigDocument::Impl& document, const Path& table, std::string_view key) {
  return std::any_of(document.known.begin(), document.known.end(), [&](const KnownKey& known) {
    return known.key == key && known.table == table;
  });
}

void remember(ConfigDocument::Impl& document, const Path& table, std::string_view key,
              std::string literal, bool is_table = false) {
  for (KnownKey& known : document.known)
    if (known.key == key && known.table == table) {
      known.literal = std::move(literal);
      return;
    }
  document.known.push_back({table, std::string(key), std::move(literal), is_table});
}

/// The known key of `table` nearest to `key`, empty when none is near.
std::string nearest(const ConfigDocument::Impl& document, const Path& table, std::string_view key) {
  std::vector<std::string> names;
  for (const KnownKey& known : document.known)
    if (known.table == table) names.push_back(known.key);
  return nearest_name(key, names);
}

std::string suggestion(const ConfigDocument::Impl& document, const Path& table,
                       const std::string& key) {
  if (const std::string near = nearest(document, table, key); !near.empty())
    return fmt::format("; did you mean `{}`?", near);
  for (const KnownKey& known : document.known)
    if (known.key == key)
      return known.table.empty() ? fmt::format("; `{}` belongs above the first table", key)
                                 : fmt::format("; `{}` belongs in [{}]", key, dotted(known.table));
  for (const KnownKey& known : document.known)
    if (resembles(key, known.key))
      return fmt::format("; did you mean `{}`{}?", known.key, in_table(known.table));
  std::string list;
  for (const KnownKey& known : document.known)
    if (known.table == table) list += (list.empty() ? "" : ", ") + known.key;
  return "; known keys are " + list;
}

/// Whether a stands before b: overrides, then the file that was read, then its base.
bool stands_before(const ConfigValue& a, const ConfigValue& b) {
  return std::tuple(a.line > 0, a.file, a.line) < std::tuple(b.line > 0, b.file, b.line);
}

/// The unknown key that stands first, below `table`.
struct Unknown {
  Path table;
  std::string key;
  const ConfigValue* value = nullptr;
};

void find_unknown(const ConfigDocument::Impl& document, const ConfigValue& table, const Path& path,
                  Unknown& first) {
  for (std::size_t i = 0; i < table.keys.size(); ++i) {
    const ConfigValue& value = table.items[i];
    if (is_known(document, path, table.keys[i])) {
      Path below = path;
      below.push_back(table.keys[i]);
      if (value.kind == Kind::table) find_unknown(document, value, below, first);
      if (value.kind != Kind::list) continue;
      for (std::size_t item = 0; item < value.items.size(); ++item) {
        below.resize(path.size() + 1);
        below.push_back(item_name(item));
        if (value.items[item].kind == Kind::table)
          find_unknown(document, value.items[item], below, first);
      }
    } else if (!first.value || stands_before(value, *first.value)) {
      first = {path, table.keys[i], &value};
    }
  }
}

// ---- values to TOML text

std::string literal(bool value) { return value ? "true" : "false"; }
std::string literal(std::int64_t value) { return fmt::format("{}", value); }
std::string literal(double value) {
  std::string out = fmt::format("{}", value);  // shortest text that reads back to the same bits
  if (out.find_first_of(".en") == std::string::npos) out += ".0";
  return out;
}
std::string literal(const std::string& value) {
  std::string out = "\"";
  for (const char c : value) {
    const auto code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += std::string("\\") + c;
    else if (c == '\n')
      out += "\\n";
    else if (code < 0x20 || code == 0x7f)
      out += fmt::format("\\u{:04X}", code);
    else
      out += c;
  }
  return out + "\"";
}
template <typename T>
std::string literal(const std::vector<T>& values) {
  std::string out = "[";
  for (const T& value : values) out += (out.size() > 1 ? ", " : "") + literal(value);
  return out + "]";
}

// ---- values from TOML

bool take(const ConfigValue& value, bool& out) {
  out = value.boolean;
  return value.kind == Kind::boolean;
}
bool take(const ConfigValue& value, std::int64_t& out) {
  out = value.integer;
  return value.kind == Kind::integer;
}
bool take(const ConfigValue& value, double& out) {
  out = value.kind == Kind::integer ? static_cast<double>(value.integer) : value.number;
  return (value.kind == Kind::integer || value.kind == Kind::number) && std::isfinite(out);
}
bool take(const ConfigValue& value, std::string& out) {
  out = value.string;
  return value.kind == Kind::string;
}

/// "; did you mean `page`?" where one of `choices` resembles a value that is none of them.
std::string suggested_choice(const ConfigDocument::Impl& document, const Path& path,
                             std::string_view key, const std::vector<std::string>& choices) {
  const ConfigValue* value = lookup(document, path, key);
  if (value == nullptr || value->kind != Kind::string) return "";
  const auto distance = [&](const std::string& each) { return edit_distance(value->string, each); };
  const auto nearest = std::min_element(
      choices.begin(), choices.end(),
      [&](const std::string& a, const std::string& b) { return distance(a) < distance(b); });
  const bool near = nearest != choices.end() && resembles(value->string, *nearest);
  return near ? fmt::format(" (did you mean \"{}\"?)", *nearest) : "";
}

/// Common to all getters of one value.
template <typename T, typename Valid>
T get(ConfigDocument::Impl& document, const Path& path, std::string_view key,
      std::optional<T>& otherwise, const std::string& wanted, Valid valid) {
  const ConfigValue* value = lookup(document, path, key);
  if (!value && !otherwise) {
    std::string hint;
    if (const ConfigValue* table = find_table(document, path))
      for (std::size_t i = 0; i < table->keys.size(); ++i)
        if (!is_known(document, path, table->keys[i]) && resembles(table->keys[i], key))
          hint = fmt::format(" ({} has `{}`)", place(document, &table->items[i]), table->keys[i]);
    fail<ConfigError>(fmt::format("{}: required key `{}`{} is missing{}", document.name(), key,
                                  in_table(path), hint));
  }
  T out{};
  if (value && (!take(*value, out) || !valid(out)))
    fail<ConfigError>(fmt::format("{}: {} must be {}, got {}", place(document, value),
                                  dotted(path, key), wanted, describe(*value)));
  if (!value) out = std::move(*otherwise);
  remember(document, path, key, literal(out));
  return out;
}

/// Common to all getters of lists.
template <typename T, typename Valid>
std::vector<T> get_list(ConfigDocument::Impl& document, const Path& path, std::string_view key,
                        std::optional<std::vector<T>>& otherwise, const std::string& wanted,
                        Valid valid) {
  const ConfigValue* value = lookup(document, path, key);
  std::vector<T> out;
  if (value) {
    if (value->kind != Kind::list)
      fail<ConfigError>(fmt::format("{}: {} must be a list, each {}, got {}",
                                    place(document, value), dotted(path, key), wanted,
                                    describe(*value)));
    for (std::size_t i = 0; i < value->items.size(); ++i) {
      T item{};
      if (!take(value->items[i], item) || !valid(item))
        fail<ConfigError>(fmt::format("{}: {}[{}] must be {}, got {}",
                                      place(document, &value->items[i]), dotted(path, key), i,
                                      wanted, describe(value->items[i])));
      out.push_back(std::move(item));
    }
  } else if (otherwise) {
    out = std::move(*otherwise);
  } else {
    fail<ConfigError>(
        fmt::format("{}: required key `{}`{} is missing", document.name(), key, in_table(path)));
  }
  remember(document, path, key, literal(out));
  return out;
}

const auto kAnything = [](const auto&) { return true; };

}  // namespace

const ConfigValue* ConfigValue::find(std::string_view key) const {
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key) return &items[i];
  return nullptr;
}
ConfigValue* ConfigValue::find(std::string_view key) {
  return const_cast<ConfigValue*>(std::as_const(*this).find(key));
}

std::string describe(const ConfigValue& value) {
  switch (value.kind) {
    case Kind::boolean:
      return literal(value.boolean);
    case Kind::integer:
      return literal(value.integer);
    case Kind::number:
      return literal(value.number);
    case Kind::string:
      return "the string " + literal(shorten(value.string));
    case Kind::date:
      return "the date " + value.string;
    case Kind::list:
      return fmt::format("a list of {}", value.items.size());
    case Kind::table:
      return "a table";
  }
  return "";
}

std::int64_t ConfigReader::integer(std::string_view key, std::optional<std::int64_t> otherwise,
                                   Range<std::int64_t> range) {
  return get(*document_, path_, key, otherwise, wording(range),
             [&](std::int64_t value) { return contains(range, value); });
}

double ConfigReader::number(std::string_view key, std::optional<double> otherwise,
                            Range<double> range) {
  return get(*document_, path_, key, otherwise, wording(range),
             [&](double value) { return contains(range, value); });
}

bool ConfigReader::boolean(std::string_view key, std::optional<bool> otherwise) {
  return get(*document_, path_, key, otherwise, "true or false", kAnything);
}

std::string ConfigReader::string(std::string_view key, std::optional<std::string> otherwise) {
  return get(*document_, path_, key, otherwise, "a string", kAnything);
}

std::string ConfigReader::choice(std::string_view key, std::optional<std::string> otherwise,
                                 const std::vector<std::string>& choices) {
  std::string wanted = "one of ";
  for (const std::string& each : choices)
    wanted += (each == choices.front() ? "\"" : ", \"") + each + "\"";
  wanted += suggested_choice(*document_, path_, key, choices);
  return get(*document_, path_, key, otherwise, wanted, [&](const std::string& value) {
    return std::find(choices.begin(), choices.end(), value) != choices.end();
  });
}

std::vector<std::int64_t> ConfigReader::integers(std::string_view key,
                                                 std::optional<std::vector<std::int64_t>> otherwise,
                                                 Range<std::int64_t> range) {
  return get_list(*document_, path_, key, otherwise, wording(range),
                  [&](std::int64_t value) { return contains(range, value); });
}

std::vector<double> ConfigReader::numbers(std::string_view key,
                                          std::optional<std::vector<double>> otherwise,
                                          Range<double> range) {
  return get_list(*document_, path_, key, otherwise, wording(range),
                  [&](double value) { return contains(range, value); });
}

std::vector<std::string> ConfigReader::strings(std::string_view key,
                                               std::optional<std::vector<std::string>> otherwise) {
  return get_list(*document_, path_, key, otherwise, "a string", kAnything);
}

ConfigReader ConfigReader::table(std::string_view key) {
  const ConfigValue* value = lookup(*document_, path_, key);
  if (value && value->kind != Kind::table)
    fail<ConfigError>(fmt::format("{}: {} must be a table, got {}", place(*document_, value),
                                  dotted(path_, key), describe(*value)));
  remember(*document_, path_, key, "", true);
  Path below = path_;
  below.emplace_back(key);
  return ConfigReader(document_, std::move(below));
}

std::vector<ConfigReader> ConfigReader::tables(std::string_view key) {
  const ConfigValue* value = lookup(*document_, path_, key);
  std::vector<ConfigReader> out;
  remember(*document_, path_, key, "", true);
  if (!value) return out;
  if (value->kind != Kind::list)
    fail<ConfigError>(fmt::format("{}: {} must be a list of tables, [[{}]], got {}",
                                  place(*document_, value), dotted(path_, key), dotted(path_, key),
                                  describe(*value)));
  Path list = path_;
  list.emplace_back(key);
  for (std::size_t i = 0; i < value->items.size(); ++i) {
    if (value->items[i].kind != Kind::table)
      fail<ConfigError>(fmt::format("{}: {} must be a table, got {}",
                                    place(*document_, &value->items[i]),
                                    dotted(list) + item_name(i), describe(value->items[i])));
    remember(*document_, list, item_name(i), "", true);
    Path item = list;
    item.push_back(item_name(i));
    out.push_back(ConfigReader(document_, std::move(item)));
  }
  return out;
}

bool ConfigReader::has(std::string_view key) const {
  return lookup(*document_, path_, key) != nullptr;
}

void ConfigReader::finish() const {
  Unknown first;
  if (const ConfigValue* table = find_table(*document_, path_))
    find_unknown(*document_, *table, path_, first);
  if (!first.value) return;
  const std::string quoted = literal(shorten(first.key));
  fail<ConfigError>(fmt::format("{}: unknown key `{}`{}{}", place(*document_, first.value),
                                std::string_view(quoted).substr(1, quoted.size() - 2),
                                in_table(first.table),
                                suggestion(*document_, first.table, first.key)));
}

void ConfigReader::refuse(std::string_view key, std::string_view message) const {
  fail<ConfigError>(fmt::format("{}: {} {}", place(*document_, lookup(*document_, path_, key)),
                                dotted(path_, key), message));
}

std::string ConfigDocument::resolved() const {
  std::string out;
  Path current;
  for (const KnownKey& known : impl_->known)
    if (known.table.empty() && !known.is_table) out += known.key + " = " + known.literal + "\n";
  for (const KnownKey& known : impl_->known) {
    if (!known.is_table) continue;
    Path path = known.table;
    path.push_back(known.key);
    std::string body;
    for (const KnownKey& member : impl_->known)
      if (member.table == path && !member.is_table)
        body += member.key + " = " + member.literal + "\n";
    if (is_item(known.key))
      out += fmt::format("\n[[{}]]\n{}", dotted(known.table), body);
    else if (!body.empty())
      out += fmt::format("\n[{}]\n{}", dotted(path), body);
  }
  return out;
}

}  // namespace lectern
