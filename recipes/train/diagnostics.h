// What tells a stable run from an unstable one before its loss does: gains of residual streams, and
// gradient norms layer by layer, as fields of metrics.jsonl. And what to say when it is too late.
#pragma once

#include "distributed/parallel_adamw.h"
#include "nn/optim/optimizer.h"
#include "nn/stream_statistics.h"
#include "recipes/log/metrics.h"

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// gain_forward, gain_backward, gain_forward_min, gain_backward_min, stream_deviation,
/// stream_entropy of the decoder (meanings: nn/stream_statistics.h); with the prefix
/// "encoder_" those of the encoder. Stacks that are not there add nothing.
void add_stream_fields(const std::map<std::string, StreamStatistics>& stacks, MetricFields& fields);

/// ("encoder_00", norm) ... ("decoder_11", norm) of the gradients of each layer that trains, in
/// order. `squares`: sum of the squares of each parameter's gradient.
std::vector<std::pair<std::string, double>> layer_gradient_norms(
    const std::map<std::string, double>& squares);
/// The same from the gradients themselves, on one rank.
std::vector<std::pair<std::string, double>> layer_gradient_norms(const NamedParameters& trainable);

/// A step whose loss or gradient norm is not finite.
struct BadStep {
  std::int64_t step = 0;  ///< from 1
  double loss = 0;        ///< of all ranks
  double loss_here = 0;   ///< of this one
  double gradient_norm = 0;
};

/// Throws NumericError that names step, parameter or loss and, of several ranks, the rank where it
/// was found. Collective.
[[noreturn]] void fail_not_finite(Communicator& world, const ParallelAdamW& optimizer,
                                  const BadStep& bad);

}  // namespace lectern
