#include "core/ops/interpolate.h"

#include "core/parallel.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

/// Keys' cubic convolution kernel, a = -1/2, at distance t >= 0.
double cubic(double t) {
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  if (t < 2) return ((-0.5 * t + 2.5) * t - 4) * t + 2;
  return 0;
}

void check_sizes(std::int64_t input, std::int64_t output) {
  if (input < 1 || output < 1)
    fail<ShapeError>(
        fmt::format("interpolate: sizes must be 1 or more, got {} -> {}", input, output));
}

void resample_cpu(const Tensor& x, int dim, const ResampleWeights& weights, const Tensor& out) {
  dispatch_floating(x.dtype(), "interpolate", [&]<typename T>() {
    std::int64_t inner = 1;
    for (int i = dim + 1; i < x.ndim(); ++i) inner *= x.dim(i);
    const std::int64_t lines = inner == 0 ? 0 : out.numel() / inner;
    const T* from = x.data<T>();
    T* to = out.data<T>();
    const std::int64_t grain = 1 + (1 << 12) / std::max<std::int64_t>(inner, 1);
    parallel_for(lines, grain, [&, from, to, inner](std::int64_t begin, std::int64_t end) {
      for (std::int64_t line = begin; line < end; ++line) {
        const auto o = static_cast<std::size_t>(line % weights.output);
        const T* source = from + (line / weights.output * weights.input + weights.first[o]) * inner;
        T* target = to + line * inner;
        std::fill_n(target, inner, T(0));
        for (std::int64_t at = weights.start[o]; at < weights.start[o + 1]; ++at) {
          const T weight = static_cast<T>(weights.weight[static_cast<std::size_t>(at)]);
#pragma omp simd
          for (std::int64_t c = 0; c < inner; ++c) target[c] += weight * source[c];
          source += inner;
        }
      }
    });
  });
}

}  // namespace

KernelTable<InterpolateKernels>& interpolate_table() {
  static KernelTable<InterpolateKernels> table("interpolate", {resample_cpu});
  return table;
}

ResampleWeights bicubic_weights(std::int64_t input, std::int64_t output) {
  check_sizes(input, output);
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  const double stretch = std::max(scale, 1.0), support = 2.0 * stretch;
  ResampleWeights weights{input, output, {}, {0}, {}};
  for (std::int64_t o = 0; o < output; ++o) {
    const double center = scale * (static_cast<double>(o) + 0.5);
    const auto low = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto high = std::min(static_cast<std::int64_t>(center + support + 0.5), input);
    double total = 0;
    for (std::int64_t i = low; i < high; ++i) {
      const double w = cubic(std::abs(static_cast<double>(i) - center + 0.5) / stretch);
      weights.weight.push_back(w);
      total += w;
    }
    for (auto at = static_cast<std::size_t>(weights.start.back()); at < weights.weight.size(); ++at)
      weights.weight[at] /= total;
    weights.first.push_back(low);
    weights.start.push_back(static_cast<std::int64_t>(weights.weight.size()));
  }
  return weights;
}

ResampleWeights linear_weights(std::int64_t input, std::int64_t output) {
  check_sizes(input, output);
  const double scale = static_cast<double>(input) / static_cast<double>(output);
  ResampleWeights weights{input, output, {}, {0}, {}};
  for (std::int64_t o = 0; o < output; ++o) {
    const double position = std::max(scale * (static_cast<double>(o) + 0.5) - 0.5, 0.0);
    const auto low = std::min(static_cast<std::int64_t>(position), input - 1);
    const double fraction = position - static_cast<double>(low);
    weights.first.push_back(low);
    if (low + 1 < input) {
      weights.weight.push_back(1 - fraction);
      weights.weight.push_back(fraction);
    } else {
      weights.weight.push_back(1);  // past the last centre there is nothing to blend with
    }
    weights.start.push_back(static_cast<std::int64_t>(weights.weight.size()));
  }
  return weights;
}

ResampleWeights transpose(const ResampleWeights& weights) {
  // Runs start and end at inputs that never fall from one output to the next, so the outputs that
  // read one input are neighbours too.
  ResampleWeights transposed{weights.output, weights.input, {}, {0}, {}};
  for (std::int64_t i = 0; i < weights.input; ++i) {
    std::int64_t first = -1;
    for (std::int64_t o = 0; o < weights.output; ++o) {
      const auto row = static_cast<std::size_t>(o);
      const std::int64_t at = weights.start[row] + i - weights.first[row];
      if (i < weights.first[row] || at >= weights.start[row + 1]) continue;
      if (first < 0) first = o;
      transposed.weight.push_back(weights.weight[static_cast<std::size_t>(at)]);
    }
    transposed.first.push_back(std::max<std::int64_t>(first, 0));
    transposed.start.push_back(static_cast<std::int64_t>(transposed.weight.size()));
  }
  return transposed;
}

Tensor resample(const Tensor& x, int dim, const ResampleWeights& weights) {
  const int index = dim < 0 ? dim + x.ndim() : dim;
  if (x.dim(dim) != weights.input)
    fail<ShapeError>(fmt::format("interpolate: dimension {} of x must be {}, got {}", dim,
                                 weights.input, x.describe()));
  Shape shape = x.shape();
  shape[index] = weights.output;
  const Tensor out = Tensor::empty(shape, x.dtype(), x.device());
  interpolate_table().at(x.device()).resample(x.contiguous(), index, weights, out);
  return out;
}

}  // namespace lectern
