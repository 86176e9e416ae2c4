#include "recipes/recipe/differences.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace lectern {
namespace {

using Setting = std::pair<std::string, std::string>;

std::vector<Setting> settings_in(std::string_view text) {
  std::vector<Setting> out;
  std::map<std::string, int> items;  // of lists so far
  std::string table;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (line.starts_with("[[") && line.ends_with("]]")) {
      const std::string list(line.substr(2, line.size() - 4));
      table = fmt::format("{}[{}].", list, items[list]++);
    } else if (line.starts_with('[') && line.ends_with(']')) {
      table = std::string(line.substr(1, line.size() - 2)) + ".";
    } else if (const auto equals = line.find(" = ");
               equals != std::string_view::npos && !line.starts_with('#')) {
      out.emplace_back(table + std::string(line.substr(0, equals)), line.substr(equals + 3));
    }
  }
  return out;
}

}  // namespace

std::vector<ChangedSetting> changed_settings(std::string_view before, std::string_view now) {
  const std::vector<Setting> old_settings = settings_in(before), new_settings = settings_in(now);
  std::map<std::string, std::string> old_values(old_settings.begin(), old_settings.end());
  std::vector<ChangedSetting> out;
  for (const auto& [key, value] : new_settings) {
    const auto found = old_values.find(key);
    if (found == old_values.end())
      out.push_back({key, "(none)", value});
    else if (found->second != value)
      out.push_back({key, found->second, value});
    if (found != old_values.end()) old_values.erase(found);
  }
  for (const auto& [key, value] : old_settings)
    if (old_values.contains(key)) out.push_back({key, value, "(none)"});
  return out;
}

}  // namespace lectern
