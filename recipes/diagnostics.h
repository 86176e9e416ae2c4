// What tells a stable run from an unstable one before its loss does: gains of residual streams, and
// gradient norms layer by layer, as fields of metrics.jsonl.
#pragma once

#include "nn/optimizer.h"
#include "nn/stream_statistics.h"
#include "recipes/metrics.h"

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// gain_forward, gain_backward, gain_forward_min, gain_backward_min, stream_deviation,
/// stream_entropy of the decoder (meanings: nn/stream_statistics.h); with the prefix "encoder_"
/// those of the encoder. Stacks that are not there add nothing.
void add_stream_fields(const std::map<std::string, StreamStatistics>& stacks, MetricFields& fields);

/// ("encoder_00", norm) ... ("decoder_11", norm) of the gradients of each layer that trains, in
/// order. `squares`: sum of the squares of each parameter's gradient.
std::vector<std::pair<std::string, double>> layer_gradient_norms(
    const std::map<std::string, double>& squares);
/// The same from the gradients themselves, on one rank.
std::vector<std::pair<std::string, double>> layer_gradient_norms(const NamedParameters& trainable);

}  // namespace lectern
