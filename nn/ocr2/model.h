// DeepSeek-OCR 2: SAM tokenizer -> LM encoder with causal-flow queries -> projector -> image rows
// in the text sequence -> DeepSeek-MoE decoder -> LM head (docs/ocr2.md; arXiv 2601.20552).
#pragma once

#include "nn/blocks/transformer_block.h"
#include "nn/forward_context.h"
#include "nn/ocr2/config.h"
#include "nn/ocr2/lm_encoder.h"
#include "nn/ocr2/units.h"
#include "nn/parameter.h"
#include "nn/vision/sam.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// Rows of decoder input that stand for the views of a batch, after the projector.
struct VisualFeatures {
  Variable global;  ///< [images, n_global, C]
  Variable local;  ///< [tiles, n_local, C], tiles in order of their images; undefined without tiles
};

/// One batch as the decoder sees it. Images stand in the flattened ids in their order.
struct Ocr2Input {
  Tensor input_ids;      ///< i32 [B, T]; image_token_id marks the rows that image features replace
  Tensor labels;         ///< i32 [B, T], -100 ignored; undefined when only decoding
  Tensor positions;      ///< i32 [B, T] rotary positions; undefined: 0..T-1
  Tensor segment_start;  ///< i32 [B, T] packed samples; undefined: one sample a row
  Tensor pixel_values;   ///< f32 [images, 3, S, S]; undefined when `features` are given
  Tensor pixel_values_local;                    ///< f32 [tiles, 3, s, s]; undefined without tiles
  std::vector<std::int64_t> num_local_patches;  ///< tiles of each image
};

/// Sum of the losses of all trained tokens, and their number.
struct Ocr2Loss {
  Variable loss_sum;  ///< scalar
  std::int64_t count = 0;
};

/// Names of the parts that stages freeze, as prefixes of parameter names.
namespace ocr2_parts {
inline const std::vector<std::string> kTokenizer = {"model.sam_model."};
inline const std::vector<std::string> kEncoder = {"model.sam_model.", "model.qwen2_model.",
                                                  "model.projector.", "model.view_seperator"};
}  // namespace ocr2_parts

/// The keys and values of a batch of sequences while they are decoded.
class DecodingCache {
 public:
  /// `capacity`: most tokens a sequence may come to; memory grows with the tokens, block by block.
  /// `dtype` f32 or bf16 (f32 models only: half the memory and the reading).
  DecodingCache(const TextConfig& config, std::int64_t batch, std::int64_t capacity,
                DType dtype = DType::f32, Device device = {});
  std::int64_t batch() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t capacity() const { return capacity_; }
  /// Tokens of sequence b that the cache holds.
  std::int64_t length(std::int64_t b) const { return lengths_[static_cast<std::size_t>(b)]; }
  /// Tokens of a sequence that there is memory for now.
  std::int64_t reserved() const { return layers_.empty() ? 0 : layers_[0].keys.dim(1); }
  /// Keeps only these sequences, in ascending order.
  void keep(const std::vector<std::int64_t>& sequences);
  /// Copies sequence rows[i] of another cache of the same model to place places[i], over what was
  /// there. Places from batch() on are new and must leave no gap.
  void take(const DecodingCache& other, const std::vector<std::int64_t>& rows,
            const std::vector<std::int64_t>& places);

 private:
  friend class Ocr2Model;
  void reserve(std::int64_t tokens);
  void resize(std::int64_t sequences, std::int64_t tokens);
  std::int64_t longest() const;

  std::int64_t capacity_;
  std::vector<std::int64_t> lengths_;
  std::vector<LayerCache> layers_;
};

class Ocr2Model {
 public:
  /// `dtype` and `values` as in ParameterStore. With `placement` only a part of the parameters is
  /// here (their values do not depend on it): run_units() works for the units that are, and where
  /// experts are elsewhere the context must have an exchange. Throws ConfigError when the experts
  /// do not divide by the ranks.
  Ocr2Model(const Ocr2Config& config, std::uint64_t seed, DType dtype = DType::f32,
            ParameterValues values = ParameterValues::initialised,
            const Ocr2Placement& placement = {});

  const Ocr2Config& config() const { return config_; }
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }

  /// Pixels of all views -> decoder rows. Records no graph for frozen parts.
  VisualFeatures encode(const Ocr2Input& input, ForwardContext& context) const;
  /// Token and image rows in one sequence, [B, T, C].
  Variable embed(const Ocr2Input& input, const VisualFeatures& features) const;
  /// Decoder blocks and final norm over embeddings, [B, T, C].
  Variable decode(const Variable& embeddings, const Ocr2Input& input,
                  ForwardContext& context) const;
  /// Logits of chosen rows, hidden [N, C] -> [N, V].
  Variable logits(const Variable& hidden) const;
  /// Next-token loss of a batch; `features` are computed from the pixels when not given.
  Ocr2Loss loss(const Ocr2Input& input, ForwardContext& context,
                const VisualFeatures* features = nullptr) const;

  /// Runs units of `range` up to the head, which loss_of() is: `x` is what unit range.begin - 1
  /// gave, the result what unit range.end - 1 gives. A range that begins with unit 0 takes an empty
  /// `x`; one that begins with the decoder may take features from elsewhere in x.global and
  /// x.local. Running the units piece by piece gives the bits of loss().
  Ocr2Activation run_units(const Ocr2UnitRange& range, const Ocr2Input& input, Ocr2Activation x,
                           ForwardContext& context) const;
  /// The head: next-token loss of the decoder's streams.
  Ocr2Loss loss_of(const Streams& hidden, const Ocr2Input& input, ForwardContext& context) const;

  /// Appends tokens to the cache of all sequences and gives the logits of the last one, [B, V].
  /// embeddings [B, T, C]; throws ShapeError when the cache is too small. Records no graph.
  Tensor step(const Tensor& embeddings, DecodingCache& cache, ForwardContext& context) const;
  /// Rows of the token embedding, ids i32 [...] -> [..., C].
  Tensor embed_tokens(const Tensor& ids) const;

 private:
  Streams run_encoder(const Ocr2UnitRange& range, const Tensor& pixels, Streams x,
                      ForwardContext& context, const std::string& view) const;
  Streams run_decoder(const Ocr2UnitRange& blocks, Streams x, const Ocr2Input& input,
                      ForwardContext& context) const;
  Variable finish_decoder(const Streams& x, ForwardContext& context) const;
  Tensor merge_index(const Ocr2Input& input, const VisualFeatures& features) const;

  Ocr2Config config_;
  ParameterStore store_;
  SamTokenizer sam_;
  LmEncoder encoder_;
  Variable projector_weight_, projector_bias_, view_separator_;
  Variable embed_tokens_;
  std::vector<TransformerBlock> blocks_;
  ResidualStack residual_;
  Variable norm_, lm_head_;
};

}  // namespace lectern
