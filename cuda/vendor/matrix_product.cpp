#include "cuda/matrix_product.h"

#include "core/ops/layout.h"
#include "cuda/streams.h"

#include <cublasLt.h>

#include <map>
#include <mutex>
#include <tuple>

namespace lectern::cuda {
namespace {

void check_blas(cublasStatus_t status, const char* call, SourceLocation where = {}) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail<CudaError>(fmt::format("{}: must succeed, got {}", call, cublasLtGetStatusString(status)),
                    where);
}
#define CUBLAS_CALL(call) check_blas((call), #call)

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;

cublasLtHandle_t handle() {
  static cublasLtHandle_t instance = [] {
    cublasLtHandle_t made = nullptr;
    CUBLAS_CALL(cublasLtCreate(&made));
    return made;
  }();
  return instance;
}

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// Everything that the choice of an algorithm depends on.
using Key = std::tuple<bool, bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                       std::int64_t, std::int64_t, bool, bool, DType, DType, int>;

/// Descriptors of one kind of product and the algorithm that cuBLASLt advised for it. They live as
/// long as the process: a training run has a few hundred.
struct Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

template <typename V>
void set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, const V& value) {
  CUBLAS_CALL(cublasLtMatmulDescSetAttribute(product, attribute, &value, sizeof value));
}

/// Largest power of two up to 256 that divides all addresses.
std::uint32_t alignment_of(const Tensor& a, const Tensor& b, const Tensor& c) {
  const auto bits = reinterpret_cast<std::uintptr_t>(a.raw()) |
                    reinterpret_cast<std::uintptr_t>(b.raw()) |
                    reinterpret_cast<std::uintptr_t>(c.raw()) | 256u;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

Plan make_plan(const MatrixProduct& p, const Tensor& a, const Tensor& b, const Tensor& c) {
  // cuBLAS counts in columns, so that our row-major matrices are their own transposes to it:
  // C^T [n, m] = op(B)^T op(A)^T, its first operand our B.
  Plan plan;
  CUBLAS_CALL(cublasLtMatmulDescCreate(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias.defined()) {
    set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(c.dtype()));
  }
  const auto layout = [](cublasLtMatrixLayout_t* out, DType dtype, std::int64_t rows,
                         std::int64_t columns, std::int64_t step) {
    CUBLAS_CALL(cublasLtMatrixLayoutCreate(out, type_of(dtype), static_cast<std::uint64_t>(rows),
                                           static_cast<std::uint64_t>(columns), step));
  };
  layout(&plan.b, b.dtype(), p.transpose_b ? p.k : p.n, p.transpose_b ? p.n : p.k, p.ldb);
  layout(&plan.a, a.dtype(), p.transpose_a ? p.m : p.k, p.transpose_a ? p.k : p.m, p.lda);
  layout(&plan.c, c.dtype(), p.n, p.m, p.ldc);
  cublasLtMatmulPreference_t preference = nullptr;
  CUBLAS_CALL(cublasLtMatmulPreferenceCreate(&preference));
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    CUBLAS_CALL(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  const std::uint32_t alignment = alignment_of(a, b, c);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment);
  cublasLtMatmulHeuristicResult_t advice{};
  int found = 0;
  CUBLAS_CALL(cublasLtMatmulAlgoGetHeuristic(handle(), plan.product, plan.b, plan.a, plan.c, plan.c,
                                             preference, 1, &advice, &found));
  CUBLAS_CALL(cublasLtMatmulPreferenceDestroy(preference));
  if (found == 0)
    fail<CudaError>(fmt::format("cuBLASLt: no algorithm for [{}, {}] x [{}, {}] in {}", p.m, p.k,
                                p.k, p.n, name_of(a.dtype())));
  plan.algorithm = advice.algo;
  return plan;
}

const Plan& plan_of(const MatrixProduct& p, const Tensor& a, const Tensor& b, const Tensor& c) {
  static std::mutex mutex;
  static std::map<Key, Plan> plans;
  const std::lock_guard lock(mutex);
  const Key key{p.transpose_a,
                p.transpose_b,
                p.m,
                p.n,
                p.k,
                p.lda,
                p.ldb,
                p.ldc,
                p.accumulate,
                p.bias.defined(),
                a.dtype(),
                c.dtype(),
                static_cast<int>(alignment_of(a, b, c))};
  const auto known = plans.find(key);
  return known != plans.end() ? known->second
                              : plans.emplace(key, make_plan(p, a, b, c)).first->second;
}

}  // namespace

void matrix_product(const MatrixProduct& p, const Tensor& a, const Tensor& b, const Tensor& c) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    if (!p.accumulate) c.fill(0);
    if (p.bias.defined()) c.copy_from(repeat_leading(p.bias.to(c.dtype()), p.m));
    return;
  }
  const Range range("matrix_product");
  const Plan& plan = plan_of(p, a, b, c);
  const Tensor bias = p.bias.defined() ? p.bias.to(c.dtype()) : Tensor();
  if (bias.defined()) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.raw());
  const Tensor workspace =
      Tensor::empty({static_cast<std::int64_t>(kWorkspaceBytes)}, DType::u8, a.device());
  const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
  CUBLAS_CALL(cublasLtMatmul(handle(), plan.product, &one, b.raw(), plan.b, a.raw(), plan.a, &beta,
                             c.raw(), plan.c, c.raw(), plan.c, &plan.algorithm, workspace.raw(),
                             kWorkspaceBytes, compute_stream()));
}

}  // namespace lectern::cuda
