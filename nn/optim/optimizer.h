// AdamW (Loshchilov & Hutter, arXiv 1711.05101) and what goes before its step: the global norm of
// the gradients and the search for one that is not finite.
//
// A step of one parameter p with gradient g, t = its own step count after this one:
//   g <- gradient_scale * g
//   p <- p (1 - lr weight_decay)
//   m <- beta1 m + (1 - beta1) g          v <- beta2 v + (1 - beta2) g^2
//   p <- p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
// which is torch.optim.AdamW, operation for operation. State has the dtype of the parameter (f32;
// f64 for tests). A parameter without a gradient (grad() undefined) is skipped: no decay, no step
// count. A parameter whose gradient is zero is updated and decayed.
#pragma once

#include "autograd/variable.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

using NamedParameters = std::vector<std::pair<std::string, Variable>>;

struct AdamWArgs {
  double learning_rate = 1e-3;  ///< >= 0; what step() uses when it is given none
  double beta1 = 0.9;           ///< 0 <= beta1 < 1
  double beta2 = 0.95;          ///< 0 <= beta2 < 1
  double epsilon = 1e-8;        ///< > 0
  double weight_decay = 0.1;    ///< >= 0; what add_group() uses when it is given none
};

class AdamW {
 public:
  /// Throws ConfigError naming the field that is out of range.
  explicit AdamW(const AdamWArgs& args = {});

  /// Parameters must be contiguous f32 or f64 leaves; names are unique over all groups (they name
  /// the state in checkpoints). Throws ConfigError naming the parameter.
  void add_group(const std::string& name, const NamedParameters& parameters,
                 std::optional<double> weight_decay = {});

  /// One update of every parameter that has a gradient. The gradients are multiplied by
  /// `gradient_scale` (from clip_scale()) as they are read, and are left as they are. Throws
  /// ShapeError when a gradient does not fit its parameter.
  void step(double learning_rate, double gradient_scale = 1.0);
  void step() { step(args_.learning_rate); }

  void clear_gradients();

  /// "<parameter>.exp_avg", "<parameter>.exp_avg_sq" of every parameter that was ever updated, in
  /// the order of the groups. The tensors are the state itself, not copies.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// Updates so far, for the same parameters.
  std::map<std::string, std::int64_t> step_counts() const;
  /// Takes copies of a saved state. Parameters that `steps` does not name start afresh. Throws
  /// ConfigError for a name that is no parameter or a missing tensor, ShapeError for a wrong shape.
  void load_state(const std::vector<std::pair<std::string, Tensor>>& state,
                  const std::map<std::string, std::int64_t>& steps);

  const AdamWArgs& args() const { return args_; }
  /// All parameters in the order of the groups.
  NamedParameters parameters() const;
  std::int64_t state_bytes() const;

 private:
  struct Slot {
    std::string name;
    Variable parameter;
    double weight_decay = 0;
    Tensor exp_avg, exp_avg_sq;  // undefined before the first update
    std::int64_t steps = 0;
  };

  AdamWArgs args_;
  std::vector<Slot> slots_;
  std::map<std::string, std::size_t> index_;
};

/// L2 norm over the gradients of all parameters that have one, in f64, in chunks of fixed size that
/// are added in order: the same bits for any number of threads. No gradients: 0.
double gradient_norm(const NamedParameters& parameters);

/// min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; give it to step().
double clip_scale(double norm, double max_norm);

/// Name of the first parameter whose gradient has a NaN or an infinity.
std::optional<std::string> first_non_finite(const NamedParameters& parameters);

}  // namespace lectern
