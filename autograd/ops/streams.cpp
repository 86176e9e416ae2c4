#include "autograd/ops/streams.h"

#include "core/ops/stream_stack.h"
#include "core/ops/stream_write.h"

namespace lectern {
namespace {

/// Stands where only the gradient of a variable is wanted.
Tensor no_value(const Tensor& like) { return Tensor::empty({0}, like.dtype(), like.device()); }

StreamParameters values_of(const StreamVariables& in) {
  return {in.fn.value(), in.base.value(), in.scale.value()};
}

/// What backward of a read needs; x comes from the segment when there is one.
struct SavedRead {
  Tensor x;
  std::shared_ptr<StreamSegment> segment;
  std::size_t index = 0;
  StreamParameters parameters;
  StreamReadOutput output;
  StreamReadArgs args;
  StreamReadNeeds needs;

  std::vector<Tensor> backward(const Tensor& grad_input, const Tensor& grad_post,
                               const Tensor& grad_mixed, const Shape& input_shape) const {
    const Tensor streams = segment == nullptr ? x : segment->streams(index);
    const Tensor grad = grad_input.defined()
                            ? grad_input
                            : Tensor::zeros(input_shape, streams.dtype(), streams.device());
    const StreamReadGradients out =
        stream_read_backward(grad, grad_mixed, grad_post, streams, parameters, output, args, needs);
    return {out.x, out.fn, out.base, out.scale};
  }
};

SavedRead save(const Streams& x, const StreamVariables& parameters, const StreamReadOutput& output,
               const StreamReadArgs& args) {
  SavedRead saved;
  saved.segment = x.segment;
  if (x.segment == nullptr)
    saved.x = x.value;
  else
    saved.index = x.segment->size();
  saved.parameters = values_of(parameters);
  saved.output.products = output.products;
  saved.output.squares = output.squares;
  saved.args = args;
  saved.needs = {x.graph.requires_grad(), parameters.fn.requires_grad() ||
                                              parameters.base.requires_grad() ||
                                              parameters.scale.requires_grad()};
  return saved;
}

}  // namespace

Tensor StreamSegment::streams(std::size_t index) {
  if (rebuilt_.empty()) {
    rebuilt_.push_back(first_);
    for (std::size_t i = 0; i < index; ++i)
      rebuilt_.push_back(stream_write(rebuilt_[i], writes_[i].mix, writes_[i].post, writes_[i].y));
  }
  rebuilt_.resize(index + 1);
  writes_.resize(std::min(writes_.size(), index));
  return rebuilt_[index];
}

Streams expand_streams(const Variable& x, std::int64_t streams) {
  return Streams(
      record("stream_expand", stream_expand(x.value(), streams), {x},
             [](const Tensor& grad) -> std::vector<Tensor> { return {stream_sum(grad)}; }));
}

StreamRead stream_read(const Streams& x, const StreamVariables& parameters,
                       const StreamReadArgs& args) {
  const StreamReadOutput out = stream_read(x.value, values_of(parameters), args);
  const std::vector<Variable> results =
      record_many("stream_read", {out.input, out.post, no_value(x.value)},
                  {x.graph, parameters.fn, parameters.base, parameters.scale},
                  [saved = save(x, parameters, out, args),
                   shape = out.input.shape()](const std::vector<Tensor>& grads) {
                    return saved.backward(grads[0], grads[1], grads[2], shape);
                  });
  return {results[0], results[1], results[2], out.pre, out.mix};
}

Streams stream_write(const Streams& x, const StreamRead& read, const Variable& y) {
  const Tensor post = read.post.value();
  const Tensor out = stream_write(x.value, read.mix, post, y.value());
  if (x.segment != nullptr && grad_enabled()) x.segment->append(read.mix, post, y.value());
  const Variable graph =
      record("stream_write", x.segment == nullptr ? out : no_value(out), {read.mixed, read.post, y},
             [post, layer = y.value()](const Tensor& grad) -> std::vector<Tensor> {
               const StreamWriteGradients gradients = stream_write_backward(grad, post, layer);
               return {grad, gradients.post, gradients.y};
             });
  return {graph, out, x.segment};
}

Variable merge_streams(const Streams& x, const StreamVariables& parameters) {
  const StreamReadArgs args{.mapping = StreamMapping::head};
  const StreamReadOutput out = stream_read(x.value, values_of(parameters), args);
  Streams whole = x;
  whole.segment = nullptr;
  return record("stream_merge", out.input,
                {x.graph, parameters.fn, parameters.base, parameters.scale},
                [saved = save(whole, parameters, out, args)](const Tensor& grad) {
                  return saved.backward(grad, {}, {}, {});
                });
}

Variable mean_of_streams(const Streams& x) {
  const std::int64_t n = x.value.dim(-2);
  const double factor = 1.0 / static_cast<double>(n);
  return record("stream_mean", stream_sum(x.value, factor), {x.graph},
                [n, factor](const Tensor& grad) -> std::vector<Tensor> {
                  return {stream_expand(grad, n, factor)};
                });
}

}  // namespace lectern
