// The layers that nearly all weights are in: a matrix, or several published ones side by side, and
// a place for a low-rank pair of each.
//
//   y = x W^T + b,     W of a part with a pair: W + scale B A     (LoRA, arXiv 2106.09685)
//
// Checkpoints and adapters know published matrices (q_proj, k_proj and v_proj; gate_proj and
// up_proj of each expert); the model multiplies by one matrix, or one stack, that holds them as its
// parts.
#pragma once

#include "nn/parameter.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace lectern {

/// A published matrix of a linear layer: `name`.weight [rows, columns], and where the layer has a
/// bias `name`.bias [rows].
struct LinearPart {
  std::string name;
  std::int64_t rows = 0;
};

/// The parameter's matrix or stack with the pairs of its parts (nn/low_rank.h): itself where there
/// are none, else a copy.
Variable merged(const Parameter& weight);

class Linear {
 public:
  Linear() = default;
  /// Makes `name`.weight [sum of rows, columns] of the parts in their order and, with `bias`,
  /// `name`.bias of zeros.
  Linear(ParameterStore& store, const std::string& name, const std::vector<LinearPart>& parts,
         std::int64_t columns, const Initialiser& initialiser, bool bias = false);
  /// One published matrix.
  Linear(ParameterStore& store, const LinearPart& part, std::int64_t columns,
         const Initialiser& initialiser, bool bias = false);

  /// x [..., columns] -> [..., sum of rows].
  Variable forward(const Variable& x) const;
  /// The matrix for operations that multiply by it themselves; merged().
  Variable weight() const { return merged(weight_); }

 private:
  Parameter weight_;
  Variable bias_;
};

/// A stack of matrices [matrices, rows, columns], such as the experts of a layer.
class LinearStack {
 public:
  LinearStack() = default;
  /// As ParameterStore::add_linear().
  LinearStack(ParameterStore& store, const std::string& name, const Shape& shape,
              const Initialiser& initialiser, const std::vector<ParameterPart>& parts,
              const StackShare& share);
  /// The matrices that live here; merged().
  Variable weight() const { return merged(weight_); }

 private:
  Parameter weight_;
};

}  // namespace lectern
