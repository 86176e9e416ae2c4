// Parameters and the names that checkpoints give them.
//
// A layer asks the store for its parameters while it is being made. A parameter may hold several
// tensors of a checkpoint side by side (query, key and value projections in one matrix; all experts
// in one stack), so that one product serves them all; its parts say which rows are which tensor.
// Reading and writing checkpoints goes through the parts as views: nothing is copied to split them.
#pragma once

#include "autograd/variable.h"
#include "nn/low_rank.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// How a new parameter is filled. The random stream is named after the parameter, so its values do
/// not depend on the order in which layers are made.
struct Initialiser {
  enum class Kind { normal, zeros, ones } kind = Kind::zeros;
  double standard_deviation = 0;

  static Initialiser normal(double standard_deviation) {
    return {Kind::normal, standard_deviation};
  }
  static Initialiser zeros() { return {Kind::zeros, 0}; }
  static Initialiser ones() { return {Kind::ones, 0}; }
};

/// One checkpoint tensor inside a parameter: rows [begin, end) of dimension 0, or of matrix `stack`
/// of a three-dimensional parameter.
struct ParameterPart {
  std::string name;
  std::int64_t begin = 0, end = 0;
  std::int64_t stack = -1;
};

/// Which matrices of a stack live in this process: share `rank` of `ranks` equal ones.
struct StackShare {
  std::int64_t rank = 0, ranks = 1;
};

struct Parameter {
  std::string name;  ///< path in the model; starts with the same prefix as its parts
  Variable variable;
  std::vector<ParameterPart> parts;  ///< never empty; `stack` counts from the share's first matrix
  StackShare share{};                ///< of the stack that the model has under this name
  std::shared_ptr<LowRank> low_rank{};  ///< of linear layers: a place for pairs

  /// Whether other ranks hold other matrices of the stack.
  bool is_spread() const { return share.ranks > 1; }
  /// Shape of the whole stack; of any other parameter its own.
  Shape whole_shape() const;
  /// View of what lives here in `stack`, which has whole_shape().
  Tensor share_of(const Tensor& stack) const;
  /// View of a part in `whole`, which has the parameter's shape (its value, gradient, moment).
  Tensor part_of(const Tensor& whole, const ParameterPart& part) const;
};

/// Whether a parameter's name begins as one of the patterns says: prefixes, in which `*` stands for
/// one step of the path ("model.layers.*.mlp.experts.").
bool matches_any(const std::string& name, const std::vector<std::string>& patterns);

/// Whether new parameters get memory and values, or wait for load_weights() to give them both: a
/// model that is about to be read needs neither the time nor the second copy.
enum class ParameterValues { initialised, absent };

class ParameterStore {
 public:
  /// Says by name which parameters live in this process; empty: all of them.
  using Owned = std::function<bool(const std::string& name)>;

  /// With `dtype` bf16 (reading only: no gradients) matrices are bf16 and all other parameters f32.
  /// For a parameter that is not `owned` (another pipeline stage has it) the store keeps its name
  /// alone, and the layer that asked for it gets an undefined Variable.
  explicit ParameterStore(std::uint64_t seed, DType dtype = DType::f32,
                          ParameterValues values = ParameterValues::initialised, Owned owned = {})
      : seed_(seed), dtype_(dtype), values_(values), owned_(std::move(owned)) {}

  /// Makes a parameter that is one tensor of the checkpoint.
  Variable add(const std::string& name, const Shape& shape, const Initialiser& initialiser);
  /// Makes a parameter of several checkpoint tensors. Throws ShapeError unless the parts,
  /// in their order, cover it.
  Variable add(const std::string& name, const Shape& shape, const Initialiser& initialiser,
               std::vector<ParameterPart> parts);
  /// As add(), for what only linear(), experts() and embedding() read: they take it in bf16 too.
  Variable add_matrix(const std::string& name, const Shape& shape, const Initialiser& initialiser);
  Variable add_matrix(const std::string& name, const Shape& shape, const Initialiser& initialiser,
                      std::vector<ParameterPart> parts);
  /// As add_matrix() for layers of nn/linear.h, with a place for low-rank pairs of the parts. Of a
  /// stack [matrices, rows, columns] only `share` lives here: shape and parts are those of the
  /// whole stack. Throws ConfigError when the shares would not be equal.
  Parameter add_linear(const std::string& name, const Shape& shape, const Initialiser& initialiser,
                       const std::vector<ParameterPart>& parts, const StackShare& share = {});
  /// The same in f32 in any store, for matrices that are not rounded (routers).
  Parameter add_linear_f32(const std::string& name, const Shape& shape,
                           const Initialiser& initialiser);
  /// Makes what lies beside a parameter of another store and is placed as that is: `shape` and
  /// `parts` are of what lives here, of `share`.
  Parameter add_beside(const std::string& name, const Shape& shape, const Initialiser& initialiser,
                       std::vector<ParameterPart> parts, const StackShare& share);
  /// Says that a checkpoint tensor lives in another process.
  void add_elsewhere(const std::string& tensor) { tensors_elsewhere_.insert(tensor); }
  /// Puts pairs beside the parameter of a linear layer, or takes them away (undefined pairs).
  /// Throws ConfigError when no linear layer here has this parameter, ShapeError when the pairs do
  /// not fit.
  void set_low_rank(const std::string& parameter, const LowRankPairs& pairs, double dropout = 0);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  std::int64_t parameter_count() const;
  /// Whether a checkpoint tensor is part of the model but lives in another process.
  bool is_elsewhere(const std::string& tensor) const { return tensors_elsewhere_.contains(tensor); }
  const std::set<std::string>& elsewhere() const { return tensors_elsewhere_; }
  DType dtype() const { return dtype_; }
  ParameterValues values() const { return values_; }

  /// Every checkpoint tensor as (name, view of the value), in order of name.
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// The same in the order of files: the parts of a parameter one after the other, so that the
  /// parameter can be a view of the mapped file. With patterns only what matches them.
  std::vector<std::pair<std::string, Tensor>> file_order_state(
      const std::vector<std::string>& patterns = {""}) const;
  /// The same for gradients; a parameter without one gives zeros.
  std::vector<std::pair<std::string, Tensor>> gradients() const;

  /// Freezes every parameter that matches_any() of the patterns, unfreezes all others. Throws
  /// ConfigError when a pattern matches nothing, here or in another process.
  void freeze(const std::vector<std::string>& patterns);
  /// (name, variable) of the parameters that are not frozen.
  std::vector<std::pair<std::string, Variable>> trainable() const;
  void clear_gradients();

  /// Moves all values to a device and drops the gradients. Do it before an optimizer makes its
  /// state.
  void to(Device device);
  /// Where the values are; the CPU while there are none.
  Device device() const;

 private:
  Variable add_as(DType dtype, const std::string& name, const Shape& shape,
                  const Initialiser& initialiser, std::vector<ParameterPart> parts);
  std::vector<ParameterPart> parts_of_share(const std::vector<ParameterPart>& parts,
                                            std::int64_t matrices, const StackShare& share);

  std::uint64_t seed_;
  DType dtype_;
  ParameterValues values_;
  Owned owned_;
  std::vector<Parameter> parameters_;
  std::vector<std::string> elsewhere_;       ///< names of parameters that are not owned
  std::set<std::string> tensors_elsewhere_;  ///< their tensors, and those of other shares
};

/// What a pass through layers with these parameters reads: their values and low-rank pairs.
std::vector<Variable> variables_of(const std::vector<Parameter>& parameters);

}  // namespace lectern
