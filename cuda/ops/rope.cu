#include "core/ops/rope.h"
#include "core/ops/rope_math.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

#include <map>
#include <mutex>
#include <vector>

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 128;

template <typename T>
struct Arguments {
  Span<const T> qkv;
  Span<const float> frequency;         // [half]
  Span<const std::int32_t> positions;  // [rows]; may not exist
  Span<T> out;                         // may be qkv
  std::int64_t tokens, columns, offset;
  int rotated_heads, half;
  float sign;
};

/// A block rotates one token: the angles once, in shared memory, then all heads of q and k, and
/// copies v when the result is another tensor. `half` is a multiple of N.
template <typename T, int N>
__global__ void rope_kernel(Arguments<T> a) {
  SharedMemory memory;
  const auto cosines = memory.take<float>(a.half);
  const auto sines = memory.take<float>(a.half);
  const std::int64_t row = blockIdx.x, begin = row * a.columns;
  const std::int64_t position = a.positions.exists() ? a.positions[row] : a.offset + row % a.tokens;
  for (int j = static_cast<int>(threadIdx.x); j < a.half; j += static_cast<int>(blockDim.x)) {
    const float angle = static_cast<float>(position) * a.frequency[j];
    float sine, cosine;
    sincosf(angle, &sine, &cosine);
    cosines[j] = cosine;
    sines[j] = a.sign * sine;
  }
  __syncthreads();
  const int packs = a.half / N;
  for (int i = static_cast<int>(threadIdx.x); i < a.rotated_heads * packs;
       i += static_cast<int>(blockDim.x)) {
    const int j = i % packs * N;
    const std::int64_t at = begin + static_cast<std::int64_t>(i / packs) * 2 * a.half + j;
    const auto low = a.qkv.template load<N>(at), high = a.qkv.template load<N>(at + a.half);
    Pack<T, N> out_low, out_high;
    for (int k = 0; k < N; ++k) {
      const float cosine = cosines[j + k], sine = sines[j + k];
      const auto pair = rope_math::rotate(to_float(low[k]), to_float(high[k]), cosine, sine);
      out_low[k] = from_float<T>(pair.low);
      out_high[k] = from_float<T>(pair.high);
    }
    a.out.template store<N>(at, out_low);
    a.out.template store<N>(at + a.half, out_high);
  }
  const std::int64_t rotated = static_cast<std::int64_t>(a.rotated_heads) * 2 * a.half;
  for (std::int64_t c = rotated + threadIdx.x * N; c < a.columns; c += blockDim.x * N)
    a.out.template store<N>(begin + c, a.qkv.template load<N>(begin + c));
}

/// Inverse frequencies [half] on the CPU; on_device keeps the copy that the kernel reads.
Tensor frequencies(double theta, std::int64_t half) {
  static std::mutex mutex;
  static std::map<std::pair<double, std::int64_t>, Tensor> known;
  const std::lock_guard lock(mutex);
  Tensor& table = known[{theta, half}];
  if (!table.defined()) {
    std::vector<float> values;
    for (std::int64_t j = 0; j < half; ++j)
      values.push_back(rope_math::inverse_frequency(theta, j, half));
    table = Tensor::from(values, {half});
  }
  return table;
}

void forward(const Tensor& qkv, const RopeArgs& args, bool inverse, const Tensor& out) {
  const std::int64_t tokens = qkv.dim(1), rows = qkv.dim(0) * tokens, columns = qkv.dim(2);
  const std::int64_t half = args.head_dim / 2;
  const Tensor frequency = on_device(frequencies(args.theta, half), qkv.device());
  const Tensor positions = on_device(args.positions, qkv.device());
  dispatch_storage(qkv.dtype(), "rope", [&]<typename T>() {
    dispatch_width<T>(half, {&qkv, &out}, [&]<int N>() {
      launch("rope",
             {static_cast<unsigned>(rows), kThreads,
              2 * shared_bytes_of<float>(static_cast<std::size_t>(half))},
             rope_kernel<T, N>,
             Arguments<T>{span<const T>(qkv), span<const float>(frequency),
                          span<const std::int32_t>(positions), span<T>(out), tokens, columns,
                          args.offset, static_cast<int>(args.heads + args.kv_heads),
                          static_cast<int>(half), inverse ? -1.0f : 1.0f});
    });
  });
}

}  // namespace

void register_rope() { rope_table().set(DeviceType::cuda, {forward}); }

}  // namespace lectern::cuda
