#include "recipes/parity/parity.h"

#include <algorithm>
#include <cmath>

namespace lectern {

double max_abs(const Tensor& tensor) {
  const Tensor x = tensor.to(Device{}).to(DType::f64).contiguous();
  double out = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) out = std::max(out, std::abs(x.data<double>()[i]));
  return out;
}

double max_difference(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device{}).to(DType::f64).contiguous(),
               y = b.to(Device{}).to(DType::f64).contiguous();
  double out = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double difference = std::abs(x.data<double>()[i] - y.data<double>()[i]);
    out = std::isnan(difference) ? HUGE_VAL : std::max(out, difference);
  }
  return out;
}

double l2(const Tensor& tensor) {
  const Tensor x = tensor.to(Device{}).to(DType::f64).contiguous();
  double sum = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) sum += x.data<double>()[i] * x.data<double>()[i];
  return std::sqrt(sum);
}

double l2_difference(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device{}).to(DType::f64).contiguous(),
               y = b.to(Device{}).to(DType::f64).contiguous();
  double sum = 0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double difference = x.data<double>()[i] - y.data<double>()[i];
    sum += difference * difference;
  }
  return std::isnan(sum) ? HUGE_VAL : std::sqrt(sum);
}

bool ParityReport::passed() const {
  return !rows.empty() &&
         std::all_of(rows.begin(), rows.end(), [](const ParityRow& row) { return row.passed; });
}

}  // namespace lectern
