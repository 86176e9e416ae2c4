#include "core/ops/patchify.h"
#include "cuda/launch.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Image {
  std::int64_t channels, height, width, patch, count;
};

/// patches[n, i, j, (c p + ky) p + kx] <-> pixels[n, c, i p + ky, j p + kx], a pack of kx a thread;
/// p a multiple of N.
template <typename T, int N, bool kInverse>
__global__ void patchify_kernel(Span<const T> from, Span<T> to, Image g) {
  const std::int64_t p = g.patch, rows = g.height / p, columns = g.width / p;
  for (std::int64_t i = grid_thread(); i < g.count / N; i += grid_threads()) {
    const std::int64_t in_patches = i * N;
    const std::int64_t kx = in_patches % p, ky = in_patches / p % p;
    const std::int64_t c = in_patches / (p * p) % g.channels;
    const std::int64_t patch = in_patches / (p * p * g.channels);
    const std::int64_t j = patch % columns, row = patch / columns % rows;
    const std::int64_t n = patch / (columns * rows);
    const std::int64_t in_pixels =
        ((n * g.channels + c) * g.height + row * p + ky) * g.width + j * p + kx;
    if constexpr (kInverse)
      to.template store<N>(in_pixels, from.template load<N>(in_patches));
    else
      to.template store<N>(in_patches, from.template load<N>(in_pixels));
  }
}

template <bool kInverse>
void move(const Tensor& from, const Tensor& to, int patch_size) {
  const Tensor& pixels = kInverse ? to : from;
  const Image image{pixels.dim(1), pixels.dim(2), pixels.dim(3), patch_size, pixels.numel()};
  dispatch_storage(from.dtype(), "patchify", [&]<typename T>() {
    dispatch_width<T>(patch_size, {&from, &to}, [&]<int N>() {
      launch(kInverse ? "unpatchify" : "patchify", {grid_for(image.count / N, kThreads), kThreads},
             patchify_kernel<T, N, kInverse>, span<const T>(from), span<T>(to), image);
    });
  });
}

}  // namespace

void register_patchify() { patchify_table().set(DeviceType::cuda, {move<false>, move<true>}); }

}  // namespace lectern::cuda
