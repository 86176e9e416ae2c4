#include "core/ops/convert.h"

#include "core/convert_math.h"
#include "core/parallel.h"

#include <atomic>
#include <memory>

namespace lectern {
namespace {

constexpr std::int64_t kGrain = 1 << 15;

std::atomic<std::size_t> copy_bytes{0};

/// The copy of a weight, and the version of its storage that it was made from.
struct Bf16Copy {
  Bf16Copy(std::uint64_t at, Tensor copy) : version(at), data(std::move(copy)) {
    copy_bytes += data.bytes();
  }
  Bf16Copy(const Bf16Copy&) = delete;
  Bf16Copy& operator=(const Bf16Copy&) = delete;
  ~Bf16Copy() { copy_bytes -= data.bytes(); }

  std::uint64_t version;
  Tensor data;
};

void convert_cpu(const Tensor& x, const Tensor& out) {
  if (x.dtype() == DType::f32) {
    const float* from = x.data<float>();
    BFloat16* to = out.data<BFloat16>();
    parallel_for(x.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
      convert_math::row_to_bf16(from + begin, end - begin, to + begin);
    });
  } else {
    const BFloat16* from = x.data<BFloat16>();
    float* to = out.data<float>();
    parallel_for(x.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
      convert_math::row_to_f32(from + begin, end - begin, to + begin);
    });
  }
}

bool is_either(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16; }

}  // namespace

KernelTable<ConvertKernels>& convert_table() {
  static KernelTable<ConvertKernels> instance("convert", {convert_cpu});
  return instance;
}

Tensor convert(const Tensor& x, DType dtype) {
  if (!x.defined() || !is_either(x.dtype()))
    fail<DTypeError>(fmt::format("convert: x must be f32 or bf16, got {}", x.describe()));
  if (!is_either(dtype))
    fail<DTypeError>(fmt::format("convert: dtype must be f32 or bf16, got {}", name_of(dtype)));
  if (x.dtype() == dtype) return x;
  Tensor out = Tensor::empty(x.shape(), dtype, x.device());
  if (x.numel() > 0) convert_table().at(x.device()).forward(x.contiguous(), out);
  return out;
}

Tensor bf16_copy_of(const Tensor& weight) {
  if (weight.dtype() == DType::bf16) return weight;
  check_dtype(weight, DType::f32, "bf16_copy_of", "weight");
  check_contiguous(weight, "bf16_copy_of", "weight");
  const auto& storage = weight.storage();
  const std::uint64_t version = storage->version();
  const std::string name = fmt::format("convert.bf16/{}/{}", weight.offset(), weight.numel());
  auto kept = std::static_pointer_cast<Bf16Copy>(storage->attachment(name));
  if (kept == nullptr) {
    kept = std::make_shared<Bf16Copy>(version, convert(weight, DType::bf16));
    storage->attach(name, kept);
  } else if (kept->version != version) {
    // Graphs that are still to run backwards may hold the old copy: then it must stay as it is.
    const bool is_free = kept.use_count() == 2 && kept->data.is_unique();
    if (!is_free) {
      kept = std::make_shared<Bf16Copy>(version, convert(weight, DType::bf16));
      storage->attach(name, kept);
    } else {
      convert_table().at(weight.device()).forward(weight, kept->data);
      kept->version = version;
    }
  }
  return kept->data.view(weight.shape());
}

std::size_t bf16_copy_bytes() { return copy_bytes; }

}  // namespace lectern
