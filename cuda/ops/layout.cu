#include "core/device_backend.h"
#include "core/ops/layout.h"
#include "cuda/launch.h"
#include "cuda/ops/convert.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

/// `count` blocks of `block` units, `from_pitch` and `to_pitch` units apart; a pitch of 0 repeats.
struct BlockCopy {
  std::int64_t count, block, from_pitch, to_pitch;
};

template <typename Unit>
__global__ void copy_blocks_kernel(Span<const Unit> from, Span<Unit> to, BlockCopy copy) {
  for (std::int64_t i = grid_thread(); i < copy.count * copy.block; i += grid_threads()) {
    const std::int64_t block = i / copy.block, offset = i % copy.block;
    to[block * copy.to_pitch + offset] = from[block * copy.from_pitch + offset];
  }
}

template <typename Unit>
bool copy_in_units(const std::byte* from, std::byte* to, BlockCopy copy) {
  constexpr auto kSize = static_cast<std::int64_t>(sizeof(Unit));
  for (const std::int64_t bytes : {copy.block, copy.from_pitch, copy.to_pitch,
                                   static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(from)),
                                   static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(to))})
    if (bytes % kSize != 0) return false;
  const BlockCopy units{copy.count, copy.block / kSize, copy.from_pitch / kSize,
                        copy.to_pitch / kSize};
  launch("copy_blocks", {grid_for(units.count * units.block, kThreads), kThreads},
         copy_blocks_kernel<Unit>,
         Span<const Unit>(reinterpret_cast<const Unit*>(from),
                          (units.count - 1) * units.from_pitch + units.block),
         Span<Unit>(reinterpret_cast<Unit*>(to), (units.count - 1) * units.to_pitch + units.block),
         units);
  return true;
}

/// All numbers in bytes; moved in the largest units that fit.
void copy_blocks(const void* from, void* to, BlockCopy copy) {
  if (copy.count * copy.block == 0) return;
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  (void)(copy_in_units<Pack<std::uint32_t, 4>>(source, target, copy) ||
         copy_in_units<std::uint32_t>(source, target, copy) ||
         copy_in_units<std::uint16_t>(source, target, copy) ||
         copy_in_units<std::uint8_t>(source, target, copy));
}

std::int64_t step_bytes(const Tensor& x, int dim) {
  auto bytes = static_cast<std::int64_t>(size_of(x.dtype()));
  for (int i = dim + 1; i < x.ndim(); ++i) bytes *= x.dim(i);
  return bytes;
}

std::int64_t count_before(const Tensor& x, int dim) {
  std::int64_t count = 1;
  for (int i = 0; i < dim; ++i) count *= x.dim(i);
  return count;
}

void copy_into(const Tensor& x, const Tensor& out, int dim, std::int64_t at) {
  if (x.numel() == 0) return;
  const std::int64_t step = step_bytes(x, dim), block = step * x.dim(dim);
  copy_blocks(x.raw(), static_cast<std::byte*>(out.raw()) + at * step,
              {count_before(x, dim), block, block, step * out.dim(dim)});
}

void copy_from(const Tensor& x, const Tensor& out, int dim, std::int64_t begin) {
  if (out.numel() == 0) return;
  const std::int64_t step = step_bytes(x, dim), block = step * out.dim(dim);
  copy_blocks(static_cast<const std::byte*>(x.raw()) + begin * step, out.raw(),
              {count_before(x, dim), block, step * x.dim(dim), block});
}

void repeat(const Tensor& x, const Tensor& out) {
  if (out.numel() == 0) return;
  const auto block = static_cast<std::int64_t>(x.bytes());
  copy_blocks(x.raw(), out.raw(), {out.dim(0), block, 0, block});
}

void permute(const Tensor& x, std::span<const int> dims, const Tensor& out) {
  // A view in the output's order: dimension i of it is dims[i] of x.
  Tensor view = x;
  std::vector<int> order(static_cast<std::size_t>(x.ndim()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  for (std::size_t i = 0; i < order.size(); ++i)
    for (std::size_t j = i; j < order.size(); ++j)
      if (order[j] == dims[i] && i != j) {
        view = view.transpose(static_cast<int>(i), static_cast<int>(j));
        std::swap(order[i], order[j]);
      }
  convert_strided(view, out);
}

void zero(const Tensor& out) {
  if (out.numel() > 0) device_backend(out.device()).zero(out.raw(), out.bytes(), out.device());
}

}  // namespace

void register_layout() {
  layout_table().set(DeviceType::cuda, {copy_into, copy_from, repeat, permute, zero});
}

}  // namespace lectern::cuda
