#include "recipes/parity.h"

#include <algorithm>

namespace lectern {

bool ParityReport::passed() const {
  return !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const ParityRow& row) { return row.passed; });
}

}  // namespace lectern
