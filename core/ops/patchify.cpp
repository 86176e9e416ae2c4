#include "core/ops/patchify.h"

#include "core/parallel.h"

#include <algorithm>

namespace lectern {
namespace {

/// Calls f(pixels of a run, same run in a patch) for every run of p pixels that lie side by side in
/// both layouts. Threads share out the rows of patches.
template <typename T, typename F>
void for_runs(T* pixels, T* patches, const Shape& shape, std::int64_t p, F f) {
  const std::int64_t channels = shape[1], height = shape[2], width = shape[3];
  const std::int64_t rows = height / p, columns = width / p, size = channels * p * p;
  parallel_for(shape[0] * rows, 1, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t ky = 0; ky < p; ++ky) {
          const std::int64_t line = (row / rows * channels + c) * height + row % rows * p + ky;
          for (std::int64_t j = 0; j < columns; ++j)
            f(pixels + line * width + j * p,
              patches + (row * columns + j) * size + (c * p + ky) * p);
        }
  });
}

void forward_cpu(const Tensor& pixels, const Tensor& patches, int patch_size) {
  dispatch_floating(pixels.dtype(), "patchify", [&]<typename T>() {
    for_runs(pixels.data<T>(), patches.data<T>(), pixels.shape(), patch_size,
             [=](const T* run, T* patch) { std::copy_n(run, patch_size, patch); });
  });
}

void inverse_cpu(const Tensor& patches, const Tensor& pixels, int patch_size) {
  dispatch_floating(pixels.dtype(), "patchify", [&]<typename T>() {
    for_runs(pixels.data<T>(), patches.data<T>(), pixels.shape(), patch_size,
             [=](T* run, const T* patch) { std::copy_n(patch, patch_size, run); });
  });
}

void check_patch_size(int patch_size) {
  if (patch_size < 1)
    fail<ShapeError>(fmt::format("patchify: patch_size must be >= 1, got {}", patch_size));
}

}  // namespace

KernelTable<PatchifyKernels>& patchify_table() {
  static KernelTable<PatchifyKernels> instance("patchify", {forward_cpu, inverse_cpu});
  return instance;
}

Tensor patchify(const Tensor& pixels, int patch_size) {
  check_ndim(pixels, 4, "patchify", "pixels");
  check_patch_size(patch_size);
  const std::int64_t p = patch_size;
  if (pixels.dim(2) % p != 0 || pixels.dim(3) % p != 0)
    fail<ShapeError>(
        fmt::format("patchify: pixels must have sides that are multiples of patch_size={}, got {}",
                    p, pixels.describe()));
  Tensor out =
      Tensor::empty({pixels.dim(0), pixels.dim(2) / p, pixels.dim(3) / p, pixels.dim(1) * p * p},
                    pixels.dtype(), pixels.device());
  if (out.numel() == 0) return out;
  patchify_table().at(pixels.device()).forward(pixels.contiguous(), out, patch_size);
  return out;
}

Tensor unpatchify(const Tensor& patches, int patch_size) {
  check_ndim(patches, 4, "patchify", "patches");
  check_patch_size(patch_size);
  const std::int64_t p = patch_size;
  if (patches.dim(3) % (p * p) != 0)
    fail<ShapeError>(fmt::format("patchify: patches must be [N, h, w, C * {} * {}], got {}", p, p,
                                 patches.describe()));
  Tensor out = Tensor::empty(
      {patches.dim(0), patches.dim(3) / (p * p), patches.dim(1) * p, patches.dim(2) * p},
      patches.dtype(), patches.device());
  if (out.numel() == 0) return out;
  patchify_table().at(patches.device()).inverse(patches.contiguous(), out, patch_size);
  return out;
}

}  // namespace lectern
