// Statistics of a few numbers.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace lectern {

/// The middle of the sorted values, between two middles their mean; 0 of no values.
double median(std::vector<double> values);

/// The value that `share` (0 up to, but not including, 1) of the sorted values lie before: no
/// interpolation, and of two middles the upper one. There must be values.
template <typename T>
T quantile(std::vector<T> values, double share) {
  const auto at =
      values.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(values.size()));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

/// Mean and its standard error (0 of fewer than two values; both 0 of none).
struct MeanWithError {
  double mean = 0, error = 0;
  std::size_t count = 0;
};
MeanWithError mean_with_error(const std::vector<double>& values);

}  // namespace lectern
