// Keys and values of sequences that are being decoded.
#pragma once

#include "nn/blocks/transformer_block.h"
#include "nn/language/decoder_config.h"

#include <cstdint>
#include <vector>

namespace lectern {

/// The keys and values of a batch of sequences while they are decoded.
class DecodingCache {
 public:
  /// `capacity`: most tokens a sequence may come to; memory grows with the tokens, block by block.
  /// `dtype` f32 or bf16 (f32 models only: half the memory and the reading).
  DecodingCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity,
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
  friend class Decoder;
  void reserve(std::int64_t tokens);
  void resize(std::int64_t sequences, std::int64_t tokens);
  std::int64_t longest() const;

  std::int64_t capacity_;
  std::vector<std::int64_t> lengths_;
  std::vector<LayerCache> layers_;
};

}  // namespace lectern
