#include "nn/adapter.h"

#include "core/error.h"
#include "core/ops/accumulate.h"
#include "core/ops/convert.h"
#include "core/ops/elementwise.h"
#include "core/ops/matmul.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <utility>

namespace lectern {
namespace {

constexpr std::string_view kWeight = ".weight";

/// Where the pairs of a parameter lie: which rows of it they change, and under which names.
struct PairPlaces {
  std::int64_t rank = 0;
  std::vector<LowRankRows> rows;    ///< of one matrix
  std::vector<ParameterPart> a, b;  ///< of all matrices
  std::int64_t b_rows = 0;          ///< of one matrix
};

/// Adds the pair of one part; `at` counts the pairs of its matrix.
void add_place(const ParameterPart& part, const PairShape& pair, std::int64_t at,
               std::int64_t b_row, PairPlaces& out) {
  const std::string matrix = matrix_of_tensor(part.name);
  const std::int64_t rows = part.end - part.begin;
  out.a.push_back({matrix + ".lora_A.weight", at * pair.rank, (at + 1) * pair.rank, part.stack});
  out.b.push_back({matrix + ".lora_B.weight", b_row, b_row + rows, part.stack});
  if (part.stack <= 0) {
    out.rows.push_back({part.begin, part.end, pair.scale});
    out.b_rows += rows;
  }
}

void check_one_rank(const Parameter& parameter, const PairShape& first, const PairShape& pair,
                    bool is_stack) {
  if (pair.rank == first.rank && (!is_stack || pair == first)) return;
  fail<ConfigError>(fmt::format("adapter: the pairs of {} must have one rank{}, got {} and {}",
                                parameter.name, is_stack ? " and scale" : "", first.rank,
                                pair.rank));
}

/// Nothing when the parameter has no pairs.
std::optional<PairPlaces> places_of(const Parameter& parameter, const AdapterShape& shape) {
  PairPlaces out;
  std::optional<PairShape> first;
  std::string without;
  std::int64_t stack = -1, at = 0, b_row = 0;
  for (const ParameterPart& part : parameter.parts) {
    const auto pair = shape.find(matrix_of_tensor(part.name));
    if (pair == shape.end()) {
      without = part.name;
      continue;
    }
    if (part.stack != stack) at = b_row = 0;
    stack = part.stack;
    if (first) check_one_rank(parameter, *first, pair->second, stack >= 0);
    if (!first) first = pair->second;
    add_place(part, pair->second, at++, b_row, out);
    b_row += part.end - part.begin;
  }
  if (!first) return std::nullopt;
  if (stack >= 0 && !without.empty())
    fail<ConfigError>(fmt::format(
        "adapter: all experts of a layer must have pairs or none, but {} has none", without));
  out.rank = first->rank;
  return out;
}

/// Throws ConfigError for matrices that are neither here nor in another process.
void check_known(const AdapterShape& shape, const ParameterStore& store) {
  std::set<std::string> known;
  for (const Parameter& parameter : store.parameters())
    if (parameter.low_rank != nullptr)
      for (const ParameterPart& part : parameter.parts) known.insert(matrix_of_tensor(part.name));
  for (const auto& [matrix, pair] : shape)
    if (!known.contains(matrix) && !store.is_elsewhere(matrix + std::string(kWeight)))
      fail<ConfigError>(
          fmt::format("adapter: {} is no matrix of a linear layer of this model", matrix));
}

}  // namespace

std::string matrix_of_tensor(const std::string& tensor) {
  return tensor.ends_with(kWeight) ? tensor.substr(0, tensor.size() - kWeight.size()) : tensor;
}

double low_rank_scale(std::int64_t rank, double alpha, bool rslora) {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

AdapterShape adapter_shape(const ModelConfig& config, const std::vector<std::string>& patterns,
                           const PairShape& pair) {
  const auto names = config.make(0, DType::f32, ParameterValues::absent);
  AdapterShape out;
  for (const Parameter& parameter : names->store().parameters()) {
    if (parameter.low_rank == nullptr) continue;
    const bool is_wanted = matches_any(parameter.name, patterns);
    for (const ParameterPart& part : parameter.parts)
      if (is_wanted || matches_any(part.name, patterns)) out[matrix_of_tensor(part.name)] = pair;
  }
  return out;
}

Adapter::Adapter(OcrModel& model, AdapterShape shape, std::uint64_t seed, double dropout)
    : model_(model), shape_(std::move(shape)), store_(seed) {
  check_known(shape_, model.store());
  model.store().freeze({""});
  for (const Parameter& parameter : model.store().parameters())
    if (parameter.low_rank != nullptr) add_pairs(parameter, dropout);
  const auto& made = store_.parameters();
  for (std::size_t i = 0; i < made.size(); ++i)
    for (std::size_t j = 0; j < made[i].parts.size(); ++j) places_[made[i].parts[j].name] = {i, j};
  for (const auto& [matrix, pair] : shape_)
    if (model.store().is_elsewhere(matrix + std::string(kWeight)))
      for (const char* tensor : {".lora_A.weight", ".lora_B.weight"})
        store_.add_elsewhere(matrix + tensor);
}

Adapter::~Adapter() {
  for (const Parameter& parameter : model_.store().parameters())
    if (parameter.low_rank != nullptr) parameter.low_rank->pairs = {};
}

void Adapter::add_pairs(const Parameter& parameter, double dropout) {
  auto places = places_of(parameter, shape_);
  if (!places) return;
  const Shape weight = parameter.variable.shape();
  const std::int64_t columns = weight[weight.ndim() - 1];
  Shape a = weight, b = weight;
  a[a.ndim() - 2] = static_cast<std::int64_t>(places->rows.size()) * places->rank;
  b[b.ndim() - 2] = places->b_rows;
  b[b.ndim() - 1] = places->rank;
  const double deviation = 1.0 / std::sqrt(3.0 * static_cast<double>(columns));
  LowRankPairs pairs;
  pairs.rank = places->rank;
  pairs.rows = std::move(places->rows);
  pairs.a = store_
                .add_beside(parameter.name + ".lora_A", a, Initialiser::normal(deviation),
                            std::move(places->a), parameter.share)
                .variable;
  pairs.b = store_
                .add_beside(parameter.name + ".lora_B", b, Initialiser::zeros(),
                            std::move(places->b), parameter.share)
                .variable;
  model_.store().set_low_rank(parameter.name, pairs, dropout);
}

void Adapter::to(Device device) { store_.to(device); }

Tensor Adapter::tensor_at(const Place& place) const {
  const Parameter& parameter = store_.parameters()[place.parameter];
  return parameter.part_of(parameter.variable.value(), parameter.parts[place.part]);
}

std::pair<Tensor, Tensor> Adapter::pair(const std::string& matrix) const {
  return {tensor_at(places_.at(matrix + ".lora_A.weight")),
          tensor_at(places_.at(matrix + ".lora_B.weight"))};
}

Tensor Adapter::merged(const std::string& tensor, const Tensor& weight) const {
  const std::string matrix = matrix_of_tensor(tensor);
  if (!places_.contains(matrix + ".lora_A.weight")) return weight;
  const Tensor out = Tensor::empty(weight.shape());
  out.copy_from(weight);
  const auto [a, b] = pair(matrix);
  accumulate(out, scale(matmul(b, a), shape_.at(matrix).scale));
  return out;
}

}  // namespace lectern
