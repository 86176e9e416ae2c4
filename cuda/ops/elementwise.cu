#include "core/ops/activation_math.h"
#include "core/ops/elementwise.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Add {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Multiply {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct Scale {
  float factor;
  __device__ float operator()(float x, float) const { return x * factor; }
};
struct Gelu {
  __device__ float operator()(float x, float) const { return activation::gelu(x); }
};
struct Silu {
  __device__ float operator()(float x, float) const { return activation::silu(x); }
};
struct GeluBackward {
  __device__ float operator()(float grad, float x) const {
    return grad * activation::gelu_derivative(x);
  }
};
struct SiluBackward {
  __device__ float operator()(float grad, float x) const {
    return grad * activation::silu_derivative(x);
  }
};

/// out[i] = f(a[i], b[i % period]); b may be missing. With N > 1 the period is a multiple of N.
template <typename T, int N, typename F>
__global__ void map_kernel(Span<const T> a, Span<const T> b, Span<T> out, std::int64_t count,
                           std::int64_t period, F f) {
  const std::int64_t packs = count / N, steps = packs + count % N;
  for (std::int64_t i = grid_thread(); i < steps; i += grid_threads()) {
    if (i < packs) {
      const std::int64_t at = i * N, at_b = period == count ? at : at % period;
      const auto x = a.template load<N>(at);
      Pack<T, N> y = x, result;
      if (b.exists()) y = b.template load<N>(at_b);
      for (int k = 0; k < N; ++k) result[k] = from_float<T>(f(to_float(x[k]), to_float(y[k])));
      out.template store<N>(at, result);
    } else {
      const std::int64_t at = packs * N + i - packs;
      out[at] = from_float<T>(f(to_float(a[at]), b.exists() ? to_float(b[at % period]) : 0.0f));
    }
  }
}

template <typename F>
void map(const char* name, const Tensor& a, const Tensor& b, const Tensor& out, F f) {
  if (a.numel() == 0) return;
  const std::int64_t count = a.numel(), period = b.defined() ? b.numel() : count;
  dispatch_storage(a.dtype(), name, [&]<typename T>() {
    // Only a period that is not the whole length needs to be a multiple of the pack.
    dispatch_width<T>(period == count ? 0 : period, {&a, &b, &out}, [&]<int N>() {
      launch(name, {grid_for(count, kThreads * N), kThreads}, map_kernel<T, N, F>, span<const T>(a),
             span<const T>(b), span<T>(out), count, period, f);
    });
  });
}

}  // namespace

void register_elementwise() {
  elementwise_table().set(
      DeviceType::cuda,
      {.add = [](const Tensor& a, const Tensor& b,
                 const Tensor& out) { map("add", a, b, out, Add{}); },
       .multiply = [](const Tensor& a, const Tensor& b,
                      const Tensor& out) { map("multiply", a, b, out, Multiply{}); },
       .scale =
           [](const Tensor& x, double factor, const Tensor& out) {
             map("scale", x, {}, out, Scale{static_cast<float>(factor)});
           },
       .gelu = [](const Tensor& x, const Tensor& out) { map("gelu", x, {}, out, Gelu{}); },
       .silu = [](const Tensor& x, const Tensor& out) { map("silu", x, {}, out, Silu{}); },
       .gelu_backward =
           [](const Tensor& grad, const Tensor& x, const Tensor& out) {
             map("gelu_backward", grad, x, out, GeluBackward{});
           },
       .silu_backward =
           [](const Tensor& grad, const Tensor& x, const Tensor& out) {
             map("silu_backward", grad, x, out, SiluBackward{});
           }});
}

}  // namespace lectern::cuda
