#include "nn/stream_statistics.h"

#include "core/parallel.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace lectern {
namespace {

/// n x n, row-major.
using Matrix = std::vector<double>;

struct Extremes {
  double largest = 0, smallest = std::numeric_limits<double>::infinity();
  void take(double value) {
    largest = std::max(largest, value);
    smallest = std::min(smallest, value);
  }
};

Extremes line_sums(const Matrix& m, std::size_t n, bool rows) {
  Extremes out;
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += rows ? m[i * n + j] : m[j * n + i];
    out.take(std::abs(sum));
  }
  return out;
}

double deviation_of(const Matrix& m, std::size_t n) {
  double out = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double row = 0, column = 0;
    for (std::size_t j = 0; j < n; ++j) {
      row += m[i * n + j];
      column += m[j * n + i];
      out = std::max(out, -m[i * n + j]);
    }
    out = std::max({out, std::abs(row - 1), std::abs(column - 1)});
  }
  return out;
}

double entropy_of(const Matrix& m, std::size_t n) {
  if (n < 2) return 0;
  double total = 0;
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) sum += std::abs(m[i * n + j]);
    for (std::size_t j = 0; j < n && sum > 0; ++j) {
      const double p = std::abs(m[i * n + j]) / sum;
      if (p > 0) total -= p * std::log(p);
    }
  }
  return total / (static_cast<double>(n) * std::log(static_cast<double>(n)));
}

/// a <- b a
void multiply_left(Matrix& a, const Matrix& b, std::size_t n) {
  Matrix out(n * n, 0.0);
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t k = 0; k < n; ++k)
      for (std::size_t j = 0; j < n; ++j) out[i * n + j] += b[i * n + k] * a[k * n + j];
  a = std::move(out);
}

/// Of one token, with tokens = 1.
StreamStatistics token_statistics(const std::vector<Tensor>& mixes, std::int64_t token,
                                  std::size_t n) {
  StreamStatistics out;
  out.tokens = 1;
  Matrix product(n * n, 0.0), mix(n * n);
  for (std::size_t i = 0; i < n; ++i) product[i * n + i] = 1;
  for (const Tensor& tensor : mixes) {
    for (std::size_t k = 0; k < n * n; ++k) {
      const auto at = static_cast<std::size_t>(token) * n * n + k;
      mix[k] = tensor.dtype() == DType::f64 ? tensor.data<double>()[at]
                                            : static_cast<double>(tensor.data<float>()[at]);
    }
    out.deviation = std::max(out.deviation, deviation_of(mix, n));
    out.entropy += entropy_of(mix, n) / static_cast<double>(mixes.size());
    multiply_left(product, mix, n);
  }
  const Extremes rows = line_sums(product, n, true), columns = line_sums(product, n, false);
  out.gain_forward = rows.largest;
  out.gain_forward_min = rows.smallest;
  out.gain_backward = columns.largest;
  out.gain_backward_min = columns.smallest;
  return out;
}

}  // namespace

StreamStatistics combined(const StreamStatistics& a, const StreamStatistics& b) {
  if (a.tokens == 0) return b;
  if (b.tokens == 0) return a;
  StreamStatistics out;
  out.stack = a.stack;
  out.tokens = a.tokens + b.tokens;
  const double share = static_cast<double>(b.tokens) / static_cast<double>(out.tokens);
  const auto mean = [&](double x, double y) { return x + (y - x) * share; };
  out.gain_forward = mean(a.gain_forward, b.gain_forward);
  out.gain_backward = mean(a.gain_backward, b.gain_backward);
  out.gain_forward_min = std::min(a.gain_forward_min, b.gain_forward_min);
  out.gain_backward_min = std::min(a.gain_backward_min, b.gain_backward_min);
  out.deviation = std::max(a.deviation, b.deviation);
  out.entropy = mean(a.entropy, b.entropy);
  return out;
}

StreamStatistics stream_statistics(const std::string& stack, const std::vector<Tensor>& mixes) {
  StreamStatistics out;
  out.stack = stack;
  if (mixes.empty() || mixes[0].numel() == 0) return out;
  const std::int64_t n = mixes[0].dim(-1), tokens = mixes[0].numel() / (n * n);
  std::vector<Tensor> here;
  for (const Tensor& mix : mixes) here.push_back(mix.to(Device{}));
  std::vector<StreamStatistics> all(static_cast<std::size_t>(tokens));
  parallel_for(tokens, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t)
      all[static_cast<std::size_t>(t)] = token_statistics(here, t, static_cast<std::size_t>(n));
  });
  for (const StreamStatistics& token : all) out = combined(out, token);
  out.stack = stack;
  return out;
}

}  // namespace lectern
