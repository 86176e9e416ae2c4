#include "core/ops/linear_packed.h"

#include "core/cpu/dnnl_support.h"
#include "core/ops/linear.h"

#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>

namespace lectern {
namespace {

using dnnl::memory;

/// The smallest weight, in elements, that is worth a packed copy.
constexpr std::int64_t kSmallWeight = 1 << 12;

std::atomic<std::size_t> packed_bytes{0};

std::size_t packed_limit() {
  static const std::size_t limit = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
                                   static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 4;
  return limit;
}

/// The copy of one weight, and the version of the storage that it was made from. Without data: the
/// version was used once, and will be kept when it is used again.
struct PackedWeight {
  std::uint64_t version = 0;
  memory::desc layout;
  Tensor data;

  explicit PackedWeight(std::uint64_t at) : version(at) {}
  PackedWeight(const PackedWeight&) = delete;
  PackedWeight& operator=(const PackedWeight&) = delete;
  ~PackedWeight() {
    if (data.defined()) packed_bytes -= data.bytes();
  }
};

memory::desc matrix(std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                    std::int64_t column_stride) {
  return {{rows, columns}, memory::data_type::f32, memory::dims{row_stride, column_stride}};
}

struct Product {
  Product(const Tensor& x, const Tensor& weight, const Tensor& bias)
      : m(x.dim(0)), n(weight.dim(0)), k(x.dim(1)) {
    x_layout = matrix(m, k, k, 1);
    y_layout = matrix(m, n, n, 1);
    plain_layout = matrix(k, n, 1, weight.stride(0));
    bias_layout = matrix(1, n, n, 1);
    const memory::desc weight_layout({k, n}, memory::data_type::f32, memory::format_tag::any);
    const auto attributes = dnnl_attributes();
    description =
        bias.defined()
            ? dnnl::matmul::primitive_desc(
                  dnnl::matmul::desc(x_layout, weight_layout, bias_layout, y_layout), attributes,
                  dnnl_engine())
            : dnnl::matmul::primitive_desc(dnnl::matmul::desc(x_layout, weight_layout, y_layout),
                                           attributes, dnnl_engine());
  }

  void run(const Tensor& x, const memory& weight, const Tensor& bias, const Tensor& y) const {
    std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, dnnl_memory(x_layout, x.raw())},
                                                 {DNNL_ARG_WEIGHTS, weight},
                                                 {DNNL_ARG_DST, dnnl_memory(y_layout, y.raw())}};
    if (bias.defined()) arguments.emplace(DNNL_ARG_BIAS, dnnl_memory(bias_layout, bias.raw()));
    dnnl_run(dnnl::matmul(description), description.scratchpad_desc(), std::move(arguments));
  }

  std::int64_t m, n, k;
  memory::desc x_layout, y_layout, plain_layout, bias_layout;
  dnnl::matmul::primitive_desc description;
};

Tensor packed_copy(const Product& product, const Tensor& weight) {
  const memory::desc layout = product.description.weights_desc();
  const Tensor out = dnnl_tensor(layout);
  dnnl_reorder(dnnl_memory(product.plain_layout, weight.raw()), dnnl_memory(layout, out.raw()));
  return out;
}

/// A copy to keep; without data where all of them together would be too much.
std::shared_ptr<PackedWeight> keep(const Product& product, const Tensor& weight,
                                   std::uint64_t version) {
  auto packed = std::make_shared<PackedWeight>(version);
  const memory::desc layout = product.description.weights_desc();
  if (packed_bytes + layout.get_size() > packed_limit()) return packed;
  packed->layout = layout;
  packed->data = packed_copy(product, weight);
  packed_bytes += packed->data.bytes();
  return packed;
}

/// Kept or made for this one use, it is the same product of the same layout: what y holds depends
/// neither on how often a weight was used (a run that is resumed uses its frozen weights for the
/// first time where the undisturbed one does not) nor on the machine's memory.
void run_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  const auto& storage = weight.storage();
  const std::uint64_t version = storage->version();
  const std::string name = fmt::format("linear.packed/{}/{}x{}/{}", weight.offset(), weight.dim(0),
                                       weight.dim(1), weight.stride(0));
  auto packed = std::static_pointer_cast<PackedWeight>(storage->attachment(name));
  const Product product(x, weight, bias);
  const memory::desc layout = product.description.weights_desc();
  if (packed == nullptr || packed->version != version) {
    packed = std::make_shared<PackedWeight>(version);
    storage->attach(name, packed);
  } else if (!packed->data.defined() || packed->layout != layout) {
    // Made anew also when this number of rows prefers another layout than the one before it did.
    packed.reset();
    storage->attach(name, nullptr);
    packed = keep(product, weight, version);
    storage->attach(name, packed);
  }
  const Tensor data = packed->data.defined() ? packed->data : packed_copy(product, weight);
  product.run(x, dnnl_memory(layout, data.raw()), bias, y);
}

}  // namespace

bool linear_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  if (weight.numel() < kSmallWeight) return false;
  dnnl_guard("linear", [&] { run_packed(x, weight, bias, y); });
  return true;
}

std::size_t packed_weight_bytes() { return packed_bytes; }

}  // namespace lectern
