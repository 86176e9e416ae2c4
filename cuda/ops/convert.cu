#include "cuda/launch.h"
#include "cuda/ops/convert.h"
#include "cuda/vectors.h"

#include <array>

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// Sizes of the tensor and the steps of both ends, outermost first; neighbours that lie together in
/// both are one dimension. Spans reach over the whole extent of the strided tensors.
struct Layout {
  std::int64_t size[Shape::kMaxDims];
  std::int64_t from_step[Shape::kMaxDims];
  std::int64_t to_step[Shape::kMaxDims];
  int ndim = 0;
  std::int64_t count = 1;
};

Layout layout_of(const Tensor& from, const Tensor& to) {
  Layout out;
  for (int i = 0; i < to.ndim(); ++i) {
    const std::int64_t n = to.dim(i), step_from = from.stride(i), step_to = to.stride(i);
    out.count *= n;
    if (n == 1) continue;
    const int last = out.ndim - 1;
    if (last >= 0 && out.from_step[last] == n * step_from && out.to_step[last] == n * step_to) {
      out.size[last] *= n;
      out.from_step[last] = step_from;
      out.to_step[last] = step_to;
    } else {
      out.size[out.ndim] = n;
      out.from_step[out.ndim] = step_from;
      out.to_step[out.ndim++] = step_to;
    }
  }
  return out;
}

/// Elements from the first to the last of a strided view.
std::int64_t extent(const Tensor& x) {
  std::int64_t last = 0;
  for (int i = 0; i < x.ndim(); ++i) last += (x.dim(i) - 1) * x.stride(i);
  return last + 1;
}

template <typename To, typename From>
__device__ To convert_element(From value) {
  if constexpr (std::is_same_v<To, From>)
    return value;
  else if constexpr (std::is_same_v<From, BFloat16>)
    return convert_element<To>(to_float(value));
  else if constexpr (std::is_same_v<To, BFloat16>)
    return from_float<BFloat16>(static_cast<float>(value));
  else
    return static_cast<To>(value);
}

template <typename To, typename From>
__global__ void convert_kernel(Span<const From> from, Span<To> to, Layout layout) {
  for (std::int64_t i = grid_thread(); i < layout.count; i += grid_threads()) {
    std::int64_t rest = i, source = 0, target = 0;
    for (int d = layout.ndim - 1; d >= 0; --d) {
      const std::int64_t at = rest % layout.size[d];
      rest /= layout.size[d];
      source += at * layout.from_step[d];
      target += at * layout.to_step[d];
    }
    to[target] = convert_element<To>(from[source]);
  }
}

/// Contiguous f32 <-> bf16, the conversion that training does all the time.
template <typename To, typename From>
__global__ void convert_packs_kernel(Span<const From> from, Span<To> to, std::int64_t packs) {
  constexpr int kCount = 8;
  for (std::int64_t i = grid_thread(); i < packs; i += grid_threads()) {
    Pack<To, kCount> out;
    if constexpr (sizeof(From) == 4) {
      const auto low = from.template load<4>(i * kCount),
                 high = from.template load<4>(i * kCount + 4);
      for (int k = 0; k < 4; ++k) {
        out[k] = from_float<To>(low[k]);
        out[4 + k] = from_float<To>(high[k]);
      }
      to.template store<kCount>(i * kCount, out);
    } else {
      const auto in = from.template load<kCount>(i * kCount);
      Pack<To, 4> low, high;
      for (int k = 0; k < 4; ++k) {
        low[k] = to_float(in[k]);
        high[k] = to_float(in[4 + k]);
      }
      to.template store<4>(i * kCount, low);
      to.template store<4>(i * kCount + 4, high);
    }
  }
}

template <typename T>
__global__ void fill_kernel(Span<T> x, Layout layout, T value) {
  for (std::int64_t i = grid_thread(); i < layout.count; i += grid_threads()) {
    std::int64_t rest = i, target = 0;
    for (int d = layout.ndim - 1; d >= 0; --d) {
      target += rest % layout.size[d] * layout.to_step[d];
      rest /= layout.size[d];
    }
    x[target] = value;
  }
}

template <typename To, typename From>
bool convert_packs(const Tensor& from, const Tensor& to) {
  constexpr bool kPair = (std::is_same_v<To, BFloat16> && std::is_same_v<From, float>) ||
                         (std::is_same_v<From, BFloat16> && std::is_same_v<To, float>);
  if constexpr (kPair) {
    if (!from.is_contiguous() || !to.is_contiguous() || to.numel() % 8 != 0 ||
        !are_aligned({&from, &to}))
      return false;
    const std::int64_t packs = to.numel() / 8;
    launch("convert", {grid_for(packs, kThreads), kThreads}, convert_packs_kernel<To, From>,
           span<const From>(from), span<To>(to), packs);
    return true;
  }
  return false;
}

}  // namespace

void convert_strided(const Tensor& from, const Tensor& to) {
  if (to.numel() == 0) return;
  const Layout layout = layout_of(from, to);
  dispatch_all(to.dtype(), [&]<typename To>() {
    dispatch_all(from.dtype(), [&]<typename From>() {
      if (convert_packs<To, From>(from, to)) return;
      launch("convert", {grid_for(layout.count, kThreads), kThreads}, convert_kernel<To, From>,
             Span<const From>(from.data<From>(), extent(from)), Span<To>(to.data<To>(), extent(to)),
             layout);
    });
  });
}

void fill_elements(const Tensor& x, double value) {
  const Layout layout = layout_of(x, x);
  dispatch_all(x.dtype(), [&]<typename T>() {
    T element;
    if constexpr (std::is_same_v<T, BFloat16>)
      element = BFloat16(static_cast<float>(value));
    else
      element = static_cast<T>(value);
    launch("fill", {grid_for(layout.count, kThreads), kThreads}, fill_kernel<T>,
           Span<T>(x.data<T>(), extent(x)), layout, element);
  });
}

}  // namespace lectern::cuda
