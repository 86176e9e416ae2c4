#include "nn/linear.h"

#include "autograd/ops/linear.h"

namespace lectern {
namespace {

/// The rows of each published tensor, one after the other.
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
  const bool is_adapted = weight.low_rank != nullptr && weight.low_rank->defined();
  return is_adapted ? weight.low_rank->merged(weight.variable) : weight.variable;
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
  if (weight_.low_rank != nullptr && weight_.low_rank->defined())
    return weight_.low_rank->linear(x, weight_.variable, bias_);
  return linear(x, weight_.variable, bias_);
}

LinearStack::LinearStack(ParameterStore& store, const std::string& name, const Shape& shape,
                         const Initialiser& initialiser, const std::vector<ParameterPart>& parts,
                         const StackShare& share)
    : weight_(store.add_linear(name, shape, initialiser, parts, share)) {}

}  // namespace lectern
