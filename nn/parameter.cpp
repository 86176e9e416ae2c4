#include "nn/parameter.h"

#include "core/random.h"

#include <algorithm>
#include <string_view>

namespace lectern {
namespace {

/// Whether `name` begins as `pattern` says.
bool matches(std::string_view name, std::string_view pattern) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return name.starts_with(pattern);
  if (!name.starts_with(pattern.substr(0, star))) return false;
  name.remove_prefix(star);
  const std::size_t step = std::min(name.find('.'), name.size());
  return step > 0 && matches(name.substr(step), pattern.substr(star + 1));
}

/// Whether the parts, one after the other, are all rows of the shape, each once.
bool parts_cover(const Shape& shape, const std::vector<ParameterPart>& parts) {
  if (parts.empty() || shape.ndim() < 1) return false;
  const bool stacked = parts[0].stack >= 0;
  if (stacked && shape.ndim() != 3) return false;
  const std::int64_t matrices = stacked ? shape[0] : 1, rows = stacked ? shape[1] : shape[0];
  std::int64_t matrix = 0, row = 0;
  for (const ParameterPart& part : parts) {
    if (part.stack != (stacked ? matrix : -1) || part.begin != row || part.end < row) return false;
    row = part.end;
    if (row < rows || matrix + 1 == matrices) continue;
    ++matrix;
    row = 0;
  }
  return matrix + 1 == matrices && row == rows;
}

ParameterPart whole(const std::string& name, const Shape& shape) {
  return {name, 0, shape.ndim() == 0 ? 1 : shape[0], -1};
}

void sort_by_name(std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
}

}  // namespace

bool matches_any(const std::string& name, const std::vector<std::string>& patterns) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return matches(name, pattern); });
}

Shape Parameter::whole_shape() const {
  Shape shape = variable.shape();
  if (is_spread()) shape[0] *= share.ranks;
  return shape;
}

Tensor Parameter::share_of(const Tensor& stack) const {
  check_shape(stack, whole_shape(), name, "stack to share");
  const std::int64_t matrices = variable.dim(0);
  return !is_spread() ? stack : stack.slice(0, share.rank * matrices, (share.rank + 1) * matrices);
}

Tensor Parameter::part_of(const Tensor& whole, const ParameterPart& part) const {
  check_shape(whole, variable.shape(), name, "tensor to split");
  if (part.stack < 0) {
    return part.begin == 0 && part.end == whole.dim(0) ? whole
                                                       : whole.slice(0, part.begin, part.end);
  }
  const Tensor matrix =
      whole.slice(0, part.stack, part.stack + 1).view({whole.dim(1), whole.dim(2)});
  return matrix.slice(0, part.begin, part.end);
}

Variable ParameterStore::add(const std::string& name, const Shape& shape,
                             const Initialiser& initialiser) {
  return add(name, shape, initialiser, {whole(name, shape)});
}

Variable ParameterStore::add(const std::string& name, const Shape& shape,
                             const Initialiser& initialiser, std::vector<ParameterPart> parts) {
  return add_as(dtype_ == DType::bf16 ? DType::f32 : dtype_, name, shape, initialiser,
                std::move(parts));
}

Variable ParameterStore::add_matrix(const std::string& name, const Shape& shape,
                                    const Initialiser& initialiser) {
  return add_matrix(name, shape, initialiser, {whole(name, shape)});
}

Variable ParameterStore::add_matrix(const std::string& name, const Shape& shape,
                                    const Initialiser& initialiser,
                                    std::vector<ParameterPart> parts) {
  return add_as(dtype_, name, shape, initialiser, std::move(parts));
}

std::vector<ParameterPart> ParameterStore::parts_of_share(const std::vector<ParameterPart>& parts,
                                                          std::int64_t matrices,
                                                          const StackShare& share) {
  const std::int64_t first = share.rank * matrices;
  std::vector<ParameterPart> here;
  for (const ParameterPart& part : parts) {
    if (part.stack < first || part.stack >= first + matrices) {
      tensors_elsewhere_.insert(part.name);
      continue;
    }
    here.push_back(part);
    here.back().stack -= first;
  }
  return here;
}

Parameter ParameterStore::add_linear(const std::string& name, const Shape& shape,
                                     const Initialiser& initialiser,
                                     const std::vector<ParameterPart>& parts,
                                     const StackShare& share) {
  if (!parts_cover(shape, parts))
    fail<ShapeError>(fmt::format("{}: parts must cover {} in order, row after row", name, shape));
  Shape here = shape;
  std::vector<ParameterPart> parts_here = parts;
  if (share.ranks > 1) {
    if (shape.ndim() != 3 || shape[0] % share.ranks != 0)
      fail<ConfigError>(
          fmt::format("{}: {} matrices do not divide by {} ranks", name, shape[0], share.ranks));
    here[0] = shape[0] / share.ranks;
    parts_here = parts_of_share(parts, here[0], share);
  }
  if (!add_as(dtype_, name, here, initialiser, std::move(parts_here)).defined()) return {};
  Parameter& made = parameters_.back();
  made.share = share;
  made.low_rank = std::make_shared<LowRank>();
  return made;
}

Parameter ParameterStore::add_linear_f32(const std::string& name, const Shape& shape,
                                         const Initialiser& initialiser) {
  if (!add(name, shape, initialiser).defined()) return {};
  parameters_.back().low_rank = std::make_shared<LowRank>();
  return parameters_.back();
}

Parameter ParameterStore::add_beside(const std::string& name, const Shape& shape,
                                     const Initialiser& initialiser,
                                     std::vector<ParameterPart> parts, const StackShare& share) {
  if (!add(name, shape, initialiser, std::move(parts)).defined()) return {};
  parameters_.back().share = share;
  return parameters_.back();
}

void ParameterStore::set_low_rank(const std::string& parameter, const LowRankPairs& pairs,
                                  double dropout) {
  const auto found = std::find_if(
      parameters_.begin(), parameters_.end(),
      [&](const Parameter& each) { return each.name == parameter && each.low_rank != nullptr; });
  if (found == parameters_.end())
    fail<ConfigError>(fmt::format("{}: no linear layer has this parameter", parameter));
  if (pairs.defined()) {
    const Shape weight = found->variable.shape();
    std::int64_t rows = 0, end = 0;
    for (const LowRankRows& each : pairs.rows) {
      if (each.begin < end || each.end <= each.begin || each.end > weight[weight.ndim() - 2])
        fail<ShapeError>(fmt::format("{}: pairs must change rising rows of {}, got rows {} to {}",
                                     parameter, weight, each.begin, each.end));
      end = each.end;
      rows += each.end - each.begin;
    }
    Shape a = weight, b = weight;
    a[a.ndim() - 2] = static_cast<std::int64_t>(pairs.rows.size()) * pairs.rank;
    b[b.ndim() - 2] = rows;
    b[b.ndim() - 1] = pairs.rank;
    check_shape(pairs.a.value(), a, parameter, "A of low-rank pairs");
    check_shape(pairs.b.value(), b, parameter, "B of low-rank pairs");
  }
  found->low_rank->pairs = pairs;
  found->low_rank->dropout = dropout;
  found->low_rank->name = parameter;
}

Variable ParameterStore::add_as(DType dtype, const std::string& name, const Shape& shape,
                                const Initialiser& initialiser, std::vector<ParameterPart> parts) {
  if (!parts_cover(shape, parts))
    fail<ShapeError>(fmt::format("{}: parts must cover {} in order, row after row", name, shape));
  if (owned_ && !owned_(name)) {
    elsewhere_.push_back(name);
    tensors_elsewhere_.insert(name);  // a file may hold a stack as one tensor
    for (const ParameterPart& part : parts) tensors_elsewhere_.insert(part.name);
    return {};
  }
  if (values_ == ParameterValues::absent) {
    parameters_.push_back(
        {name, Variable(Tensor::wrap(nullptr, shape, dtype, nullptr), true), std::move(parts)});
    return parameters_.back().variable;
  }

  Tensor value = Tensor::empty(shape, dtype);
  switch (initialiser.kind) {
    case Initialiser::Kind::normal:
      // One stream a checkpoint tensor: fusing or splitting a parameter does not change its values.
      for (const ParameterPart& part : parts) {
        const Tensor view = Parameter{name, Variable(value), {}}.part_of(value, part);
        const Tensor drawn = dtype == DType::bf16 ? Tensor::empty(view.shape()) : view;
        Random(seed_, "initialise/" + part.name)
            .fill_normal(drawn, 0.0, initialiser.standard_deviation);
        if (dtype == DType::bf16) view.copy_from(drawn);
      }
      break;
    case Initialiser::Kind::zeros:
      value.fill(0.0);
      break;
    case Initialiser::Kind::ones:
      value.fill(1.0);
      break;
  }
  parameters_.push_back({name, Variable(value, true), std::move(parts)});
  return parameters_.back().variable;
}

std::int64_t ParameterStore::parameter_count() const {
  std::int64_t count = 0;
  for (const Parameter& parameter : parameters_) count += parameter.variable.value().numel();
  return count;
}

std::vector<std::pair<std::string, Tensor>> ParameterStore::file_order_state(
    const std::vector<std::string>& patterns) const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const Parameter& parameter : parameters_) {
    if (!matches_any(parameter.name, patterns)) continue;
    for (const ParameterPart& part : parameter.parts)
      out.emplace_back(part.name, parameter.part_of(parameter.variable.value(), part));
  }
  return out;
}

std::vector<std::pair<std::string, Tensor>> ParameterStore::state() const {
  auto out = file_order_state();
  sort_by_name(out);
  return out;
}

std::vector<std::pair<std::string, Tensor>> ParameterStore::gradients() const {
  std::vector<std::pair<std::string, Tensor>> out;
  for (const Parameter& parameter : parameters_) {
    Tensor grad = parameter.variable.grad();
    if (!grad.defined()) grad = Tensor::zeros_like(parameter.variable.value());
    for (const ParameterPart& part : parameter.parts)
      out.emplace_back(part.name, parameter.part_of(grad, part));
  }
  sort_by_name(out);
  return out;
}

void ParameterStore::freeze(const std::vector<std::string>& patterns) {
  for (const std::string& pattern : patterns) {
    const auto fits = [&](const std::string& name) { return matches(name, pattern); };
    const bool used = std::any_of(elsewhere_.begin(), elsewhere_.end(), fits) ||
                      std::any_of(parameters_.begin(), parameters_.end(),
                                  [&](const Parameter& parameter) { return fits(parameter.name); });
    if (!used)
      fail<ConfigError>(fmt::format("freeze: no parameter's name starts with {}", pattern));
  }
  for (Parameter& parameter : parameters_)
    parameter.variable.set_requires_grad(!matches_any(parameter.name, patterns));
}

std::vector<std::pair<std::string, Variable>> ParameterStore::trainable() const {
  std::vector<std::pair<std::string, Variable>> out;
  for (const Parameter& parameter : parameters_)
    if (parameter.variable.requires_grad()) out.emplace_back(parameter.name, parameter.variable);
  return out;
}

void ParameterStore::clear_gradients() {
  for (Parameter& parameter : parameters_) parameter.variable.clear_grad();
}

void ParameterStore::to(Device device) {
  for (Parameter& parameter : parameters_) {
    parameter.variable.clear_grad();
    parameter.variable.set_value(parameter.variable.value().to(device));
  }
}

Device ParameterStore::device() const {
  return parameters_.empty() ? Device{} : parameters_.front().variable.value().device();
}

std::vector<Variable> variables_of(const std::vector<Parameter>& parameters) {
  std::vector<Variable> out;
  for (const Parameter& parameter : parameters) {
    out.push_back(parameter.variable);
    if (parameter.low_rank != nullptr && parameter.low_rank->defined())
      out.insert(out.end(), {parameter.low_rank->pairs.a, parameter.low_rank->pairs.b});
  }
  return out;
}

}  // namespace lectern
