// A low-rank adapter of a model (LoRA, arXiv 2106.09685): W + scale B A in place of published
// matrices W, whose own values stay as they are.
//
// Every published matrix has a pair of its own, also where lectern multiplies by several as one
// (q, k and v; gate and up; the experts of a layer). The pairs are parameters of a store beside the
// model's, placed on ranks as the matrices are: they train, and are saved and read, like any other.
#pragma once

#include "nn/model.h"
#include "nn/parameter.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// Size and factor of one pair.
struct PairShape {
  std::int64_t rank = 0;
  double scale = 1.0;
  bool operator==(const PairShape&) const = default;
};

/// Which published matrices ("model.layers.3.self_attn.q_proj", without ".weight") have pairs.
using AdapterShape = std::map<std::string, PairShape>;

/// alpha / rank, or with `rslora` alpha / sqrt(rank) (arXiv 2312.03732).
double low_rank_scale(std::int64_t rank, double alpha, bool rslora);

/// The matrices of linear layers whose name, or whose parameter's name, begins as one of the
/// patterns says (matches_any()), each with a pair of this shape.
AdapterShape adapter_shape(const ModelConfig& config, const std::vector<std::string>& patterns,
                           const PairShape& pair);

class Adapter {
 public:
  /// Puts pairs beside the model's matrices: A normal with the variance of a layer's usual uniform
  /// initialisation, 1 / (3 columns), B zeros, so that the model computes what it did. Streams are
  /// named after matrices: values depend on neither placement nor fusing. Freezes the model, which
  /// must outlive the adapter. Throws ConfigError for a matrix that the model does not have, for
  /// pairs of different rank in one parameter, and where a layer's experts have pairs in part.
  Adapter(OcrModel& model, AdapterShape shape, std::uint64_t seed, double dropout = 0);
  ~Adapter();
  Adapter(const Adapter&) = delete;
  Adapter& operator=(const Adapter&) = delete;

  /// The pairs as parameters; tensors "<matrix>.lora_A.weight" [rank, columns] and
  /// "<matrix>.lora_B.weight" [rows, rank].
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }
  const AdapterShape& shape() const { return shape_; }

  /// A tensor of the model with its pair, W + scale B A in f32, or `weight` itself where it has
  /// none. `weight`: the model's own value of it, in any floating dtype, on the CPU.
  Tensor merged(const std::string& tensor, const Tensor& weight) const;

  /// A [rank, columns] and B [rows, rank] of a matrix of shape(), views.
  std::pair<Tensor, Tensor> pair(const std::string& matrix) const;

  /// Moves the pairs to a device; as ParameterStore::to().
  void to(Device device);

 private:
  /// Makes and attaches the pairs of a parameter.
  void add_pairs(const Parameter& parameter, double dropout);

  /// A tensor of the store: part `part` of parameter `parameter`.
  struct Place {
    std::size_t parameter = 0, part = 0;
  };
  Tensor tensor_at(const Place& place) const;

  OcrModel& model_;
  AdapterShape shape_;
  ParameterStore store_;
  std::map<std::string, Place> places_;  ///< of what lives here
};

/// "model.layers.3.self_attn.q_proj" of "model.layers.3.self_attn.q_proj.weight".
std::string matrix_of_tensor(const std::string& tensor);

}  // namespace lectern
