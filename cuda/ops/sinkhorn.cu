#include "core/ops/sinkhorn.h"
#include "core/ops/stream_count.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/ops/sinkhorn_thread.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 128;

struct Problem {
  Span<const float> logits, grad;  // grad only on the way back
  Span<float> out;
  std::int64_t matrices;
  StreamConvention convention;
  int iterations;
};

/// A thread has a matrix.
template <int N>
__global__ void sinkhorn_forward_kernel(Problem a) {
  for (std::int64_t i = grid_thread(); i < a.matrices; i += grid_threads()) {
    float logits[N * N], matrix[N * N];
#pragma unroll
    for (int k = 0; k < N * N; ++k) logits[k] = a.logits[i * N * N + k];
    SinkhornThread<N, NoDivisors>(a.convention, a.iterations, {}).forward(logits, matrix);
#pragma unroll
    for (int k = 0; k < N * N; ++k) a.out[i * N * N + k] = matrix[k];
  }
}

/// The first `active` threads of a block have a matrix each, as many as have room for divisors.
template <int N>
__global__ void sinkhorn_backward_kernel(Problem a, int active, int divisors) {
  SharedMemory memory;
  const auto room = memory.take<float>(active * divisors);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= active) return;
  SinkhornThread<N, ThreadDivisors> sinkhorn(a.convention, a.iterations, {room, active, thread});
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * active;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * active + thread; i < a.matrices;
       i += step) {
    float logits[N * N], matrix[N * N], grad[N * N];
#pragma unroll
    for (int k = 0; k < N * N; ++k) {
      logits[k] = a.logits[i * N * N + k];
      grad[k] = a.grad[i * N * N + k];
    }
    sinkhorn.forward(logits, matrix);
    sinkhorn.backward(logits, matrix, grad);
#pragma unroll
    for (int k = 0; k < N * N; ++k) a.out[i * N * N + k] = grad[k];
  }
}

Problem problem_of(const Tensor& logits, const Tensor& grad, const SinkhornArgs& args,
                   const Tensor& out) {
  check_dtype(logits, DType::f32, "sinkhorn", "logits");
  const std::int64_t n = logits.dim(-1);
  return {span<const float>(logits), span<const float>(grad), span<float>(out),
          logits.numel() / (n * n),  args.convention,         static_cast<int>(args.iterations)};
}

void forward(const Tensor& logits, const SinkhornArgs& args, const Tensor& output) {
  const Problem problem = problem_of(logits, {}, args, output);
  if (problem.matrices == 0) return;
  dispatch_streams(logits.dim(-1), [&]<int N>() {
    launch("sinkhorn", {grid_for(problem.matrices, kThreads), kThreads}, sinkhorn_forward_kernel<N>,
           problem);
  });
}

void backward(const Tensor& grad_output, const Tensor& logits, const SinkhornArgs& args,
              const Tensor& grad_logits) {
  const Problem problem = problem_of(logits, grad_output, args, grad_logits);
  if (problem.matrices == 0) return;
  const int divisors =
      divisor_count(args.convention, problem.iterations, static_cast<int>(logits.dim(-1)));
  const int active = divisor_threads(divisors, kThreads);
  dispatch_streams(logits.dim(-1), [&]<int N>() {
    launch("sinkhorn_backward",
           {grid_for(problem.matrices, active), row_threads(active),
            shared_bytes_of<float>(static_cast<std::size_t>(active) *
                                   static_cast<std::size_t>(divisors))},
           sinkhorn_backward_kernel<N>, problem, active, divisors);
  });
}

}  // namespace

void register_sinkhorn() { sinkhorn_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
