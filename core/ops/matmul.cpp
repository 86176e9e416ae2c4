#include "core/ops/matmul.h"

#include "core/cpu/gemm.h"

namespace lectern {
namespace {

void forward_cpu(const Tensor& a, const Tensor& b, const MatmulArgs& args, const Tensor& out) {
  dispatch_floating(a.dtype(), "matmul", [&]<typename T>() {
    gemm({.transpose_a = args.transpose_a,
          .transpose_b = args.transpose_b,
          .m = out.dim(0),
          .n = out.dim(1),
          .k = a.dim(args.transpose_a ? 0 : 1),
          .lda = a.dim(1),
          .ldb = b.dim(1),
          .ldc = out.dim(1)},
         a.data<T>(), b.data<T>(), out.data<T>());
  });
}

}  // namespace

KernelTable<MatmulKernels>& matmul_table() {
  static KernelTable<MatmulKernels> instance("matmul", {forward_cpu});
  return instance;
}

Tensor matmul(const Tensor& a, const Tensor& b, const MatmulArgs& args) {
  check_ndim(a, 2, "matmul", "a");
  check_ndim(b, 2, "matmul", "b");
  const std::int64_t k = a.dim(args.transpose_a ? 0 : 1);
  if (b.dim(args.transpose_b ? 1 : 0) != k)
    fail<ShapeError>(fmt::format("matmul: b must have {} {}, got {} (a: {})", k,
                                 args.transpose_b ? "columns" : "rows", b.describe(),
                                 a.describe()));
  check_dtype(b, a.dtype(), "matmul", "b");
  check_device(b, a, "matmul", "b");
  Tensor out = Tensor::empty({a.dim(args.transpose_a ? 1 : 0), b.dim(args.transpose_b ? 0 : 1)},
                             a.dtype(), a.device());
  if (out.numel() == 0) return out;
  matmul_table().at(a.device()).forward(a.contiguous(), b.contiguous(), args, out);
  return out;
}

}  // namespace lectern
