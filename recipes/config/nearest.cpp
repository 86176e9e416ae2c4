#include "recipes/config/nearest.h"

#include "data/text/edit_distance.h"

#include <algorithm>

namespace lectern {

bool resembles(std::string_view found, std::string_view known) {
  // A name of one letter resembles every other.
  if (found.size() > 100 || known.size() < 2) return false;
  const std::size_t limit = std::max<std::size_t>(known.size() <= 3 ? 1 : 2, known.size() / 3);
  return edit_distance(found, known) <= static_cast<std::int64_t>(limit);
}

std::string nearest_name(std::string_view found, const std::vector<std::string>& names) {
  std::string best;
  std::int64_t best_distance = 0;
  for (const std::string& name : names) {
    if (!resembles(found, name)) continue;
    const std::int64_t distance = edit_distance(found, name);
    if (best.empty() || distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace lectern
