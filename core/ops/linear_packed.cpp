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
/// version was used once, and will be packed when it is used again.
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

std::shared_ptr<PackedWeight> pack(const Product& product, const Tensor& weight,
                                   std::uint64_t version) {
  auto packed = std::make_shared<PackedWeight>(version);
  const memory::desc layout = product.description.weights_desc();
  if (packed_bytes + layout.get_size() > packed_limit()) return packed;
  packed->layout = layout;
  packed->data = dnnl_tensor(layout);
  packed_bytes += packed->data.bytes();
  dnnl_reorder(dnnl_memory(product.plain_layout, weight.raw()),
               dnnl_memory(layout, packed->data.raw()));
  return packed;
}

bool run_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  const auto& storage = weight.storage();
  const std::uint64_t version = storage->version();
  const std::string name = fmt::format("linear.packed/{}/{}x{}/{}", weight.offset(), weight.dim(0),
                                       weight.dim(1), weight.stride(0));
  auto packed = std::static_pointer_cast<PackedWeight>(storage->attachment(name));
  if (packed == nullptr || packed->version != version) {
    storage->attach(name, std::make_shared<PackedWeight>(version));
    return false;
  }
  const Product product(x, weight, bias);
  if (!packed->data.defined() || packed->layout != product.description.weights_desc()) {
    // Made anew also when this number of rows prefers another layout than the one before it did.
    packed.reset();
    storage->attach(name, nullptr);
    packed = pack(product, weight, version);
    storage->attach(name, packed);
    if (!packed->data.defined()) return false;
  }
  product.run(x, dnnl_memory(packed->layout, packed->data.raw()), bias, y);
  return true;
}

}  // namespace

bool linear_packed(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y) {
  if (weight.numel() < kSmallWeight) return false;
  return dnnl_guard("linear", [&] { return run_packed(x, weight, bias, y); });
}

std::size_t packed_weight_bytes() { return packed_bytes; }

}  // namespace lectern
