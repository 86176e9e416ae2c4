#include "recipes/config/toml_config.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/config/find.h"
#include "recipes/config/tree.h"

#include <toml++/toml.h>

#include <algorithm>
#include <optional>
#include <sstream>

namespace lectern {
namespace {

constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 20;
// toml++ 3.3 destroys tables recursively, so a file with half a million dots in one key would end
// on the stack.
constexpr int kMaxDots = 16;

/// One printable line, cut where it grows long: parsers quote hostile bytes.
std::string one_line(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 300))
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  return text.size() > 300 ? out + "..." : out;
}

/// Skips the string that starts at `at`; returns the index after its end (or at the line's end,
/// where an unclosed one-line string is the parser's to refuse).
std::size_t skip_string(std::string_view text, std::size_t at, std::int64_t& line) {
  const char quote = text[at];
  const std::string triple(3, quote);
  const bool many_lines = text.substr(at, 3) == triple;
  at += many_lines ? 3 : 1;
  while (at < text.size()) {
    if (text[at] == '\n') {
      if (!many_lines) return at;
      ++line;
    } else if (text[at] == '\\' && quote == '"') {
      if (at + 1 < text.size() && text[at + 1] != '\n') ++at;
    } else if (many_lines ? text.substr(at, 3) == triple : text[at] == quote) {
      return at + (many_lines ? 3 : 1);
    }
    ++at;
  }
  return at;
}

/// Refuses keys of more than kMaxDots parts before the parser sees them.
void check_depth(std::string_view text, const std::string& name) {
  std::int64_t line = 1;
  int dots = 0;
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c == '"' || c == '\'') {
      at = skip_string(text, at, line);
      continue;
    }
    if (c == '#')
      while (at + 1 < text.size() && text[at + 1] != '\n') ++at;
    if (c == '.' && ++dots > kMaxDots)
      fail<ConfigError>(
          fmt::format("{}:{}: a key must have at most {} parts", name, line, kMaxDots + 1));
    if (std::string_view("=,[]{}\n").find(c) != std::string_view::npos) dots = 0;
    if (c == '\n') ++line;
    ++at;
  }
}

template <typename Date>
void set_date(ConfigValue& out, const Date& found) {
  std::ostringstream text;
  text << found.get();
  out.kind = ConfigValue::Kind::date;
  out.string = text.str();
}

ConfigValue convert(const toml::node& node) {
  using Kind = ConfigValue::Kind;
  ConfigValue out;
  if (const auto* table = node.as_table()) {
    for (const auto& [key, value] : *table) {
      out.keys.emplace_back(key.str());
      out.items.push_back(convert(value));
      // A table's own source is where it first appears; for messages the key is the better place.
      if (key.source().begin.line > 0) out.items.back().line = key.source().begin.line;
    }
  } else if (const auto* array = node.as_array()) {
    out.kind = Kind::list;
    for (const auto& item : *array) out.items.push_back(convert(item));
  } else if (const auto* text = node.as_string()) {
    out.kind = Kind::string;
    out.string = text->get();
  } else if (const auto* integer = node.as_integer()) {
    out.kind = Kind::integer;
    out.integer = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    out.kind = Kind::number;
    out.number = number->get();
  } else if (const auto* boolean = node.as_boolean()) {
    out.kind = Kind::boolean;
    out.boolean = boolean->get();
  } else if (const auto* day = node.as_date()) {
    set_date(out, *day);
  } else if (const auto* time = node.as_time()) {
    set_date(out, *time);
  } else if (const auto* moment = node.as_date_time()) {
    set_date(out, *moment);
  }
  if (out.line == 0) out.line = node.source().begin.line;
  return out;
}

void forget_lines(ConfigValue& value) {
  value.line = 0;
  for (ConfigValue& item : value.items) forget_lines(item);
}

/// The right side of an override: TOML where it is TOML, else the text itself.
ConfigValue override_value(const std::string& text, const std::string& name) {
  const auto start = text.find_first_not_of(" \t");
  const bool quoted = start != std::string::npos &&
                      std::string_view("\"'[{").find(text[start]) != std::string::npos;
  ConfigValue out;
  out.kind = ConfigValue::Kind::string;
  out.string = text;
  if (text.find_first_of("\r\n") != std::string::npos) {
    if (quoted) fail<ConfigError>(name + ": the value must be one line");
    return out;
  }
  try {
    const std::string source = "value = " + text;
    check_depth(source, name);
    const ConfigValue parsed = convert(toml::parse(source));
    const ConfigValue* value = parsed.find("value");
    if (parsed.keys.size() == 1 && value && value->kind != ConfigValue::Kind::date) out = *value;
  } catch (const toml::parse_error& error) {
    if (quoted) fail<ConfigError>(fmt::format("{}: {}", name, one_line(error.description())));
  }
  forget_lines(out);
  return out;
}

/// The item that `key`, a number from 0, names.
ConfigValue* list_item(ConfigValue& list, const std::string& key, const std::string& name,
                       const std::string& path) {
  const bool is_number = key.size() < 6 && key.find_first_not_of("0123456789") == key.npos;
  if (!is_number || std::stoul(key) >= list.items.size())
    fail<ConfigError>(fmt::format("{}: {} has items 0 .. {}, got {}", name, path,
                                  static_cast<std::int64_t>(list.items.size()) - 1, key));
  return &list.items[std::stoul(key)];
}

void apply_override(ConfigValue& root, const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    fail<ConfigError>(fmt::format("--set must be key=value, got \"{}\"", one_line(text)));
  const std::string path = text.substr(0, equals);
  const std::string name = "--set " + one_line(path);
  ConfigValue* table = &root;
  std::size_t start = 0;
  for (int depth = 0;; ++depth) {
    const auto dot = path.find('.', start);
    const std::string key = path.substr(start, dot == std::string::npos ? dot : dot - start);
    const auto bare = [](char c) {
      return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
    };
    if (key.empty() || !std::all_of(key.begin(), key.end(), bare) || depth > kMaxDots)
      fail<ConfigError>(name + ": the key must be names joined by dots, such as mesh.pp");
    ConfigValue* child = table->kind == ConfigValue::Kind::list
                             ? list_item(*table, key, name, path.substr(0, start - 1))
                             : table->find(key);
    const bool is_list = child && child->kind == ConfigValue::Kind::list;
    if (!child) {
      table->keys.push_back(key);
      child = &table->items.emplace_back();
    } else if (dot == std::string::npos ? child->kind == ConfigValue::Kind::table
                                        : child->kind != ConfigValue::Kind::table && !is_list) {
      fail<ConfigError>(fmt::format("{}: {} is {}", name, path.substr(0, dot), describe(*child)));
    }
    if (dot == std::string::npos) {
      *child = override_value(text.substr(equals + 1), name);
      return;
    }
    table = child;
    start = dot + 1;
  }
}

ConfigValue parse_text(std::string_view text, const std::string& name) {
  if (text.size() > kMaxBytes)
    fail<ConfigError>(
        fmt::format("{}: must have at most {} bytes, got {}", name, kMaxBytes, text.size()));
  check_depth(text, name);
  try {
    return convert(toml::parse(text));
  } catch (const toml::parse_error& error) {
    fail<ConfigError>(
        fmt::format("{}:{}: {}", name, error.source().begin.line, one_line(error.description())));
  }
}

void set_file(ConfigValue& value, std::size_t file) {
  value.file = file;
  for (ConfigValue& item : value.items) set_file(item, file);
}

/// Puts `over` on top of `base`: tables key by key, everything else (lists too) as a whole.
void merge(ConfigValue& base, ConfigValue& over) {
  for (std::size_t i = 0; i < over.keys.size(); ++i) {
    ConfigValue* below = base.find(over.keys[i]);
    if (!below) {
      base.keys.push_back(over.keys[i]);
      base.items.push_back(std::move(over.items[i]));
    } else if (below->kind == ConfigValue::Kind::table &&
               over.items[i].kind == ConfigValue::Kind::table) {
      merge(*below, over.items[i]);
    } else {
      *below = std::move(over.items[i]);
    }
  }
}

/// Takes the key `base` out of a file's table: the file that it names, or none.
std::optional<std::filesystem::path> take_base(ConfigValue& root, const std::string& file) {
  const ConfigValue* value = root.find("base");
  if (!value) return std::nullopt;
  const std::string place = fmt::format("{}:{}", file, value->line);
  if (value->kind != ConfigValue::Kind::string || value->string.empty())
    fail<ConfigError>(
        fmt::format("{}: base must be the name of a recipe, got {}", place, describe(*value)));
  const std::string name = value->string;
  const auto index = value - root.items.data();
  root.keys.erase(root.keys.begin() + index);
  root.items.erase(root.items.begin() + index);
  try {
    return find_recipe_from(file, name);
  } catch (const Error& error) {
    fail<ConfigError>(fmt::format("{}: base: {}", place, error.what()));
  }
}

/// Throws when the file that is to be read next is one of those that name it as their base.
void check_cycle(const std::vector<std::string>& files, const std::filesystem::path& next) {
  std::error_code error;
  if (std::none_of(files.begin(), files.end(), [&](const std::string& file) {
        return std::filesystem::equivalent(file, next, error);
      }))
    return;
  std::string chain;
  for (const std::string& file : files) chain += file + " -> ";
  fail<ConfigError>(
      fmt::format("{}: base goes round in a circle: {}{}", files.back(), chain, next.string()));
}

/// A file and what it inherits; appends the files' names to `files`.
ConfigValue load_tree(const std::filesystem::path& path, std::vector<std::string>& files) {
  files.push_back(path.string());
  ConfigValue root = parse_text(read_file(path, kMaxBytes), files.back());
  set_file(root, files.size() - 1);
  const auto base = take_base(root, files.back());
  if (!base) return root;
  check_cycle(files, *base);
  ConfigValue below = load_tree(*base, files);
  merge(below, root);
  return below;
}

}  // namespace

ConfigDocument ConfigDocument::load(const std::filesystem::path& path,
                                    const std::vector<std::string>& overrides) {
  auto impl = std::make_shared<Impl>();
  impl->root = load_tree(find_recipe(path), impl->files);
  for (const std::string& override : overrides) apply_override(impl->root, override);
  return ConfigDocument(std::move(impl));
}

ConfigDocument ConfigDocument::parse(std::string_view text, const std::string& name,
                                     const std::vector<std::string>& overrides) {
  auto impl = std::make_shared<Impl>();
  impl->files = {name};
  impl->root = parse_text(text, name);
  for (const std::string& override : overrides) apply_override(impl->root, override);
  return ConfigDocument(std::move(impl));
}

const std::string& ConfigDocument::name() const { return impl_->name(); }

ConfigReader ConfigDocument::root() const { return ConfigReader(impl_, {}); }

}  // namespace lectern
