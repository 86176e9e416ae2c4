#include "autograd/ops/patchify.h"

#include "core/ops/patchify.h"

namespace lectern {

Variable patchify(const Variable& pixels, int patch_size) {
  return record("patchify", patchify(pixels.value(), patch_size), {pixels},
                [patch_size](const Tensor& grad_patches) -> std::vector<Tensor> {
                  return {unpatchify(grad_patches, patch_size)};
                });
}

}  // namespace lectern
