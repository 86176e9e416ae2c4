// Attention on the device: tensors become the kernels' problem.
#include "core/ops/attention.h"
#include "cuda/ops/attention_problem.h"
#include "cuda/ops/column_sum.h"
#include "cuda/ops/register_ops.h"
#include "cuda/vectors.h"

namespace lectern::cuda {
namespace {

/// Parts that the sum over all rows for the tables' gradients is cut into.
constexpr std::int64_t kTableParts = 32;

/// Rows of a [B, T, columns] tensor from one column on, any strides but the last. The span reaches
/// to the last element of the tensor.
template <typename T>
HeadRows<T> rows_of(const Tensor& x, std::int64_t column) {
  const std::int64_t extent =
      (x.dim(0) - 1) * x.stride(0) + (x.dim(1) - 1) * x.stride(1) + x.dim(2);
  return {Span<T>(x.data<std::remove_const_t<T>>(), extent), column, x.stride(0), x.stride(1)};
}

bool is_packed(const Tensor& x, std::int64_t dim) {
  const auto elements = static_cast<std::int64_t>(16 / size_of(x.dtype()));
  return dim % elements == 0 && x.stride(0) % elements == 0 && x.stride(1) % elements == 0 &&
         are_aligned({&x});
}

template <typename T>
AttentionProblem<T> problem_of(const Tensor& qkv, const AttentionArgs& args,
                               const Tensor& segment_start) {
  AttentionProblem<T> p;
  p.q = rows_of<const T>(qkv, 0);
  p.k = rows_of<const T>(qkv, args.heads * args.head_dim);
  p.v = rows_of<const T>(qkv, (args.heads + args.kv_heads) * args.head_dim);
  p.rows = p.keys = qkv.dim(1);
  p.heads = static_cast<int>(args.heads);
  p.kv_heads = static_cast<int>(args.kv_heads);
  p.dim = static_cast<int>(args.head_dim);
  p.scale = static_cast<float>(args.scale);
  p.mask = args.mask;
  p.prefix = args.prefix;
  p.segment_start = span<const std::int32_t>(segment_start);
  p.packed = is_packed(qkv, args.head_dim);
  return p;
}

/// Relative scores of all rows [B, H, T, grid_h + grid_w]; undefined without tables.
template <typename T, int kDim>
Tensor relative_scores(AttentionProblem<T>& p, const Tensor& table_h, const Tensor& table_w,
                       std::int64_t batch) {
  if (!table_h.defined()) return {};
  p.grid_h = static_cast<int>((table_h.dim(0) + 1) / 2);
  p.grid_w = static_cast<int>((table_w.dim(0) + 1) / 2);
  p.inverse_grid_w = 1.0f / static_cast<float>(p.grid_w);
  const std::int64_t heads = p.heads, rows = p.rows, cells = p.grid_h + p.grid_w;
  const Shape shape{batch, heads, rows, cells};
  const Tensor relative = Tensor::empty(shape, DType::f32, table_h.device());
  launch_relative_scores<T, kDim>(p, span<const float>(table_h), span<const float>(table_w),
                                  span<float>(relative), batch);
  p.relative = span<const float>(relative);
  return relative;
}

void forward(const Tensor& qkv, const AttentionArgs& args, const Tensor& table_h,
             const Tensor& table_w, const AttentionResult& result) {
  if (args.rounded && qkv.dtype() == DType::f32) {
    const AttentionResult rounded{Tensor::empty(result.out.shape(), DType::bf16, qkv.device()),
                                  result.log_sum_exp};
    forward(qkv.to(DType::bf16), args, table_h, table_w, rounded);
    return result.out.copy_from(rounded.out);
  }
  const Tensor segments = on_device(args.segment_start, qkv.device());
  dispatch_attention(qkv.dtype(), args.head_dim, [&]<typename T, int kDim>() {
    AttentionForward<T> a{problem_of<T>(qkv, args, segments), rows_of<T>(result.out, 0),
                          span<float>(result.log_sum_exp)};
    const Tensor relative = relative_scores<T, kDim>(a.problem, table_h, table_w, qkv.dim(0));
    launch_attention_forward<T, kDim>(a, qkv.dim(0));
  });
}

template <typename T, int kDim>
void table_gradients(const AttentionBackward<T>& a, std::int64_t batch,
                     const AttentionGradients& gradients) {
  const std::int64_t rows_h = gradients.grad_table_h.dim(0), rows_w = gradients.grad_table_w.dim(0);
  const Device device = gradients.grad_qkv.device();
  const std::int64_t all_rows = rows_h + rows_w, dim = a.problem.dim;
  const Shape parts{kTableParts, all_rows, dim}, tables{all_rows, dim};
  const Tensor partial = Tensor::empty(parts, DType::f32, device);
  launch_table_gradients<T, kDim>(a, batch, kTableParts, span<float>(partial));
  const Tensor both = Tensor::empty(tables, DType::f32, device);
  column_sum(partial, kTableParts, both.numel(), both);
  gradients.grad_table_h.copy_from(both.slice(0, 0, rows_h));
  gradients.grad_table_w.copy_from(both.slice(0, rows_h, rows_h + rows_w));
}

void backward(const Tensor& grad_out, const Tensor& qkv, const AttentionResult& saved,
              const AttentionArgs& args, const Tensor& table_h, const Tensor& table_w,
              const AttentionGradients& gradients) {
  if (args.rounded && qkv.dtype() == DType::f32) {
    AttentionGradients rounded = gradients;
    rounded.grad_qkv = Tensor::empty(qkv.shape(), DType::bf16, qkv.device());
    backward(grad_out.to(DType::bf16), qkv.to(DType::bf16),
             {saved.out.to(DType::bf16), saved.log_sum_exp}, args, table_h, table_w, rounded);
    return gradients.grad_qkv.copy_from(rounded.grad_qkv);
  }
  const std::int64_t batch = qkv.dim(0), keys_at = args.heads * args.head_dim;
  const Device device = qkv.device();
  const Tensor segments = on_device(args.segment_start, device);
  dispatch_attention(qkv.dtype(), args.head_dim, [&]<typename T, int kDim>() {
    AttentionBackward<T> a;
    a.problem = problem_of<T>(qkv, args, segments);
    a.problem.packed = a.problem.packed && is_packed(grad_out, args.head_dim);
    const Tensor relative = relative_scores<T, kDim>(a.problem, table_h, table_w, batch);
    const Tensor delta = Tensor::empty(saved.log_sum_exp.shape(), DType::f32, device);
    Tensor grad_relative;
    if (relative.defined()) {
      grad_relative = Tensor::empty_like(relative);
      a.grad_relative = span<float>(grad_relative);
      a.table_h = span<const float>(table_h);
      a.table_w = span<const float>(table_w);
    }
    a.grad_out = rows_of<const T>(grad_out, 0);
    a.out = rows_of<const T>(saved.out, 0);
    a.log_sum_exp = span<const float>(saved.log_sum_exp);
    a.delta = span<float>(delta);
    a.grad_q = rows_of<T>(gradients.grad_qkv, 0);
    a.grad_k = rows_of<T>(gradients.grad_qkv, keys_at);
    a.grad_v = rows_of<T>(gradients.grad_qkv, keys_at + args.kv_heads * args.head_dim);
    launch_attention_backward<T, kDim>(a, batch);
    if (relative.defined()) table_gradients<T, kDim>(a, batch, gradients);
  });
}

void cached(const Tensor& q, const Tensor& key_cache, const Tensor& value_cache,
            const AttentionArgs& args, const Tensor& past, const Tensor& out) {
  if (q.dtype() != key_cache.dtype()) {  // f32 queries, bf16 caches
    const Tensor rounded = Tensor::empty(out.shape(), key_cache.dtype(), out.device());
    cached(q.to(key_cache.dtype()), key_cache, value_cache, args, past, rounded);
    return out.copy_from(rounded);
  }
  const Tensor lengths = on_device(past, q.device());
  dispatch_attention(q.dtype(), args.head_dim, [&]<typename T, int kDim>() {
    AttentionForward<T> a;
    AttentionProblem<T>& p = a.problem;
    p.q = rows_of<const T>(q, 0);
    p.k = rows_of<const T>(key_cache, 0);
    p.v = rows_of<const T>(value_cache, 0);
    p.rows = q.dim(1);
    p.keys = key_cache.dim(1);
    p.heads = static_cast<int>(args.heads);
    p.kv_heads = static_cast<int>(args.kv_heads);
    p.dim = static_cast<int>(args.head_dim);
    p.scale = static_cast<float>(args.scale);
    p.mask = MaskKind::causal;
    p.past = span<const std::int32_t>(lengths);
    p.packed = is_packed(q, args.head_dim) && is_packed(key_cache, args.head_dim) &&
               is_packed(value_cache, args.head_dim);
    a.out = rows_of<T>(out, 0);
    launch_attention_forward<T, kDim>(a, q.dim(0));
  });
}

}  // namespace

void register_attention() { attention_table().set(DeviceType::cuda, {forward, backward, cached}); }

}  // namespace lectern::cuda
