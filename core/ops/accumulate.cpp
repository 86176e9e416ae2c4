#include "core/ops/accumulate.h"

#include "core/parallel.h"

namespace lectern {
namespace {

void accumulate_cpu(const Tensor& sum, const Tensor& term) {
  dispatch_floating(sum.dtype(), "accumulate", [&]<typename T>() {
    T* a = sum.data<T>();
    const T* b = term.data<T>();
    parallel_for(sum.numel(), 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) a[i] += b[i];
    });
  });
}

}  // namespace

KernelTable<AccumulateKernels>& accumulate_table() {
  static KernelTable<AccumulateKernels> instance("accumulate", {accumulate_cpu});
  return instance;
}

void accumulate(const Tensor& sum, const Tensor& term) {
  check_contiguous(sum, "accumulate", "sum");
  check_shape(term, sum.shape(), "accumulate", "term");
  check_dtype(term, sum.dtype(), "accumulate", "term");
  check_device(term, sum, "accumulate", "term");
  accumulate_table().at(sum.device()).forward(sum, term.contiguous());
}

}  // namespace lectern
