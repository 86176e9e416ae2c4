#include "core/ops/experts.h"
#include "core/ops/swiglu_math.h"
#include "cuda/collective.h"
#include "cuda/launch.h"
#include "cuda/ops/expert_products.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr int kThreads = 256;

// --- the order of the pairs: a stable counting sort in three launches ---------------------------

/// counts[block, e] = pairs of expert e among the block's.
__global__ void count_pairs_kernel(Span<const std::int32_t> indices, Span<std::int32_t> counts,
                                   std::int64_t pairs, int experts) {
  SharedMemory memory;
  const auto mine = memory.take<std::int32_t>(experts);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) mine[e] = 0;
  __syncthreads();
  const std::int64_t pair = grid_thread();
  if (pair < pairs) mine.atomic_add(indices[pair], 1);
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads)
    counts[static_cast<std::int64_t>(blockIdx.x) * experts + e] = mine[e];
}

/// Turns counts into the first place of each block's pairs of an expert, and fills begin and
/// tile_begin. One block.
__global__ void offsets_kernel(Span<std::int32_t> counts, Span<std::int32_t> begin,
                               Span<std::int32_t> tile_begin, std::int64_t blocks, int experts) {
  SharedMemory memory;
  const auto totals = memory.take<std::int32_t>(experts);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    std::int32_t total = 0;
    for (std::int64_t block = 0; block < blocks; ++block) total += counts[block * experts + e];
    totals[e] = total;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    std::int32_t places = 0, tiles = 0;
    for (int e = 0; e < experts; ++e) {
      const std::int32_t total = totals[e];
      begin[e] = places;
      tile_begin[e] = tiles;
      totals[e] = places;
      places += total;
      tiles += (total + static_cast<std::int32_t>(kExpertTileRows) - 1) /
               static_cast<std::int32_t>(kExpertTileRows);
    }
    begin[experts] = places;
    tile_begin[experts] = tiles;
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    std::int32_t next = totals[e];
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int32_t count = counts[block * experts + e];
      counts[block * experts + e] = next;
      next += count;
    }
  }
}

__global__ void place_pairs_kernel(Span<const std::int32_t> indices, Span<const std::int32_t> first,
                                   Span<std::int32_t> pair_at, Span<std::int32_t> place_of,
                                   std::int64_t pairs, int experts) {
  SharedMemory memory;
  const auto expert_of = memory.take<std::int32_t>(kThreads);
  const std::int64_t pair = grid_thread();
  const int me = static_cast<int>(threadIdx.x);
  const std::int32_t expert = pair < pairs ? indices[pair] : -1;
  expert_of[me] = expert;
  __syncthreads();
  if (pair >= pairs) return;
  std::int32_t place = first[static_cast<std::int64_t>(blockIdx.x) * experts + expert];
  for (int i = 0; i < me; ++i)
    if (expert_of[i] == expert) ++place;
  pair_at[place] = static_cast<std::int32_t>(pair);
  place_of[pair] = place;
}

// --- rows ---------------------------------------------------------------------------------------

/// out[n] = sum over k of weights[n, k] * rows[place of (n, k)], k ascending; without weights,
/// ones.
template <int N>
__global__ void combine_kernel(Span<const float> rows, Span<const float> weights,
                               Span<const std::int32_t> place_of, Span<float> out,
                               std::int64_t tokens, std::int64_t width, int top_k) {
  const std::int64_t packs = width / N;
  for (std::int64_t i = grid_thread(); i < tokens * packs; i += grid_threads()) {
    const std::int64_t token = i / packs, column = i % packs * N;
    Pack<float, N> sum{};
    for (std::int64_t pair = token * top_k; pair < (token + 1) * top_k; ++pair) {
      const auto row = rows.template load<N>(place_of[pair] * width + column);
      const float weight = weights.exists() ? weights[pair] : 1.0f;
      for (int k = 0; k < N; ++k) sum[k] += weight * row[k];
    }
    out.template store<N>(token * width + column, sum);
  }
}

/// hidden[place] = silu(gate) * up
template <typename T>
__global__ void activate_kernel(Span<const T> gate_up, Span<T> hidden, std::int64_t count,
                                std::int64_t inner) {
  for (std::int64_t i = grid_thread(); i < count; i += grid_threads()) {
    const std::int64_t place = i / inner, column = i % inner, at = place * 2 * inner + column;
    hidden[i] =
        from_float<T>(swiglu_math::output(to_float(gate_up[at]), to_float(gate_up[at + inner])));
  }
}

template <typename T>
struct ActivationBackward {
  Span<const T> gate_up;      // [places, 2 inner]
  Span<const float> grad;     // [places, inner]: down^T grad_out, without the weight
  Span<const float> weights;  // [pairs]
  Span<const std::int32_t> pair_at;
  Span<T> grad_gate_up, hidden;  // hidden: weight * silu(gate) * up
  Span<float> grad_weights;      // [pairs]; may not exist
  std::int64_t inner;
};

/// A block a place.
template <typename T>
__global__ void activation_backward_kernel(ActivationBackward<T> a) {
  SharedMemory memory;
  const auto scratch = memory.take<float>(kThreads / kWarp);
  const std::int64_t place = blockIdx.x, pair = a.pair_at[place];
  const float weight = a.weights[pair];
  float dot = 0;
  for (std::int64_t i = threadIdx.x; i < a.inner; i += kThreads) {
    const std::int64_t at = place * 2 * a.inner + i;
    const float gate = to_float(a.gate_up[at]), up = to_float(a.gate_up[at + a.inner]);
    const float grad = a.grad[place * a.inner + i], hidden = swiglu_math::output(gate, up);
    dot += grad * hidden;
    const auto g = swiglu_math::gradients(weight * grad, gate, up);
    a.grad_gate_up[at] = from_float<T>(g.gate);
    a.grad_gate_up[at + a.inner] = from_float<T>(g.up);
    a.hidden[place * a.inner + i] = from_float<T>(weight * hidden);
  }
  dot = block_sum(scratch, dot);
  if (threadIdx.x == 0 && a.grad_weights.exists()) a.grad_weights[pair] = dot;
}

// --- host ---------------------------------------------------------------------------------------

struct Sizes {
  std::int64_t tokens, width, top_k, experts, inner, pairs;

  explicit Sizes(const ExpertsInput& input)
      : tokens(input.x.dim(0)),
        width(input.x.dim(1)),
        top_k(input.indices.dim(1)),
        experts(input.down.dim(0)),
        inner(input.down.dim(2)),
        pairs(tokens * top_k) {}
};

Tensor integers(std::int64_t count, Device device) {
  return Tensor::empty({count}, DType::i32, device);
}

ExpertPlaces places_of(const ExpertOrder& order, const Sizes& s) {
  return {order.begin_on_device,
          order.tile_begin_on_device,
          order.pair_at_on_device,
          s.experts,
          s.pairs,
          s.top_k};
}

ExpertOrder sort_pairs(const Tensor& indices, const Sizes& s) {
  const Device device = indices.device();
  const std::int64_t blocks = ceil_divide(s.pairs, kThreads);
  const auto experts = static_cast<int>(s.experts);
  const Tensor counts = integers(blocks * s.experts, device);
  ExpertOrder order;
  order.begin_on_device = integers(s.experts + 1, device);
  order.tile_begin_on_device = integers(s.experts + 1, device);
  order.pair_at_on_device = integers(s.pairs, device);
  order.place_of_on_device = integers(s.pairs, device);
  const std::size_t shared = shared_bytes_of<std::int32_t>(static_cast<std::size_t>(experts));
  if (blocks > 0)
    launch("count_pairs", {static_cast<unsigned>(blocks), kThreads, shared}, count_pairs_kernel,
           span<const std::int32_t>(indices), span<std::int32_t>(counts), s.pairs, experts);
  launch("expert_offsets", {1, kThreads, shared}, offsets_kernel, span<std::int32_t>(counts),
         span<std::int32_t>(order.begin_on_device), span<std::int32_t>(order.tile_begin_on_device),
         blocks, experts);
  if (blocks > 0)
    launch("place_pairs",
           {static_cast<unsigned>(blocks), kThreads, shared_bytes_of<std::int32_t>(kThreads)},
           place_pairs_kernel, span<const std::int32_t>(indices), span<const std::int32_t>(counts),
           span<std::int32_t>(order.pair_at_on_device),
           span<std::int32_t>(order.place_of_on_device), s.pairs, experts);
  return order;
}

void combine(const Tensor& rows, const Tensor& weights, const ExpertOrder& order, const Sizes& s,
             const Tensor& out) {
  if (out.numel() == 0) return;
  dispatch_width<float>(s.width, {&rows, &out}, [&]<int N>() {
    launch("combine_experts", {grid_for(out.numel() / N, kThreads), kThreads}, combine_kernel<N>,
           span<const float>(rows), span<const float>(weights),
           span<const std::int32_t>(order.place_of_on_device), span<float>(out), s.tokens, s.width,
           static_cast<int>(s.top_k));
  });
}

ExpertsResult forward(const ExpertsInput& given, bool keep) {
  ExpertsInput input = given;
  input.x = given.x.to(given.gate_up.dtype());  // f32 rows may meet bf16 matrices
  const Sizes s(input);
  const Device device = input.x.device();
  const DType dtype = input.x.dtype();
  ExpertsResult result;
  result.order = sort_pairs(input.indices, s);
  const ExpertPlaces places = places_of(result.order, s);
  const Tensor gate_up = Tensor::empty({s.pairs, 2 * s.inner}, dtype, device);
  expert_rows_product(places, {input.x, true}, input.gate_up, false, gate_up);
  const Tensor hidden = Tensor::empty({s.pairs, s.inner}, dtype, device);
  if (hidden.numel() > 0)
    dispatch_storage(dtype, "experts", [&]<typename T>() {
      launch("activate_experts", {grid_for(hidden.numel(), kThreads), kThreads}, activate_kernel<T>,
             span<const T>(gate_up), span<T>(hidden), hidden.numel(), s.inner);
    });
  const Tensor rows = Tensor::empty({s.pairs, s.width}, DType::f32, device);
  expert_rows_product(places, {hidden, false}, input.down, false, rows);
  result.out = Tensor::empty(input.x.shape(), DType::f32, device);
  combine(rows, input.weights, result.order, s, result.out);
  if (keep) result.gate_up_output = gate_up;
  return result;
}

ExpertsGradients backward(const Tensor& grad_out, const ExpertsInput& input,
                          const ExpertsResult& forward, const ExpertsWanted& wanted) {
  const Sizes s(input);
  const Device device = input.x.device();
  const DType dtype = input.x.dtype();
  const ExpertPlaces places = places_of(forward.order, s);
  const auto wanted_like = [&](bool is_wanted, const Tensor& like) {
    return is_wanted ? Tensor::empty(like.shape(), DType::f32, device) : Tensor();
  };
  ExpertsGradients out;
  out.x = wanted_like(wanted.x, input.x);
  out.weights = wanted_like(wanted.weights, input.weights);
  out.gate_up = wanted_like(wanted.gate_up, input.gate_up);
  out.down = wanted_like(wanted.down, input.down);
  const ExpertRows grads{grad_out.to(dtype), true};
  const Tensor grad_hidden = Tensor::empty({s.pairs, s.inner}, DType::f32, device);
  expert_rows_product(places, grads, input.down, true, grad_hidden);
  const Tensor grad_gate_up = Tensor::empty({s.pairs, 2 * s.inner}, dtype, device);
  const Tensor hidden = Tensor::empty({s.pairs, s.inner}, dtype, device);
  if (s.pairs > 0)
    dispatch_storage(dtype, "experts", [&]<typename T>() {
      launch("activation_backward",
             {static_cast<unsigned>(s.pairs), kThreads, shared_bytes_of<float>(kThreads / kWarp)},
             activation_backward_kernel<T>,
             ActivationBackward<T>{span<const T>(forward.gate_up_output),
                                   span<const float>(grad_hidden), span<const float>(input.weights),
                                   span<const std::int32_t>(places.pair_at), span<T>(grad_gate_up),
                                   span<T>(hidden), span<float>(out.weights), s.inner});
    });
  if (wanted.down) expert_weights_product(places, grads, {hidden, false}, out.down);
  if (wanted.gate_up)
    expert_weights_product(places, {grad_gate_up, false}, {input.x, true}, out.gate_up);
  if (wanted.x) {
    const Tensor rows = Tensor::empty({s.pairs, s.width}, DType::f32, device);
    expert_rows_product(places, {grad_gate_up, false}, input.gate_up, true, rows);
    combine(rows, {}, forward.order, s, out.x);
  }
  return out;
}

}  // namespace

void register_experts() { experts_table().set(DeviceType::cuda, {forward, backward}); }

}  // namespace lectern::cuda
