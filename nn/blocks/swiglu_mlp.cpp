#include "nn/blocks/swiglu_mlp.h"

#include "autograd/ops/swiglu.h"

namespace lectern {

SwigluMlp::SwigluMlp(ParameterStore& store, const std::string& prefix, std::int64_t hidden_size,
                     std::int64_t intermediate_size, double initializer_range) {
  const auto normal = Initialiser::normal(initializer_range);
  gate_up_ =
      Linear(store, prefix + "gate_up_proj",
             {{prefix + "gate_proj", intermediate_size}, {prefix + "up_proj", intermediate_size}},
             hidden_size, normal);
  down_ = Linear(store, {prefix + "down_proj", hidden_size}, intermediate_size, normal);
}

Variable SwigluMlp::forward(const Variable& x) const {
  return down_.forward(swiglu(gate_up_.forward(x)));
}

}  // namespace lectern
