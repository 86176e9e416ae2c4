// Two recipes side by side: what a run that goes on, or another rank of the job, was told
// otherwise.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// A key whose value differs, as TOML text; "(none)" where a side does not have the key.
struct ChangedSetting {
  std::string key;  // "optimizer.learning_rate", "data.sources[1].weight"
  std::string before, now;
};

/// Compares two resolved recipes (Recipe::resolved), or anything else of lines `key = value` below
/// `[table]` and `[[list]]` lines. In the order of `now`, and then what only `before` has.
std::vector<ChangedSetting> changed_settings(std::string_view before, std::string_view now);

}  // namespace lectern
