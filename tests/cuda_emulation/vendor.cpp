// What cuda/vendor/ does with NVIDIA's libraries, done plainly on the CPU: matrix products are not
// ours to test, but the layers around them are.
#include "core/cpu/gemm.h"
#include "cuda/matrix_product.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vendor/versions.h"
#include "tests/cuda_emulation/device_memory.h"

#include <vector>

namespace lectern::cuda {
namespace {

double value_at(const Tensor& x, std::int64_t i) {
  return x.dtype() == DType::bf16 ? static_cast<double>(static_cast<float>(x.data<BFloat16>()[i]))
                                  : static_cast<double>(x.data<float>()[i]);
}

/// The stored matrix [rows, columns] in f64, without its padding.
std::vector<double> widened(const Tensor& x, std::int64_t rows, std::int64_t columns,
                            std::int64_t step) {
  std::vector<double> out;
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t j = 0; j < columns; ++j) out.push_back(value_at(x, i * step + j));
  return out;
}

}  // namespace

std::string vendor_versions() { return "emulated"; }

void matrix_product(const MatrixProduct& p, const Tensor& a, const Tensor& b, const Tensor& c) {
  if (p.m == 0 || p.n == 0) return;
  const emulation::DeviceAccess open;
  const std::int64_t rows_a = p.transpose_a ? p.k : p.m, columns_a = p.transpose_a ? p.m : p.k;
  const std::int64_t rows_b = p.transpose_b ? p.n : p.k, columns_b = p.transpose_b ? p.k : p.n;
  const std::vector<double> x = widened(a, rows_a, columns_a, p.lda);
  const std::vector<double> y = widened(b, rows_b, columns_b, p.ldb);
  std::vector<double> out(static_cast<std::size_t>(p.m * p.n));
  gemm<double>({.transpose_a = p.transpose_a,
                .transpose_b = p.transpose_b,
                .m = p.m,
                .n = p.n,
                .k = p.k,
                .lda = columns_a,
                .ldb = columns_b,
                .ldc = p.n},
               x.data(), y.data(), out.data());
  for (std::int64_t i = 0; i < p.m; ++i)
    for (std::int64_t j = 0; j < p.n; ++j) {
      double value = out[static_cast<std::size_t>(i * p.n + j)];
      if (p.bias.defined()) value += value_at(p.bias, j);
      if (p.accumulate) value += value_at(c, i * p.ldc + j);
      if (c.dtype() == DType::bf16)
        c.data<BFloat16>()[i * p.ldc + j] = BFloat16(static_cast<float>(value));
      else
        c.data<float>()[i * p.ldc + j] = static_cast<float>(value);
    }
}

}  // namespace lectern::cuda
