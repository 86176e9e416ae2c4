#include "core/ops/matmul.h"

#include "cuda/matrix_product.h"
#include "cuda/ops/register_ops.h"

namespace lectern::cuda {
namespace {

void forward(const Tensor& a, const Tensor& b, const MatmulArgs& args, const Tensor& out) {
  matrix_product({.transpose_a = args.transpose_a,
                  .transpose_b = args.transpose_b,
                  .m = out.dim(0),
                  .n = out.dim(1),
                  .k = a.dim(args.transpose_a ? 0 : 1),
                  .lda = a.dim(1),
                  .ldb = b.dim(1),
                  .ldc = out.dim(1)},
                 a, b, out);
}

}  // namespace

void register_matmul() { matmul_table().set(DeviceType::cuda, {forward}); }

}  // namespace lectern::cuda
