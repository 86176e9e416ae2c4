#include "core/ops/stream_read.h"

#include "core/ops/stream_count.h"
#include "core/ops/stream_read_cpu.h"

namespace lectern {
namespace {

void check_parameters(const Tensor& x, const StreamParameters& parameters,
                      const StreamReadArgs& args) {
  if (x.ndim() < 2 || x.dim(-2) < 1 || x.dim(-2) > kMaxStreams || x.dim(-1) < 1)
    fail<ShapeError>(fmt::format("stream_read: x must be [..., n, C] with n from 1 to {}, got {}",
                                 kMaxStreams, x.describe()));
  if (args.iterations < 1 || args.iterations > 1000)
    fail<ConfigError>(
        fmt::format("stream_read: iterations must be from 1 to 1000, got {}", args.iterations));
  const auto shapes = stream_parameter_shapes(args.mapping, x.dim(-2), x.dim(-1));
  check_shape(parameters.fn, shapes.fn, "stream_read", "fn");
  check_shape(parameters.base, shapes.base, "stream_read", "base");
  check_shape(parameters.scale, shapes.scale, "stream_read", "scale");
  check_dtype(parameters.fn, x.dtype(), "stream_read", "fn");
  check_dtype(parameters.base, x.dtype(), "stream_read", "base");
  check_dtype(parameters.scale, x.dtype(), "stream_read", "scale");
  check_device(parameters.fn, x, "stream_read", "fn");
  check_device(parameters.base, x, "stream_read", "base");
  check_device(parameters.scale, x, "stream_read", "scale");
}

/// The shape of x without its last `dropped` dimensions, and `tail` behind.
Shape leading(const Tensor& x, int dropped, std::initializer_list<std::int64_t> tail) {
  Shape out;
  for (int i = 0; i < x.ndim() - dropped; ++i) out.push_back(x.dim(i));
  for (const std::int64_t size : tail) out.push_back(size);
  return out;
}

StreamParameters contiguous(const StreamParameters& in) {
  return {in.fn.contiguous(), in.base.contiguous(), in.scale.contiguous()};
}

Tensor checked(const Tensor& grad, const Shape& shape, const Tensor& x, const char* name) {
  if (!grad.defined()) return grad;
  check_shape(grad, shape, "stream_read", name);
  check_dtype(grad, x.dtype(), "stream_read", name);
  check_device(grad, x, "stream_read", name);
  return grad.contiguous();
}

}  // namespace

StreamParameterShapes stream_parameter_shapes(StreamMapping mapping, std::int64_t streams,
                                              std::int64_t width) {
  const bool exact = mapping == StreamMapping::exact;
  const int most = exact ? stream_math::kMaxExactStreams : kMaxStreams;
  if (streams < 1 || streams > most)
    fail<ConfigError>(fmt::format("streams must be from 1 to {}{}, got {}", most,
                                  exact ? " with exact H_res" : "", streams));
  const int n = static_cast<int>(streams);
  return {{stream_math::projection_rows(mapping, n),
           mapping == StreamMapping::hc ? width : streams * width},
          {stream_math::mapping_rows(mapping, n)},
          {mapping == StreamMapping::head ? 1 : 3}};
}

KernelTable<StreamReadKernels>& stream_read_table() {
  static KernelTable<StreamReadKernels> table("stream_read",
                                              {stream_read_forward_cpu, stream_read_backward_cpu});
  return table;
}

StreamReadOutput stream_read(const Tensor& x, const StreamParameters& parameters,
                             const StreamReadArgs& args) {
  check_parameters(x, parameters, args);
  const std::int64_t n = x.dim(-2), tokens = x.numel() / (n * x.dim(-1));
  const int streams = static_cast<int>(n);
  StreamReadOutput out;
  out.input = Tensor::empty(leading(x, 2, {x.dim(-1)}), x.dtype(), x.device());
  out.pre = Tensor::empty(leading(x, 2, {n}), x.dtype(), x.device());
  if (args.mapping != StreamMapping::head) {
    out.post = Tensor::empty_like(out.pre);
    out.mix = Tensor::empty(leading(x, 2, {n, n}), x.dtype(), x.device());
  }
  out.products = Tensor::empty({tokens, stream_math::mapping_rows(args.mapping, streams)},
                               x.dtype(), x.device());
  out.squares = Tensor::empty({tokens, stream_math::norm_count(args.mapping, streams)}, x.dtype(),
                              x.device());
  stream_read_table().at(x.device()).forward(x.contiguous(), contiguous(parameters), args, out);
  return out;
}

StreamReadGradients stream_read_backward(const Tensor& grad_input, const Tensor& grad_mixed,
                                         const Tensor& grad_post, const Tensor& x,
                                         const StreamParameters& parameters,
                                         const StreamReadOutput& forward,
                                         const StreamReadArgs& args, StreamReadNeeds needs) {
  check_parameters(x, parameters, args);
  const Tensor input = checked(grad_input, leading(x, 2, {x.dim(-1)}), x, "grad_input");
  const Tensor mixed = checked(grad_mixed, x.shape(), x, "grad_mixed");
  const Tensor post = checked(grad_post, leading(x, 2, {x.dim(-2)}), x, "grad_post");
  const std::int64_t tokens = x.numel() / (x.dim(-2) * x.dim(-1));
  const int streams = static_cast<int>(x.dim(-2));
  check_shape(forward.products, {tokens, stream_math::mapping_rows(args.mapping, streams)},
              "stream_read", "products");
  check_shape(forward.squares, {tokens, stream_math::norm_count(args.mapping, streams)},
              "stream_read", "squares");
  StreamReadGradients out;
  if (needs.x) out.x = Tensor::empty_like(x);
  if (needs.parameters) {
    out.fn = Tensor::empty_like(parameters.fn);
    out.base = Tensor::empty_like(parameters.base);
    out.scale = Tensor::empty_like(parameters.scale);
  }
  stream_read_table()
      .at(x.device())
      .backward(input, mixed, post, x.contiguous(), contiguous(parameters), forward, args, out);
  return out;
}

}  // namespace lectern
