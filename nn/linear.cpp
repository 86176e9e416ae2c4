#include "nn/linear.h"

#include "autograd/ops/elementwise.h"
#include "autograd/ops/layout.h"
#include "autograd/ops/linear.h"
#include "autograd/ops/matmul.h"

#include <algorithm>

namespace lectern {
namespace {

bool is_adapted(const Parameter& parameter) {
  return parameter.pairs != nullptr &&
         std::any_of(parameter.pairs->begin(), parameter.pairs->end(),
                     [](const LowRankPair& pair) { return pair.defined(); });
}

/// The parts' updates joined along `dim`: `of_pair` gives that of a pair, a part without one has
/// zeros of the shape that `zeros_for` gives for its rows.
template <typename OfPair, typename ZerosFor>
Variable joined_updates(const Parameter& weight, int dim, OfPair of_pair, ZerosFor zeros_for) {
  std::vector<Variable> updates;
  for (std::size_t i = 0; i < weight.parts.size(); ++i) {
    const LowRankPair& pair = (*weight.pairs)[i];
    const std::int64_t rows = weight.parts[i].end - weight.parts[i].begin;
    updates.push_back(pair.defined() ? scale(of_pair(pair), pair.scale)
                                     : Variable(Tensor::zeros(zeros_for(rows), DType::f32,
                                                              weight.variable.value().device())));
  }
  return updates.size() == 1 ? updates[0] : concat(updates, dim);
}

/// One matrix: {name, rows 0 .. rows - 1 of it}.
std::vector<ParameterPart> parts_named(const std::vector<LinearPart>& parts, const char* tensor) {
  std::vector<ParameterPart> out;
  std::int64_t row = 0;
  for (const LinearPart& part : parts) {
    out.push_back({part.name + tensor, row, row + part.rows});
    row += part.rows;
  }
  return out;
}

}  // namespace

Variable merged(const Parameter& weight) {
  if (!is_adapted(weight)) return weight.variable;
  const std::int64_t columns = weight.variable.dim(-1);
  const Variable update = joined_updates(
      weight, 0, [](const LowRankPair& pair) { return matmul(pair.b, pair.a); },
      [&](std::int64_t rows) {
        return Shape{rows, columns};
      });
  return add(weight.variable, view(update, weight.variable.shape()));
}

Linear::Linear(ParameterStore& store, const std::string& name, const std::vector<LinearPart>& parts,
               std::int64_t columns, const Initialiser& initialiser, bool bias) {
  const auto weights = parts_named(parts, ".weight");
  const std::int64_t rows = weights.empty() ? 0 : weights.back().end;
  weight_ = store.add_linear(name + ".weight", {rows, columns}, initialiser, weights);
  if (bias)
    bias_ = store.add(name + ".bias", {rows}, Initialiser::zeros(), parts_named(parts, ".bias"));
}

Linear::Linear(ParameterStore& store, const LinearPart& part, std::int64_t columns,
               const Initialiser& initialiser, bool bias)
    : Linear(store, part.name, {part}, columns, initialiser, bias) {}

Variable Linear::forward(const Variable& x) const {
  const Variable y = linear(x, weight_.variable, bias_);
  if (!is_adapted(weight_)) return y;
  const Variable update = joined_updates(
      weight_, -1, [&](const LowRankPair& pair) { return linear(linear(x, pair.a), pair.b); },
      [&](std::int64_t rows) {
        Shape shape = x.shape();
        shape[shape.ndim() - 1] = rows;
        return shape;
      });
  return add(y, update);
}

LinearStack::LinearStack(ParameterStore& store, const std::string& name, const Shape& shape,
                         const Initialiser& initialiser, const std::vector<ParameterPart>& parts,
                         const StackShare& share)
    : weight_(store.add_linear(name, shape, initialiser, parts, share)) {}

}  // namespace lectern
