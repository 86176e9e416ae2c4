#include "core/ops/conv2d_onednn.h"

#include "core/cpu/dnnl_support.h"

#include <utility>

namespace lectern {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
constexpr auto kF32 = memory::data_type::f32;

memory::data_type type_of(const Tensor& tensor) {
  return tensor.dtype() == DType::bf16 ? memory::data_type::bf16 : kF32;
}

/// oneDNN names sizes in the order N, C, H, W whatever the layout in memory.
memory::dims channel_first(const Shape& s) { return {s[0], s[3], s[1], s[2]}; }
memory::desc image(const Shape& s, memory::data_type type) {
  return {channel_first(s), type, Tag::nhwc};
}
memory::dims sizes(const Shape& s) { return {s.begin(), s.end()}; }

/// What both directions share: layouts, steps, and the forward description. x has the weight's
/// dtype, y is f32.
struct Convolution {
  Convolution(const Shape& x, const Tensor& weight, const Shape& y, bool has_bias, int stride_,
              int padding)
      : x_layout(image(x, type_of(weight))),
        y_layout(image(y, kF32)),
        any_weight(sizes(weight.shape()), type_of(weight), Tag::any),
        plain_weight(sizes(weight.shape()), type_of(weight), Tag::oihw),
        bias_layout({y[3]}, kF32, Tag::x),
        stride{stride_, stride_},
        border{padding, padding} {
    const auto algorithm = dnnl::algorithm::convolution_direct;
    const auto kind = dnnl::prop_kind::forward_training;
    using Forward = dnnl::convolution_forward;
    forward =
        has_bias
            ? Forward::primitive_desc(Forward::desc(kind, algorithm, x_layout, any_weight,
                                                    bias_layout, y_layout, stride, border, border),
                                      dnnl_attributes(), dnnl_engine())
            : Forward::primitive_desc(Forward::desc(kind, algorithm, x_layout, any_weight, y_layout,
                                                    stride, border, border),
                                      dnnl_attributes(), dnnl_engine());
  }

  memory::desc x_layout, y_layout, any_weight, plain_weight, bias_layout;
  memory::dims stride, border;
  dnnl::convolution_forward::primitive_desc forward;
};

/// The weight in the layout that a primitive asked for, and the tensor that holds it.
std::pair<memory, Tensor> arranged(const Tensor& weight, const memory::desc& plain,
                                   const memory::desc& wanted) {
  const memory from = dnnl_memory(plain, weight.raw());
  if (plain == wanted) return {from, weight};
  const Tensor data = dnnl_tensor(wanted);
  const memory to = dnnl_memory(wanted, data.raw());
  dnnl_reorder(from, to);
  return {to, data};
}

}  // namespace

void conv2d_forward_onednn(const Tensor& x, const Tensor& weight, const Tensor& bias, int stride,
                           int padding, const Tensor& out) {
  dnnl_guard("conv2d", [&] {
    const Convolution c(x.shape(), weight, out.shape(), bias.defined(), stride, padding);
    const auto [weights, owner] = arranged(weight, c.plain_weight, c.forward.weights_desc());
    std::unordered_map<int, memory> arguments = {
        {DNNL_ARG_SRC, dnnl_memory(c.x_layout, x.raw())},
        {DNNL_ARG_WEIGHTS, weights},
        {DNNL_ARG_DST, dnnl_memory(c.y_layout, out.raw())}};
    if (bias.defined()) arguments.emplace(DNNL_ARG_BIAS, dnnl_memory(c.bias_layout, bias.raw()));
    dnnl_run(dnnl::convolution_forward(c.forward), c.forward.scratchpad_desc(),
             std::move(arguments));
  });
}

void conv2d_grad_x_onednn(const Tensor& grad_y, const Tensor& weight, int stride, int padding,
                          const Tensor& out) {
  dnnl_guard("conv2d", [&] {
    const Convolution c(out.shape(), weight, grad_y.shape(), false, stride, padding);
    const memory::desc grad_x_layout = image(out.shape(), kF32);
    const memory::desc grad_y_layout = image(grad_y.shape(), type_of(grad_y));
    using Backward = dnnl::convolution_backward_data;
    const Backward::primitive_desc description(
        Backward::desc(dnnl::algorithm::convolution_direct, grad_x_layout, c.any_weight,
                       grad_y_layout, c.stride, c.border, c.border),
        dnnl_attributes(), dnnl_engine(), c.forward);
    const auto [weights, owner] = arranged(weight, c.plain_weight, description.weights_desc());
    dnnl_run(Backward(description), description.scratchpad_desc(),
             {{DNNL_ARG_DIFF_DST, dnnl_memory(grad_y_layout, grad_y.raw())},
              {DNNL_ARG_WEIGHTS, weights},
              {DNNL_ARG_DIFF_SRC, dnnl_memory(grad_x_layout, out.raw())}});
  });
}

}  // namespace lectern
