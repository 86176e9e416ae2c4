#include "nn/low_rank.h"

#include "autograd/ops/dropout.h"
#include "autograd/weights_constant.h"
#include "core/ops/convert.h"
#include "core/random.h"

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <utility>

namespace lectern {
namespace {

thread_local DropoutState dropout_of_thread;

/// What a sum is made of, as it was.
using Versions = std::array<std::pair<const void*, std::uint64_t>, 3>;

std::pair<const void*, std::uint64_t> version_of(const Tensor& tensor) {
  return {tensor.raw(), tensor.storage()->version()};
}

}  // namespace

/// The sum of the last call, and what it was made of.
struct LowRank::Kept {
  std::mutex mutex;
  Versions of{};
  Tensor sum;
};

LowRank::LowRank() : kept_(std::make_unique<Kept>()) {}
LowRank::~LowRank() = default;

Variable LowRank::linear(const Variable& x, const Variable& weight, const Variable& bias) const {
  const DropoutState& state = dropout_state();
  if (dropout == 0 || !state.is_on) return low_rank_linear(x, x, weight, bias, pairs);
  const Random stream(state.seed, fmt::format("dropout/{}/{}/{}", state.stream, name, x.shape()));
  return low_rank_linear(x, lectern::dropout(x, dropout, stream.key()), weight, bias, pairs);
}

Variable LowRank::merged(const Variable& weight) const {
  if (!weights_are_constant()) return low_rank_merged(weight, pairs);
  const Versions now = {version_of(weight.value()), version_of(pairs.a.value()),
                        version_of(pairs.b.value())};
  const std::scoped_lock lock(kept_->mutex);
  if (!kept_->sum.defined() || kept_->of != now) {
    kept_->sum = Tensor();
    // In the weight's dtype, as an export would have it: the weights beside it are of that dtype.
    kept_->sum = convert(low_rank_merged(weight, pairs).value(), weight.dtype());
    kept_->of = now;
  }
  return Variable(kept_->sum);
}

const DropoutState& dropout_state() { return dropout_of_thread; }

DropoutScope::DropoutScope(DropoutState state)
    : before_(std::exchange(dropout_of_thread, std::move(state))) {}

DropoutScope::~DropoutScope() { dropout_of_thread = std::move(before_); }

}  // namespace lectern
