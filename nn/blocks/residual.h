// Residual connections of a stack of layers: the plain one, hyper-connections (HC) and
// manifold-constrained hyper-connections (mHC).
//
//   plain   x' = x + F(x)
//   hc, mhc x' = H_res x + H_post^T F(H_pre x)      x [..., n, C]; core/ops/stream_read.h
//
// A stack expands once at its entry and merges once at its end; every sub-layer (attention, MLP)
// has mappings of its own. Parameters carry the names of DeepSeek-V4 in transformers: `fn`, `base`,
// `scale` under attn_hc and ffn_hc of a layer, `hc_fn`, `hc_base`, `hc_scale` under hc_head.
//
// Training starts near the plain residual: sum of H_pre 1, H_post 1, H_res close to the identity,
// all streams equal. One stream, another in each sub-layer, is read more than the others, because
// equal streams that are treated equally would also have equal gradients. HC starts as in its
// paper.
#pragma once

#include "autograd/ops/streams.h"
#include "nn/blocks/residual_config.h"
#include "nn/forward_context.h"
#include "nn/parameter.h"

#include <functional>
#include <optional>
#include <string>

namespace lectern {

/// The residual connection around one sub-layer.
class ResidualConnection {
 public:
  using Layer = std::function<Variable(const Variable&)>;

  /// `index` counts the sub-layers of the stack. Makes no parameters when plain.
  ResidualConnection(ParameterStore& store, const std::string& prefix, const ResidualConfig& config,
                     std::int64_t width, std::int64_t index);

  /// x' around layer(input), input and output [..., C]. Reports its mix when the context asks.
  Streams around(const Streams& x, const Layer& layer, ForwardContext& context) const;

 private:
  ResidualConfig config_;
  StreamReadArgs args_;
  StreamVariables parameters_;
};

/// Entry and exit of a stack.
class ResidualStack {
 public:
  /// `name` is of the statistics ("decoder").
  ResidualStack(ParameterStore& store, const std::string& prefix, const std::string& name,
                const ResidualConfig& config, std::int64_t width);

  const ResidualConfig& config() const { return config_; }
  /// x [..., C] -> streams. Starts the statistics of this pass.
  Streams enter(const Variable& x, ForwardContext& context) const;
  /// Before block `index`: begins a segment when the context asks for recomputation there.
  Streams at_block(const Streams& x, std::size_t index, std::size_t blocks,
                   const ForwardContext& context) const;
  /// streams -> [..., C]. Ends the statistics.
  Variable leave(const Streams& x, ForwardContext& context) const;

 private:
  std::string name_;
  ResidualConfig config_;
  StreamVariables head_;
};

/// Blocks a segment for recomputation of streams, from the paper's eq. 20,
///   L_r = sqrt(n L / (n + 2)),
/// counted in sub-layers (L = 2 x blocks) and rounded to whole blocks; it divides `stage_blocks`,
/// the blocks of one pipeline stage, so that no segment crosses a stage.
std::int64_t stream_interval(std::int64_t streams, std::int64_t blocks, std::int64_t stage_blocks);

/// Rewrites the weights of the mHC mappings whose names start with `prefix`, made with convention
/// `from`, so that `to` means the same map by them: deepseek-v4 applies H_res transposed, so that
/// its rows of `fn` and `base` for H_res are those of the other two transposed. What is left
/// differs by the order of Sinkhorn's steps and the epsilons, nothing once Sinkhorn has converged.
void convert_convention(const ParameterStore& store, StreamConvention from, StreamConvention to,
                        const std::string& prefix = "");

/// Activations that streams add to a plain stack, bytes at the peak of backward: the streams kept
/// at the start of each segment, those rebuilt within one, and the outputs of all sub-layers, which
/// plain does not keep. interval 0: everything kept.
double stream_memory(const ResidualConfig& config, std::int64_t blocks, std::int64_t interval,
                     std::int64_t tokens, std::int64_t width, DType dtype = DType::f32);

}  // namespace lectern
