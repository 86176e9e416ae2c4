// AdamW over many ranks: gradients are added over the ranks that hold the same parameters, the norm
// is of the whole model, and with ZeRO-1 each rank keeps the moments of its own part only and sends
// the updated values round. Weights are f32 everywhere (compute in bf16 rounds copies of them), so
// the master weights are the parameters themselves.
//
// Element by element the arithmetic is AdamW's (nn/optim/optimizer.h): with ZeRO or without gives
// the same bits, and one rank does what AdamW alone does.
#pragma once

#include "distributed/gradient_buckets.h"
#include "nn/optim/optimizer.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

struct ParallelAdamWOptions {
  bool zero = true;                     ///< ZeRO-1
  std::int64_t bucket_bytes = 4 << 20;  ///< of gradients that are sent together
};

/// What one rank keeps, and writes into a checkpoint, of a parameter's optimizer state: elements
/// [begin, end) of the flattened moments.
struct MomentPiece {
  std::string parameter;
  std::int64_t begin = 0, end = 0;
  bool is_whole = false;  ///< all of the parameter, in its shape; else [end - begin]
  Tensor exp_avg, exp_avg_sq;
  std::int64_t steps = 0;
};

/// "name[16:48]"
std::string piece_name(const std::string& parameter, std::int64_t begin, std::int64_t end);

class ParallelAdamW {
 public:
  /// `world`: all ranks that train parts of one model. Throws as AdamW.
  ParallelAdamW(const AdamWArgs& args, std::shared_ptr<Communicator> world,
                const ParallelAdamWOptions& options = {});
  ~ParallelAdamW();

  /// Parameters that the ranks of `replicas` (this one among them) hold alike, in the order in
  /// which the forward pass comes to them, over all groups: backward finishes them in reverse, and
  /// their gradients leave in that order. All groups come before the first other call. Throws as
  /// AdamW::add_group(). Where other ranks hold other parts of a parameter under the same name (the
  /// experts of a layer), this one is part `part` of `parts` equal ones.
  void add_group(const std::string& name, const NamedParameters& parameters, double weight_decay,
                 const std::shared_ptr<Communicator>& replicas, std::int64_t part = 0,
                 std::int64_t parts = 1);

  /// Whom the last backward pass before reduce_gradients() should report to.
  BackwardObserver* observer();

  void clear_gradients();
  /// Adds the gradients of all ranks up. Collective, as all that follow but
  /// first_non_finite_here().
  void reduce_gradients();
  /// L2 norm over all parameters of the model.
  double gradient_norm();
  /// Sum of the squares of each parameter's gradient, by name.
  std::map<std::string, double> gradient_squares();
  /// A parameter whose gradient is not finite, as far as this rank can tell.
  std::optional<std::string> first_non_finite_here() const;
  /// One update of every parameter that has a gradient on any rank. With ZeRO-1 the other ranks'
  /// values are then on their way: reading a parameter waits for them.
  void step(double learning_rate, double gradient_scale);

  /// What this rank has to save: over all ranks, each element that was ever updated once.
  std::vector<MomentPiece> state() const;
  /// Takes a saved state, whatever ranks wrote it. `moment` gives elements [begin, end) of the
  /// flattened "<parameter>.exp_avg" or "....exp_avg_sq"; parameters that `steps` does not name
  /// start afresh. Throws ConfigError for steps of an unknown parameter.
  using Moments =
      std::function<Tensor(const std::string& name, std::int64_t begin, std::int64_t end)>;
  void load_state(const Moments& moment, const std::map<std::string, std::int64_t>& steps);

  /// Moments on this rank.
  std::int64_t state_bytes() const { return optimizer_.state_bytes(); }

 private:
  struct Group;
  class Observer;
  void prepare();
  void each_owned_gradient(const std::function<void(const std::string&, const Tensor&)>& f) const;

  AdamW optimizer_;
  std::shared_ptr<Communicator> world_;
  ParallelAdamWOptions options_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::unique_ptr<Observer> observer_;
  bool prepared_ = false;
};

}  // namespace lectern
