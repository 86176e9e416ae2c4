#include "core/ops/conv2d.h"

#include "core/ops/elementwise.h"
#include "cuda/ops/register_ops.h"
#include "cuda/streams.h"

#include <cudnn.h>

#include <algorithm>
#include <array>

namespace lectern::cuda {
namespace {

void check_dnn(cudnnStatus_t status, const char* call, SourceLocation where = {}) {
  if (status != CUDNN_STATUS_SUCCESS)
    fail<CudaError>(fmt::format("{}: must succeed, got {}", call, cudnnGetErrorString(status)),
                    where);
}
#define CUDNN_CALL(call) check_dnn((call), #call)

/// Algorithms that need more are passed over.
constexpr std::size_t kMostWorkspace = std::size_t{1} << 30;

cudnnHandle_t handle() {
  static cudnnHandle_t instance = [] {
    cudnnHandle_t made = nullptr;
    CUDNN_CALL(cudnnCreate(&made));
    CUDNN_CALL(cudnnSetStream(made, compute_stream()));
    return made;
  }();
  return instance;
}

/// Descriptors of one convolution: x [N, H, W, C], weight [O, kh, kw, C], y [N, H', W', O].
class Problem {
 public:
  Problem(const Shape& x_shape, const Shape& weight_shape, const Shape& y_shape,
          const Conv2dArgs& args, DType dtype) {
    const cudnnDataType_t type = dtype == DType::bf16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const auto size = [](std::int64_t n) { return static_cast<int>(n); };
    CUDNN_CALL(cudnnCreateTensorDescriptor(&x));
    CUDNN_CALL(cudnnCreateTensorDescriptor(&y));
    CUDNN_CALL(cudnnCreateFilterDescriptor(&weight));
    CUDNN_CALL(cudnnCreateConvolutionDescriptor(&convolution));
    CUDNN_CALL(cudnnSetTensor4dDescriptor(x, CUDNN_TENSOR_NHWC, type, size(x_shape[0]),
                                          size(x_shape[3]), size(x_shape[1]), size(x_shape[2])));
    CUDNN_CALL(cudnnSetTensor4dDescriptor(y, CUDNN_TENSOR_NHWC, type, size(y_shape[0]),
                                          size(y_shape[3]), size(y_shape[1]), size(y_shape[2])));
    CUDNN_CALL(cudnnSetFilter4dDescriptor(weight, type, CUDNN_TENSOR_NHWC, size(weight_shape[0]),
                                          size(weight_shape[1]), size(weight_shape[2]),
                                          size(weight_shape[3])));
    CUDNN_CALL(cudnnSetConvolution2dDescriptor(convolution, args.padding, args.padding, args.stride,
                                               args.stride, 1, 1, CUDNN_CROSS_CORRELATION,
                                               CUDNN_DATA_FLOAT));
    // f32 means f32: without this cuDNN would round to TF32.
    CUDNN_CALL(cudnnSetConvolutionMathType(
        convolution, dtype == DType::bf16 ? CUDNN_TENSOR_OP_MATH : CUDNN_FMA_MATH));
  }
  ~Problem() {
    cudnnDestroyConvolutionDescriptor(convolution);
    cudnnDestroyFilterDescriptor(weight);
    cudnnDestroyTensorDescriptor(y);
    cudnnDestroyTensorDescriptor(x);
  }
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  cudnnTensorDescriptor_t x = nullptr, y = nullptr;
  cudnnFilterDescriptor_t weight = nullptr;
  cudnnConvolutionDescriptor_t convolution = nullptr;
};

/// The first that cuDNN advises, that gives the same bits in every run and fits.
template <typename Choice>
Choice pick(const std::array<Choice, 8>& advice, int count) {
  for (int i = 0; i < count; ++i) {
    const Choice& choice = advice[static_cast<std::size_t>(i)];
    if (choice.status == CUDNN_STATUS_SUCCESS && choice.determinism == CUDNN_DETERMINISTIC &&
        choice.memory <= kMostWorkspace)
      return choice;
  }
  fail<CudaError>("conv2d: cuDNN has no deterministic algorithm for this shape");
}

Tensor workspace(std::size_t bytes, Device device) {
  return Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, device);
}

/// [O, C, kh, kw] -> [O, kh, kw, C]
Tensor channels_last(const Tensor& weight) { return weight.permute({0, 2, 3, 1}).contiguous(); }

Shape channels_last(const Shape& s) { return {s[0], s[2], s[3], s[1]}; }

const float kOne = 1.0f, kZero = 0.0f;

void forward(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dArgs& args,
             const Tensor& out) {
  const Range range("conv2d");
  const Problem p(x.shape(), weight.shape(), out.shape(), args, x.dtype());
  const Tensor filter = channels_last(weight),
               y = Tensor::empty(out.shape(), x.dtype(), x.device());
  std::array<cudnnConvolutionFwdAlgoPerf_t, 8> advice{};
  int count = 0;
  CUDNN_CALL(cudnnGetConvolutionForwardAlgorithm_v7(handle(), p.x, p.weight, p.convolution, p.y,
                                                    static_cast<int>(advice.size()), &count,
                                                    advice.data()));
  const auto choice = pick(advice, count);
  const Tensor memory = workspace(choice.memory, x.device());
  CUDNN_CALL(cudnnConvolutionForward(handle(), &kOne, p.x, x.raw(), p.weight, filter.raw(),
                                     p.convolution, choice.algo, memory.raw(), choice.memory,
                                     &kZero, p.y, y.raw()));
  const Tensor result = y.to(out.dtype());
  out.copy_from(bias.defined() ? add(result, bias.to(out.dtype())) : result);
}

void grad_x(const Tensor& grad_y, const Tensor& weight, const Conv2dArgs& args, const Tensor& out) {
  const Range range("conv2d_grad_x");
  const Problem p(out.shape(), weight.shape(), grad_y.shape(), args, grad_y.dtype());
  const Tensor filter = channels_last(weight);
  const Tensor grad = Tensor::empty(out.shape(), grad_y.dtype(), out.device());
  std::array<cudnnConvolutionBwdDataAlgoPerf_t, 8> advice{};
  int count = 0;
  CUDNN_CALL(cudnnGetConvolutionBackwardDataAlgorithm_v7(handle(), p.weight, p.y, p.convolution,
                                                         p.x, static_cast<int>(advice.size()),
                                                         &count, advice.data()));
  const auto choice = pick(advice, count);
  const Tensor memory = workspace(choice.memory, out.device());
  CUDNN_CALL(cudnnConvolutionBackwardData(handle(), &kOne, p.weight, filter.raw(), p.y,
                                          grad_y.raw(), p.convolution, choice.algo, memory.raw(),
                                          choice.memory, &kZero, p.x, grad.raw()));
  out.copy_from(grad);
}

void grad_weight(const Tensor& grad_y, const Tensor& x, const Conv2dArgs& args, const Tensor& out) {
  const Range range("conv2d_grad_weight");
  const Problem p(x.shape(), out.shape(), grad_y.shape(), args, x.dtype());
  const Tensor grad = Tensor::empty(channels_last(out.shape()), x.dtype(), out.device());
  std::array<cudnnConvolutionBwdFilterAlgoPerf_t, 8> advice{};
  int count = 0;
  CUDNN_CALL(cudnnGetConvolutionBackwardFilterAlgorithm_v7(
      handle(), p.x, p.y, p.convolution, p.weight, static_cast<int>(advice.size()), &count,
      advice.data()));
  const auto choice = pick(advice, count);
  const Tensor memory = workspace(choice.memory, out.device());
  CUDNN_CALL(cudnnConvolutionBackwardFilter(handle(), &kOne, p.x, x.raw(), p.y, grad_y.raw(),
                                            p.convolution, choice.algo, memory.raw(), choice.memory,
                                            &kZero, p.weight, grad.raw()));
  out.copy_from(grad.permute({0, 3, 1, 2}));
}

}  // namespace

void register_conv2d() { conv2d_table().set(DeviceType::cuda, {forward, grad_x, grad_weight}); }

}  // namespace lectern::cuda
