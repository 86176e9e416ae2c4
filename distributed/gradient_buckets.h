// Gradients on their way between the ranks that hold the same parameters.
//
// Parameters lie one after the other in flat buffers ("buckets"), the last made first: that is
// about the order in which backward finishes their gradients. As soon as all gradients of a bucket
// are complete its sum over the ranks is started, while backward goes on with the layers before.
// Buckets start in their order on every rank, whatever came first.
//
// Each bucket is cut into one part for each rank, its own part: with ZeRO-1 (arXiv 1910.02054) a
// rank receives the sum of that part only, updates the values there, and gathers the others' parts
// while the next forward pass begins: whoever reads a parameter waits for its own bucket.
#pragma once

#include "autograd/backward_observer.h"
#include "autograd/value_arrival.h"
#include "distributed/communicator.h"
#include "nn/optim/optimizer.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace lectern {

/// Elements [begin, end) of a flattened parameter.
struct ParameterPiece {
  std::size_t parameter = 0;  ///< index in GradientBuckets' parameters
  std::int64_t begin = 0, end = 0;
  Tensor gradient;  ///< f32 [end - begin], view of the bucket; valid after reduce()
};

class GradientBuckets final : public BackwardObserver, private ValueArrival {
 public:
  enum class Result {
    whole,    ///< every rank gets the sum of all gradients
    own_part  ///< each rank gets the sum of its own part
  };

  /// Parameters are contiguous f32 leaves, the same on all ranks; a bucket has at least
  /// `bucket_bytes` unless it is the last. Throws ConfigError naming the parameter.
  GradientBuckets(NamedParameters parameters, std::shared_ptr<Communicator> ranks,
                  std::int64_t bucket_bytes, Result result);
  ~GradientBuckets() override;

  // Observe the last backward pass before reduce(): complete gradients are taken out of their
  // variables, added up over its passes before, and sent.
  void gradient_complete(VariableState* leaf) override;
  void operation_done() override { ranks_->progress(); }

  /// Takes the gradients that were not reported, and waits for all sums. A parameter without a
  /// gradient on any rank has none afterwards. With Result::whole the variables have the sums as
  /// their gradients; with own_part none, see own(). Collective.
  void reduce();

  const NamedParameters& parameters() const { return parameters_; }
  /// This rank's own part of every bucket, piece by piece.
  const std::vector<ParameterPiece>& own() const { return own_; }
  /// Whether any rank had a gradient for the parameter in the last reduce().
  bool has_gradient(std::size_t parameter) const;
  /// The first parameter whose gradient on this rank, before it was added to the others', was not
  /// finite; after reduce(), own_part only.
  std::optional<std::string> first_non_finite_here() const;

  /// Starts sending the values of this rank's own part to the others and taking theirs, in the
  /// order in which a forward pass comes to them. A parameter's next Variable::value() waits until
  /// its bucket is there. Collective.
  void gather_values();

  std::int64_t bucket_count() const { return static_cast<std::int64_t>(buckets_.size()); }
  /// Buckets whose values nobody has waited for since gather_values().
  std::int64_t arriving() const;

 private:
  struct Place {
    std::size_t bucket = 0;
    std::int64_t offset = 0;  // of its first element in the bucket
    bool taken = false;       // its gradient is in the bucket
  };
  struct Bucket {
    std::vector<std::size_t> parameters;
    std::int64_t elements = 0;
    Tensor flat;       // f32 [elements]
    Tensor sum;        // of the own part; whole: view of `flat`
    RankCounts parts;  // elements of each rank's part
    std::int64_t own_begin = 0;
    std::size_t missing = 0;  // gradients that are not there yet
    Handle handle;            // of its sum
    Handle values;            // of the other ranks' values
    bool is_arriving = false;
  };

  void make_buckets(std::int64_t bucket_bytes);
  void cut_into_parts();
  Tensor place_of(std::size_t parameter) const;
  void take(std::size_t parameter);
  void start_ready_buckets();
  void wait_for(VariableState* leaf) override;
  void take_values(Bucket& bucket);

  NamedParameters parameters_;
  std::shared_ptr<Communicator> ranks_;
  Result result_;
  std::vector<Place> places_;
  std::vector<Bucket> buckets_;
  std::unordered_map<const VariableState*, std::size_t> index_;
  std::vector<ParameterPiece> own_;
  Tensor has_gradient_;  // i32 [parameters]
  std::size_t started_ = 0;
};

}  // namespace lectern
