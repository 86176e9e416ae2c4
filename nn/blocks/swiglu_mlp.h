// The gated MLP of the transformer blocks (arXiv 2002.05202).
#pragma once

#include "nn/linear.h"

#include <cstdint>
#include <string>

namespace lectern {

/// down(silu(gate(x)) * up(x)); gate and up are one matrix.
class SwigluMlp {
 public:
  SwigluMlp(ParameterStore& store, const std::string& prefix, std::int64_t hidden_size,
            std::int64_t intermediate_size, double initializer_range);
  /// x [..., C] -> [..., C].
  Variable forward(const Variable& x) const;

 private:
  Linear gate_up_, down_;
};

}  // namespace lectern
