#include "autograd/ops/low_rank.h"

#include "autograd/compute_dtype.h"
#include "autograd/weights_constant.h"
#include "core/ops/accumulate.h"
#include "core/ops/convert.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "core/ops/matmul.h"

namespace lectern {
namespace {

Tensor as_rows(const Tensor& x) {
  return x.contiguous().view({x.dim(-1) == 0 ? 0 : x.numel() / x.dim(-1), x.dim(-1)});
}

Tensor columns_of(const Tensor& matrix, std::int64_t begin, std::int64_t end) {
  return begin == 0 && end == matrix.dim(1) ? matrix : matrix.slice(1, begin, end).contiguous();
}

/// target[:, begin:end] += term
void add_to_columns(const Tensor& target, std::int64_t begin, std::int64_t end,
                    const Tensor& term) {
  if (begin == 0 && end == target.dim(1)) {
    accumulate(target, term);
    return;
  }
  const Tensor part = target.slice(1, begin, end);
  part.copy_from(add(part, term));
}

/// The operands of one layer, rounded where compute_dtype() rounds.
struct Operands {
  Tensor x, pair_x, weight, a, b;
  DType dtype;
  std::int64_t rank;
  std::vector<LowRankRows> rows;

  std::int64_t pairs() const { return static_cast<std::int64_t>(rows.size()); }
  const LowRankRows& at(std::int64_t i) const { return rows[static_cast<std::size_t>(i)]; }
  Tensor rounded(const Tensor& tensor) const {
    return tensor.dtype() == dtype || dtype != DType::bf16 ? tensor : convert(tensor, dtype);
  }
};

/// y += the pairs' part; gives scale_i x A_i^T of all pairs side by side, [rows, pairs * rank].
Tensor add_pairs(const Operands& in, const Tensor& y) {
  Tensor low = linear(in.pair_x, in.a);
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < in.pairs(); ++i) {
    const LowRankRows& rows = in.at(i);
    const Tensor here = columns_of(low, i * in.rank, (i + 1) * in.rank);
    const Tensor scaled = scale(here, rows.scale);
    const std::int64_t count = rows.end - rows.begin;
    add_to_columns(y, rows.begin, rows.end,
                   linear(in.rounded(scaled), in.b.slice(0, row, row + count)));
    low.slice(1, i * in.rank, (i + 1) * in.rank).copy_from(scaled);
    row += count;
  }
  return low;
}

struct PairGradients {
  Tensor low;  ///< of x A^T, [rows, pairs * rank]
  Tensor b;
};

/// `grad` [rows, N] in f32 or f64.
PairGradients pair_gradients(const Operands& in, const Tensor& grad, const Tensor& low,
                             bool wants_b) {
  PairGradients out;
  out.low = Tensor::empty({grad.dim(0), in.pairs() * in.rank}, low.dtype(), grad.device());
  if (wants_b) out.b = Tensor::empty(in.b.shape(), low.dtype(), grad.device());
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < in.pairs(); ++i) {
    const LowRankRows& rows = in.at(i);
    const std::int64_t count = rows.end - rows.begin, column = i * in.rank;
    const Tensor columns = in.rounded(columns_of(grad, rows.begin, rows.end));
    const Tensor grad_low = linear_grad_x(columns, in.b.slice(0, row, row + count));
    out.low.slice(1, column, column + in.rank).copy_from(scale(grad_low, rows.scale));
    if (wants_b)
      out.b.slice(0, row, row + count)
          .copy_from(
              linear_grad_weight(columns, in.rounded(columns_of(low, column, column + in.rank))));
    row += count;
  }
  return out;
}

/// The matrix `index` of a stack, or the matrix itself.
Tensor matrix_of(const Tensor& stack, std::int64_t index) {
  if (stack.ndim() == 2) return stack;
  return stack.slice(0, index, index + 1).view({stack.dim(1), stack.dim(2)});
}

void add_products(const Tensor& out, const Tensor& a, const Tensor& b, const LowRankPairs& pairs) {
  std::int64_t row = 0, low = 0;
  for (const LowRankRows& rows : pairs.rows) {
    const std::int64_t count = rows.end - rows.begin;
    const Tensor product = matmul(b.slice(0, row, row + count), a.slice(0, low, low + pairs.rank));
    accumulate(out.slice(0, rows.begin, rows.end), scale(product, rows.scale));
    row += count;
    low += pairs.rank;
  }
}

}  // namespace

Variable low_rank_linear(const Variable& x, const Variable& pair_x, const Variable& weight,
                         const Variable& bias, const LowRankPairs& pairs) {
  const bool is_same = pair_x.state() == x.state();
  Operands in;
  in.x = as_operand(x.value());
  in.pair_x = as_rows(is_same ? in.x : as_operand(pair_x.value()));
  in.weight = as_weight_operand(weight.value());
  in.dtype = in.x.dtype();
  // A store of matrices in bf16 meets f32 rows where nothing is rounded: pairs are f32 there.
  in.a = as_weight_operand(pairs.a.value());
  in.b = as_weight_operand(pairs.b.value());
  in.rank = pairs.rank;
  in.rows = pairs.rows;
  Tensor y = linear(in.x, in.weight, bias.defined() ? bias.value() : Tensor(),
                    weights_are_constant() ? WeightUse::constant : WeightUse::changing);
  const Tensor low = add_pairs(in, y.view({-1, y.dim(-1)}));
  const bool needs_x = x.requires_grad(), needs_pair_x = !is_same && pair_x.requires_grad();
  const bool needs_weight = weight.requires_grad(), needs_bias = bias.requires_grad();
  const bool needs_a = pairs.a.requires_grad(), needs_b = pairs.b.requires_grad();
  if (!needs_weight) in.x = Tensor();
  return record("low_rank_linear", std::move(y), {x, pair_x, weight, bias, pairs.a, pairs.b},
                [=](const Tensor& grad_y) -> std::vector<Tensor> {
                  const Tensor rounded = in.rounded(grad_y);
                  const PairGradients of_pairs = pair_gradients(in, as_rows(grad_y), low, needs_b);
                  const Tensor low_operand = in.rounded(of_pairs.low);
                  Tensor grad_x = needs_x ? linear_grad_x(rounded, in.weight) : Tensor(),
                         grad_pair_x;
                  if ((is_same && needs_x) || needs_pair_x) {
                    const Tensor through = linear_grad_x(low_operand, in.a);
                    if (is_same)
                      accumulate(grad_x, through.view(grad_x.shape()));
                    else
                      grad_pair_x = through.view(pair_x.shape());
                  }
                  return {std::move(grad_x),
                          std::move(grad_pair_x),
                          needs_weight ? linear_grad_weight(rounded, in.x) : Tensor(),
                          needs_bias ? linear_grad_bias(grad_y) : Tensor(),
                          needs_a ? linear_grad_weight(low_operand, in.pair_x) : Tensor(),
                          of_pairs.b};
                });
}

Variable low_rank_merged(const Variable& weight, const LowRankPairs& pairs) {
  const Tensor& base = weight.value();
  const Tensor a = pairs.a.value(), b = pairs.b.value();
  Tensor out = base.dtype() == DType::bf16 ? convert(base, DType::f32) : base.clone();
  const std::int64_t matrices = base.ndim() == 3 ? base.dim(0) : 1;
  for (std::int64_t m = 0; m < matrices; ++m)
    add_products(matrix_of(out, m), matrix_of(a, m), matrix_of(b, m), pairs);
  const LowRankPairs places{.a = {}, .b = {}, .rank = pairs.rank, .rows = pairs.rows};
  const bool needs_weight = weight.requires_grad();
  return record("low_rank_merged", std::move(out), {weight, pairs.a, pairs.b},
                [=](const Tensor& grad) -> std::vector<Tensor> {
                  const Tensor grad_a = Tensor::empty(a.shape(), a.dtype(), a.device());
                  const Tensor grad_b = Tensor::empty(b.shape(), b.dtype(), b.device());
                  for (std::int64_t m = 0; m < matrices; ++m) {
                    const Tensor g = matrix_of(grad, m), a_m = matrix_of(a, m),
                                 b_m = matrix_of(b, m);
                    std::int64_t row = 0, at = 0;
                    for (const LowRankRows& rows : places.rows) {
                      const std::int64_t count = rows.end - rows.begin;
                      const Tensor here = g.slice(0, rows.begin, rows.end);
                      const Tensor b_i = b_m.slice(0, row, row + count);
                      const Tensor a_i = a_m.slice(0, at, at + places.rank);
                      matrix_of(grad_a, m)
                          .slice(0, at, at + places.rank)
                          .copy_from(scale(matmul(b_i, here, {.transpose_a = true}), rows.scale));
                      matrix_of(grad_b, m)
                          .slice(0, row, row + count)
                          .copy_from(scale(matmul(here, a_i, {.transpose_b = true}), rows.scale));
                      row += count;
                      at += places.rank;
                    }
                  }
                  return {needs_weight ? grad : Tensor(), grad_a, grad_b};
                });
}

}  // namespace lectern
