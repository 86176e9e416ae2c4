#include "core/ops/attention.h"

#include "core/ops/attention_cpu.h"
#include "core/profile.h"

#include <cmath>
#include <limits>

namespace lectern {
namespace {

// Below this many new queries the cache is read in place instead of being packed first.
constexpr std::int64_t kDecodeRows = 8;

template <typename T>
StridedRows<T> columns_of(const Tensor& tensor, std::int64_t column) {
  // Tensor::data gives T*, also where the view asks for const T*.
  return {tensor.data<std::remove_const_t<T>>() + column, tensor.stride(0), tensor.stride(1)};
}

template <typename T>
AttentionView<T> view_of(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
                         const Tensor& table_w) {
  AttentionView<T> view;
  view.q = columns_of<const T>(qkv, 0);
  view.k = columns_of<const T>(qkv, args.heads * args.head_dim);
  view.v = columns_of<const T>(qkv, (args.heads + args.kv_heads) * args.head_dim);
  view.batch = qkv.dim(0);
  view.rows = view.keys = qkv.dim(1);
  view.heads = args.heads;
  view.kv_heads = args.kv_heads;
  view.dim = args.head_dim;
  view.scale = args.scale;
  view.rounded = args.rounded;
  view.ranges = {.mask = args.mask, .rows = view.rows, .keys = view.keys, .prefix = args.prefix};
  if (args.segment_start.defined())
    view.ranges.segment_start = args.segment_start.data<std::int32_t>();
  if (table_h.defined()) {
    view.table_h = table_h.data<T>();
    view.table_w = table_w.data<T>();
    view.grid_h = (table_h.dim(0) + 1) / 2;
    view.grid_w = (table_w.dim(0) + 1) / 2;
  }
  return view;
}

void forward_cpu(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
                 const Tensor& table_w, const AttentionResult& result) {
  dispatch_floating(qkv.dtype(), "attention", [&]<typename T>() {
    attention_forward_cpu<T>(view_of<T>(qkv, args, table_h, table_w), columns_of<T>(result.out, 0),
                             result.log_sum_exp.data<T>());
  });
}

void backward_cpu(const Tensor& grad_out, const Tensor& qkv, const AttentionResult& saved,
                  const AttentionArgs& args, const Tensor& table_h, const Tensor& table_w,
                  const AttentionGradients& gradients) {
  dispatch_floating(qkv.dtype(), "attention", [&]<typename T>() {
    AttentionBackwardView<T> backward;
    backward.grad_out = columns_of<const T>(grad_out, 0);
    backward.out = columns_of<const T>(saved.out, 0);
    backward.log_sum_exp = saved.log_sum_exp.data<T>();
    const std::int64_t keys_at = args.heads * args.head_dim;
    backward.grad_q = columns_of<T>(gradients.grad_qkv, 0);
    backward.grad_k = columns_of<T>(gradients.grad_qkv, keys_at);
    backward.grad_v = columns_of<T>(gradients.grad_qkv, keys_at + args.kv_heads * args.head_dim);
    if (table_h.defined()) {
      backward.grad_table_h = gradients.grad_table_h.data<T>();
      backward.grad_table_w = gradients.grad_table_w.data<T>();
    }
    attention_backward_cpu<T>(view_of<T>(qkv, args, table_h, table_w), backward);
  });
}

/// The first `keys` rows in the dtype that the tiled kernel computes in.
Tensor widened(const Tensor& cache, std::int64_t keys, DType dtype) {
  return cache.dtype() == dtype ? cache : cache.slice(1, 0, keys).to(dtype);
}

void cached_cpu(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                const AttentionArgs& args, const Tensor& past, const Tensor& out) {
  dispatch_floating(q.dtype(), "attention_cached", [&]<typename T>() {
    AttentionView<T> view;
    view.q = columns_of<const T>(q, 0);
    view.batch = q.dim(0);
    view.rows = q.dim(1);
    view.heads = args.heads;
    view.kv_heads = args.kv_heads;
    view.dim = args.head_dim;
    view.scale = args.scale;
    view.ranges = {.mask = MaskKind::causal, .rows = view.rows};
    view.ranges.past = past.data<std::int32_t>();
    for (std::int64_t b = 0; b < view.batch; ++b)
      view.keys = std::max(view.keys, view.ranges.past[b] + view.rows);
    view.ranges.keys = view.keys;
    if (view.rows < kDecodeRows) {
      const auto decode = [&]<typename Stored>() {
        attention_decode_cpu<T, Stored>(view, columns_of<const Stored>(key_cache, 0),
                                        columns_of<const Stored>(value_cache, 0),
                                        columns_of<T>(out, 0));
      };
      if constexpr (std::is_same_v<T, float>)
        if (key_cache.dtype() == DType::bf16) return decode.template operator()<BFloat16>();
      return decode.template operator()<T>();
    }
    const Tensor keys = widened(key_cache, view.keys, q.dtype());
    const Tensor values = widened(value_cache, view.keys, q.dtype());
    view.k = columns_of<const T>(keys, 0);
    view.v = columns_of<const T>(values, 0);
    attention_forward_cpu<T>(view, columns_of<T>(out, 0), nullptr);
  });
}

void check_heads(const AttentionArgs& args, std::string_view operation) {
  if (args.heads < 1 || args.kv_heads < 1 || args.head_dim < 1 || args.heads % args.kv_heads != 0)
    fail<ConfigError>(
        fmt::format("{}: heads must be a positive multiple of kv_heads and head_dim "
                    "positive, got heads {}, kv_heads {}, head_dim {}",
                    operation, args.heads, args.kv_heads, args.head_dim));
  if (!(args.scale > 0) || !std::isfinite(args.scale))
    fail<ConfigError>(
        fmt::format("{}: scale must be positive and finite, got {}", operation, args.scale));
}

void check_mask(const Tensor& qkv, const AttentionArgs& args) {
  const std::int64_t batch = qkv.dim(0), rows = qkv.dim(1);
  if (args.mask == MaskKind::prefix_causal && (args.prefix < 0 || args.prefix > rows))
    fail<ConfigError>(
        fmt::format("attention: prefix must be in 0..T={}, got {}", rows, args.prefix));
  if (!args.segment_start.defined()) return;
  if (args.mask != MaskKind::causal)
    fail<ConfigError>("attention: segment_start must come with the causal mask, got another mask");
  check_shape(args.segment_start, {batch, rows}, "attention", "segment_start");
  check_dtype(args.segment_start, DType::i32, "attention", "segment_start");
  check_contiguous(args.segment_start, "attention", "segment_start");
  if (args.segment_start.device().type != DeviceType::cpu) return;
  const std::int32_t* start = args.segment_start.data<std::int32_t>();
  for (std::int64_t i = 0; i < batch * rows; ++i)
    if (start[i] < 0 || start[i] > i % rows)
      fail<ConfigError>(fmt::format("attention: segment_start[{}, {}] must be in 0..{}, got {}",
                                    i / rows, i % rows, i % rows, start[i]));
}

void check_tables(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
                  const Tensor& table_w) {
  if (table_h.defined() != table_w.defined())
    fail<ConfigError>("attention: table_h and table_w must be given together, got one of them");
  if (!table_h.defined()) return;
  if (args.mask != MaskKind::full)
    fail<ConfigError>("attention: relative positions must come with the full mask, got another");
  for (const Tensor* t : {&table_h, &table_w}) {
    const char* name = t == &table_h ? "table_h" : "table_w";
    check_ndim(*t, 2, "attention", name);
    check_shape(*t, {t->dim(0), args.head_dim}, "attention", name);
    check_dtype(*t, accumulation_dtype(qkv.dtype()), "attention", name);
    check_device(*t, qkv, "attention", name);
    check_contiguous(*t, "attention", name);
    if (t->dim(0) % 2 == 0)
      fail<ShapeError>(
          fmt::format("attention: {} must have 2 grid - 1 rows, got {}", name, t->describe()));
  }
  const std::int64_t grid_h = (table_h.dim(0) + 1) / 2, grid_w = (table_w.dim(0) + 1) / 2;
  if (grid_h * grid_w != qkv.dim(1))
    fail<ShapeError>(fmt::format("attention: T must be grid_h * grid_w = {} * {}, got {}", grid_h,
                                 grid_w, qkv.describe()));
}

void check_inputs(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
                  const Tensor& table_w) {
  check_heads(args, "attention");
  check_ndim(qkv, 3, "attention", "qkv");
  check_shape(qkv, {qkv.dim(0), qkv.dim(1), (args.heads + 2 * args.kv_heads) * args.head_dim},
              "attention", "qkv");
  check_contiguous(qkv, "attention", "qkv");
  check_computable(qkv, "attention", "dtype");
  if (args.rounded && qkv.dtype() != DType::f32)
    fail<DTypeError>(fmt::format(
        "attention: qkv must be f32 when products are rounded to bf16, got {}", qkv.describe()));
  check_mask(qkv, args);
  check_tables(qkv, args, table_h, table_w);
}

void check_rows(const Tensor& tensor, const Tensor& like, std::int64_t columns, DType dtype,
                std::string_view name) {
  check_ndim(tensor, 3, "attention_cached", name);
  check_shape(tensor, {like.dim(0), tensor.dim(1), columns}, "attention_cached", name);
  check_dtype(tensor, dtype, "attention_cached", name);
  check_device(tensor, like, "attention_cached", name);
  if (tensor.stride(2) != 1)
    fail<ShapeError>(
        fmt::format("attention_cached: {} must have unit stride in its last "
                    "dimension, got {}",
                    name, tensor.describe()));
}

/// Operations of one product of the queries with the keys that each of them sees.
double work_of(const Tensor& qkv, const AttentionArgs& args) {
  const std::int64_t rows = qkv.dim(1);
  double seen = static_cast<double>(rows) * static_cast<double>(rows);
  if (args.mask != MaskKind::full) {
    const std::int64_t prefix = args.mask == MaskKind::prefix_causal ? args.prefix : 0;
    seen = (seen + static_cast<double>(rows) + static_cast<double>(prefix * (prefix - 1))) / 2;
  }
  return 2.0 * seen * static_cast<double>(qkv.dim(0) * args.heads * args.head_dim);
}

}  // namespace

KernelTable<AttentionKernels>& attention_table() {
  static KernelTable<AttentionKernels> instance("attention",
                                                {forward_cpu, backward_cpu, cached_cpu});
  return instance;
}

AttentionResult attention_forward(const Tensor& qkv, const AttentionArgs& args,
                                  const Tensor& table_h, const Tensor& table_w) {
  check_inputs(qkv, args, table_h, table_w);
  const std::int64_t batch = qkv.dim(0), rows = qkv.dim(1);
  const AttentionResult result{
      Tensor::empty({batch, rows, args.heads * args.head_dim}, qkv.dtype(), qkv.device()),
      Tensor::empty({batch, args.heads, rows}, accumulation_dtype(qkv.dtype()), qkv.device())};
  const ProfileProduct timed("attention forward", 2 * work_of(qkv, args));
  if (qkv.numel() > 0)
    attention_table().at(qkv.device()).forward(qkv, args, table_h, table_w, result);
  return result;
}

AttentionGradients attention_backward(const Tensor& grad_out, const Tensor& qkv,
                                      const AttentionResult& saved, const AttentionArgs& args,
                                      const Tensor& table_h, const Tensor& table_w) {
  check_inputs(qkv, args, table_h, table_w);
  const Shape out_shape{qkv.dim(0), qkv.dim(1), args.heads * args.head_dim};
  check_shape(grad_out, out_shape, "attention", "grad_out");
  check_dtype(grad_out, qkv.dtype(), "attention", "grad_out");
  check_shape(saved.out, out_shape, "attention", "out");
  check_dtype(saved.out, qkv.dtype(), "attention", "out");
  check_shape(saved.log_sum_exp, {qkv.dim(0), args.heads, qkv.dim(1)}, "attention", "log_sum_exp");
  check_dtype(saved.log_sum_exp, accumulation_dtype(qkv.dtype()), "attention", "log_sum_exp");
  check_device(grad_out, qkv, "attention", "grad_out");
  AttentionGradients gradients;
  gradients.grad_qkv = Tensor::empty_like(qkv);
  if (table_h.defined()) {
    gradients.grad_table_h = Tensor::zeros_like(table_h);
    gradients.grad_table_w = Tensor::zeros_like(table_w);
  }
  const ProfileProduct timed("attention backward", 5 * work_of(qkv, args));
  if (qkv.numel() > 0)
    attention_table()
        .at(qkv.device())
        .backward(grad_out.contiguous(), qkv,
                  {saved.out.contiguous(), saved.log_sum_exp.contiguous()}, args, table_h, table_w,
                  gradients);
  return gradients;
}

Tensor attention_cached(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                        const AttentionArgs& args, const Tensor& past) {
  check_heads(args, "attention_cached");
  check_ndim(q, 3, "attention_cached", "q");
  check_rows(q, q, args.heads * args.head_dim, q.dtype(), "q");
  const bool is_mixed = q.dtype() == DType::f32 && key_cache.dtype() == DType::bf16;
  const DType stored = is_mixed ? DType::bf16 : q.dtype();
  check_rows(key_cache, q, args.kv_heads * args.head_dim, stored, "key_cache");
  check_rows(value_cache, q, args.kv_heads * args.head_dim, stored, "value_cache");
  check_shape(value_cache, key_cache.shape(), "attention_cached", "value_cache");
  check_shape(past, {q.dim(0)}, "attention_cached", "past");
  check_dtype(past, DType::i32, "attention_cached", "past");
  check_contiguous(past, "attention_cached", "past");
  for (std::int64_t b = 0; past.device().type == DeviceType::cpu && b < q.dim(0); ++b)
    if (const std::int64_t length = past.data<std::int32_t>()[b];
        length < 0 || length + q.dim(1) > key_cache.dim(1))
      fail<ShapeError>(
          fmt::format("attention_cached: past + Tq must be at most Tmax = {}, got {} + "
                      "{} in sequence {}",
                      key_cache.dim(1), length, q.dim(1), b));
  const Tensor out = Tensor::empty(q.shape(), q.dtype(), q.device());
  if (q.numel() > 0)
    attention_table().at(q.device()).cached(q, key_cache, value_cache, args, past, out);
  return out;
}

Tensor attention_cached(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
                        const AttentionArgs& args, std::int64_t past) {
  check_ndim(q, 3, "attention_cached", "q");
  if (past < 0 || past > std::numeric_limits<std::int32_t>::max())
    fail<ShapeError>(fmt::format("attention_cached: past must be in 0..Tmax, got {}", past));
  const std::vector<std::int32_t> lengths(static_cast<std::size_t>(q.dim(0)),
                                          static_cast<std::int32_t>(past));
  return attention_cached(q, key_cache, value_cache, args, Tensor::from(lengths, {q.dim(0)}));
}

}  // namespace lectern
