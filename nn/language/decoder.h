// The DeepSeek-MoE decoder: embedding, blocks, norm and head (arXiv 2401.06066).
#pragma once

#include "nn/blocks/residual.h"
#include "nn/blocks/transformer_block.h"
#include "nn/forward_context.h"
#include "nn/language/decoder_config.h"
#include "nn/language/decoding_cache.h"
#include "nn/model_input.h"
#include "nn/parameter.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

/// Prefixes of the names of a decoder's parameters: all of them, and those of its stack of blocks.
const std::vector<std::string>& decoder_prefixes();
inline constexpr const char* kDecoderBlocks = "model.layers.";
/// The entry and exit of its residual streams.
ResidualStack decoder_residual(ParameterStore& store, const DecoderConfig& config,
                               const ResidualConfig& residual);
/// Whether a parameter is a stack of routed experts.
bool is_routed_expert(const std::string& parameter);

/// Rows in their order, each seeing those of its own sample before it.
SequenceLayout causal_layout(const ModelInput& input);

class Decoder {
 public:
  /// Names are the published ones: model.embed_tokens, model.layers.<n>, model.norm, lm_head.
  /// `residual`: of decoder_residual(), made before whatever else the store gets.
  Decoder(ParameterStore& store, const DecoderConfig& config, ResidualStack residual,
          const ModelPlacement& placement = {});

  const DecoderConfig& config() const { return config_; }
  /// Block of a parameter, or the number of blocks for the head's; none for other names.
  static std::optional<std::int64_t> unit_of(const DecoderConfig& config, const std::string& name);
  /// Whether a parameter is the token embedding, whose rows are looked up.
  static bool is_embedding(const std::string& name);
  /// Whether it is the head, which only trained rows meet.
  static bool is_head(const std::string& name);

  /// [V, C].
  const Variable& embedding() const { return embedding_; }
  /// Rows of the token embedding, ids i32 [...] -> [..., C]. Records no graph.
  Tensor embed_tokens(const Tensor& ids) const;

  // The decoder in pieces: enter, blocks, finish, logits.
  Streams enter(const Variable& embeddings, ForwardContext& context) const;
  Streams run(const UnitRange& blocks, Streams x, const SequenceLayout& layout,
              ForwardContext& context) const;
  /// streams [B, T, C] -> [B, T, C] after the last norm.
  Variable finish(const Streams& x, ForwardContext& context) const;
  /// Logits of chosen rows, hidden [N, C] -> [N, V].
  Variable logits(const Variable& hidden) const;

  /// All blocks and the last norm over embeddings, [B, T, C].
  Variable forward(const Variable& embeddings, const SequenceLayout& layout,
                   ForwardContext& context) const;
  /// Next-token loss of the blocks' streams; labels i32 [B, T], -100 ignored.
  ModelLoss loss(const Streams& hidden, const Tensor& labels, ForwardContext& context) const;

  /// Appends tokens to the cache of all sequences and gives the logits of the last one, [B, V].
  /// embeddings [B, T, C]; throws ShapeError when the cache is too small. Records no graph.
  Tensor step(const Tensor& embeddings, DecodingCache& cache, ForwardContext& context) const;

 private:
  DecoderConfig config_;
  ResidualStack residual_;
  Variable embedding_;
  std::vector<TransformerBlock> blocks_;
  Variable norm_, head_;
};

}  // namespace lectern
