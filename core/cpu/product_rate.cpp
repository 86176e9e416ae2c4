#include "core/cpu/product_rate.h"

#include "core/cpu/dnnl_support.h"
#include "core/random.h"
#include "core/stopwatch.h"

#include <algorithm>

namespace lectern {

double measured_product_rate(DType dtype, std::int64_t size) {
  using dnnl::memory;
  if (dtype != DType::f32 && dtype != DType::bf16)
    fail<DTypeError>(
        fmt::format("measured_product_rate: dtype must be f32 or bf16, got {}", name_of(dtype)));
  const auto type = dtype == DType::f32 ? memory::data_type::f32 : memory::data_type::bf16;
  const memory::desc operand({size, size}, type, memory::dims{size, 1});
  const memory::desc result({size, size}, memory::data_type::f32, memory::dims{size, 1});
  require_memory_for_code();
  dnnl::matmul::primitive_desc description;
  try {
    description = dnnl::matmul::primitive_desc(dnnl::matmul::desc(operand, operand, result),
                                               dnnl_attributes(), dnnl_engine());
  } catch (const dnnl::error&) {
    return 0;
  }
  const Tensor values = Tensor::empty({size, size}), c = Tensor::empty({size, size});
  Random(0, "product rate").fill_normal(values, 0, 1);
  const Tensor a = values.to(dtype), b = a.clone();
  const dnnl::matmul primitive(description);
  double best = 1e30;
  constexpr int kRuns = 8;
  for (int run = 0; run < kRuns; ++run) {
    const Stopwatch watch;
    dnnl_run(primitive, description.scratchpad_desc(),
             {{DNNL_ARG_SRC, dnnl_memory(operand, a.raw())},
              {DNNL_ARG_WEIGHTS, dnnl_memory(operand, b.raw())},
              {DNNL_ARG_DST, dnnl_memory(result, c.raw())}});
    const double seconds = watch.seconds();
    if (run > 0) best = std::min(best, seconds);
  }
  const auto n = static_cast<double>(size);
  return 2 * n * n * n / best;
}

}  // namespace lectern
