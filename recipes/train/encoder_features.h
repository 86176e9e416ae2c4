// The encoder's rows for a batch: computed with a graph, or, when the encoder is frozen, image by
// image, and then kept in the cache on disk if there is one.
#pragma once

#include "data/samples/loader.h"
#include "nn/model.h"
#include "recipes/recipe/recipe.h"
#include "recipes/train/encoder_cache.h"

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace lectern {

/// Decoder side and pixels of a batch.
ModelInput input_of(const Batch& batch);

class EncoderFeatures {
 public:
  /// Opens the cache when the recipe wants one, for each of `ranks` ranks a folder and a share of
  /// the bytes: rank 0 has that of a run of one rank. Throws ConfigError when it does and the
  /// encoder is not wholly frozen.
  EncoderFeatures(const Recipe& recipe, const OcrModel& model, int rank = 0, int ranks = 1);

  /// Whether the encoder works once an image at most.
  bool has_cache() const { return cache_ != nullptr; }
  /// Called by the loader's workers: true when the pixels of this image will not be needed.
  bool is_cached(const std::string& key) const { return cache_ && cache_->contains(key); }

  MediaRows features_of(const Batch& batch, const ModelInput& input, ForwardContext& context);

 private:
  /// Rows of the chosen views of pixels [N, 3, S, S], each [n, C].
  std::vector<Tensor> encode_views(const Tensor& pixels,
                                   const std::vector<std::int64_t>& chosen) const;
  void encode_missing(const Batch& batch, const ModelInput& input);

  const OcrModel& model_;
  bool is_frozen_ = false;
  std::unique_ptr<EncoderCache> cache_;
  std::unordered_map<std::string, CachedFeatures> fresh_;  ///< encoded for the batch at hand
};

}  // namespace lectern
