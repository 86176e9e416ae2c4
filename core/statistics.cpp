#include "core/statistics.h"

#include <cmath>
#include <numeric>

namespace lectern {

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

MeanWithError mean_with_error(const std::vector<double>& values) {
  MeanWithError out;
  out.count = values.size();
  if (values.empty()) return out;
  const double n = static_cast<double>(values.size());
  out.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  if (values.size() < 2) return out;
  double squares = 0;
  for (const double value : values) squares += (value - out.mean) * (value - out.mean);
  out.error = std::sqrt(squares / (n - 1) / n);
  return out;
}

}  // namespace lectern
