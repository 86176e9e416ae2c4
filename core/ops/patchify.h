// patchify: cuts images into square patches, so that a patch embedding is a linear layer whose
// weight is the convolution's [E, C, p, p] viewed as [E, C p p].
//
//   patches[n, i, j, (c p + ky) p + kx] = pixels[n, c, i p + ky, j p + kx]
//   pixels  [N, C, S1, S2]              f32 or f64, channels first as image files decode
//   patches [N, S1 / p, S2 / p, C p p]  same dtype, contiguous
// A permutation of the elements: grad_pixels is its inverse, unpatchify(). Empty gives empty.
// Throws ShapeError when p does not divide both sides, DTypeError.
#pragma once

#include "core/kernel_table.h"
#include "core/tensor.h"

namespace lectern {

Tensor patchify(const Tensor& pixels, int patch_size);

/// [N, h, w, C p p] -> [N, C, h p, w p]
Tensor unpatchify(const Tensor& patches, int patch_size);

/// pixels [N, C, S1, S2] and patches [N, h, w, C p p], both contiguous; one is read, one written.
struct PatchifyKernels {
  void (*forward)(const Tensor& pixels, const Tensor& patches, int patch_size);
  void (*inverse)(const Tensor& patches, const Tensor& pixels, int patch_size);
};
KernelTable<PatchifyKernels>& patchify_table();

}  // namespace lectern
