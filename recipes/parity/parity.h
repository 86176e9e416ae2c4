// What `lectern parity` finds: how far lectern is from a reference, seam by seam.
#pragma once

#include "core/tensor.h"

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

// Sizes and distances, in f64, of tensors of equal shape. NaN counts as infinitely far.
double max_abs(const Tensor& tensor);
double max_difference(const Tensor& a, const Tensor& b);
double l2(const Tensor& tensor);
double l2_difference(const Tensor& a, const Tensor& b);

}  // namespace lectern
