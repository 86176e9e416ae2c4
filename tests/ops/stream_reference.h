// Residual streams written down slowly, in double and with autograd-free loops: the reference of
// the fused kernels. Follows core/ops/stream_read.h line by line.
#pragma once

#include "core/ops/sinkhorn.h"
#include "core/ops/stream_read.h"
#include "tests/testing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace lectern::testing {

struct StreamCase {
  Tensor x;  // [T, n, C] f64
  StreamParameters parameters;
};

/// Tokens of different size, parameters of order one.
inline StreamCase stream_case(StreamMapping mapping, std::int64_t tokens, std::int64_t n,
                              std::int64_t width, std::uint64_t seed, DType dtype = DType::f64) {
  const auto shapes = stream_parameter_shapes(mapping, n, width);
  StreamCase out;
  out.x = random_tensor({tokens, n, width}, seed, DType::f64);
  for (std::int64_t i = 0; i < out.x.numel(); ++i)
    out.x.data<double>()[i] *= 0.3 + static_cast<double>(i / (n * width) % 5);
  out.x = out.x.to(dtype);
  const double deviation = 1.0 / std::sqrt(static_cast<double>(shapes.fn[1]));
  out.parameters.fn = random_tensor(shapes.fn, seed + 1, DType::f64, deviation).to(dtype);
  out.parameters.base = random_tensor(shapes.base, seed + 2, DType::f64, 0.8).to(dtype);
  out.parameters.scale = random_tensor(shapes.scale, seed + 3, DType::f64).to(dtype);
  return out;
}

/// pre, post, mix and input of every token.
/// Over 60 lines: the three conventions, each in the order of its formulas.
inline StreamReadOutput reference_read(const StreamCase& in, const StreamReadArgs& args) {
  const Tensor x = in.x.to(DType::f64).contiguous(), fn = in.parameters.fn.to(DType::f64),
               base = in.parameters.base.to(DType::f64), scale = in.parameters.scale.to(DType::f64);
  const std::int64_t tokens = x.dim(0), n = x.dim(1), width = x.dim(2);
  StreamReadOutput out{Tensor::zeros({tokens, width}, DType::f64),
                       Tensor::zeros({tokens, n}, DType::f64),
                       Tensor::zeros({tokens, n}, DType::f64),
                       Tensor::zeros({tokens, n, n}, DType::f64),
                       {},
                       {}};
  const auto inverse = [&](double squares, double count) {
    return args.convention == StreamConvention::megatron ? 1.0 / (std::sqrt(squares / count) + 1e-6)
                                                         : 1.0 / std::sqrt(squares / count + 1e-6);
  };
  const auto dot = [](const double* a, const double* b, std::int64_t count) {
    return std::inner_product(a, a + count, b, 0.0);
  };
  const auto sigmoid = [](double v) { return 1.0 / (1.0 + std::exp(-v)); };
  const double* s = scale.data<double>();
  const double* b = base.data<double>();
  for (std::int64_t t = 0; t < tokens; ++t) {
    const double* token = x.data<double>() + t * n * width;
    double* pre = out.pre.data<double>() + t * n;
    double* post = out.post.data<double>() + t * n;
    double* mix = out.mix.data<double>() + t * n * n;
    if (args.mapping == StreamMapping::hc) {
      for (std::int64_t j = 0; j < n; ++j) {
        const double* stream = token + j * width;
        const double r = inverse(dot(stream, stream, width), static_cast<double>(width));
        const auto h = [&](std::int64_t row) {
          return std::tanh(r * dot(fn.data<double>() + row * width, stream, width));
        };
        pre[j] = s[0] * h(0) + b[j];
        post[j] = s[1] * h(1) + b[n + j];
        for (std::int64_t i = 0; i < n; ++i)
          mix[i * n + j] = s[2] * h(2 + i) + b[2 * n + i * n + j];
      }
    } else {
      const double r = inverse(dot(token, token, n * width), static_cast<double>(n * width));
      const auto logit = [&](std::int64_t row) {
        const std::int64_t group = row < 2 * n ? row / n : 2;
        return s[args.mapping == StreamMapping::head ? 0 : group] * r *
                   dot(fn.data<double>() + row * n * width, token, n * width) +
               b[row];
      };
      const bool epsilon =
          args.mapping == StreamMapping::head || args.convention == StreamConvention::deepseek_v4;
      for (std::int64_t i = 0; i < n; ++i) pre[i] = sigmoid(logit(i)) + (epsilon ? 1e-6 : 0);
      if (args.mapping != StreamMapping::head)
        for (std::int64_t i = 0; i < n; ++i) post[i] = 2 * sigmoid(logit(n + i));
      if (args.mapping == StreamMapping::mhc) {
        Tensor logits = Tensor::empty({n, n}, DType::f64);
        for (std::int64_t k = 0; k < n * n; ++k) logits.data<double>()[k] = logit(2 * n + k);
        Tensor res = sinkhorn(logits, {args.convention, args.iterations});
        if (args.convention == StreamConvention::deepseek_v4)
          res = res.transpose(0, 1).contiguous();
        std::copy_n(res.data<double>(), n * n, mix);
      }
      if (args.mapping == StreamMapping::exact) {
        std::vector<std::int64_t> order(static_cast<std::size_t>(n));
        std::iota(order.begin(), order.end(), 0);
        double sum = 0;
        std::int64_t row = 2 * n;
        do {
          const double weight = std::exp(logit(row++));
          sum += weight;
          for (std::int64_t i = 0; i < n; ++i)
            mix[i * n + order[static_cast<std::size_t>(i)]] += weight;
        } while (std::next_permutation(order.begin(), order.end()));
        for (std::int64_t k = 0; k < n * n; ++k) mix[k] /= sum;
      }
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (!args.pre) pre[i] = 1.0 / static_cast<double>(n);
      if (!args.post) post[i] = 1;
      for (std::int64_t j = 0; j < n && !args.res; ++j) mix[i * n + j] = i == j ? 1 : 0;
      for (std::int64_t c = 0; c < width; ++c)
        out.input.data<double>()[t * width + c] += pre[i] * token[i * width + c];
    }
  }
  return out;
}

}  // namespace lectern::testing
