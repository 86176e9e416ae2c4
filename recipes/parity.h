// What `lectern parity` finds: how far lectern is from a reference, seam by seam.
#pragma once

#include <string>
#include <vector>

namespace lectern {

/// One compared quantity; `note` says what the numbers do not.
struct ParityRow {
  std::string what;
  double difference;
  double bound;
  bool passed;
  std::string note;
};

struct ParityReport {
  std::vector<ParityRow> rows;
  /// True when there is a row and every row passed.
  bool passed() const;
};

}  // namespace lectern
