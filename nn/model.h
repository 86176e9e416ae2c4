// A model that reads pictures of documents, as training, reading and checkpoints see it: an encoder
// turns views into rows, the decoder reads them in a sequence of tokens. What differs between
// families is behind two calls: run_encoder() and media_rows().
#pragma once

#include "nn/forward_context.h"
#include "nn/language/decoder.h"
#include "nn/language/media_rows.h"
#include "nn/model_config.h"
#include "nn/model_input.h"
#include "nn/parameter.h"

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

class OcrModel {
 public:
  virtual ~OcrModel() = default;
  OcrModel(const OcrModel&) = delete;
  OcrModel& operator=(const OcrModel&) = delete;

  virtual const ModelConfig& config() const = 0;
  virtual const Decoder& decoder() const = 0;
  ParameterStore& store() { return store_; }
  const ParameterStore& store() const { return store_; }

  /// Weights of another model from which a part of this one may begin, by the name that recipes
  /// have for it ("sam": model.init_sam). Throws ConfigError where the family has no such part,
  /// IoError naming file and tensor when something does not fit.
  virtual void load_pretrained(std::string_view name, const std::filesystem::path& path);

  /// Pixels of all views -> decoder rows. Records no graph for frozen parts.
  MediaRows encode(const ModelInput& input, ForwardContext& context) const;
  /// Token and media rows in one sequence, [B, T, C].
  Variable embed(const ModelInput& input, const MediaRows& media) const;
  /// Next-token loss of a batch; `media` are computed from the pixels when not given.
  ModelLoss loss(const ModelInput& input, ForwardContext& context,
                 const MediaRows* media = nullptr) const;

  /// Runs units of `range` up to the head, which loss_of() is: `x` is what unit range.begin - 1
  /// gave, the result what unit range.end - 1 gives. A range that begins with unit 0 takes an empty
  /// `x`; one that begins with the decoder may take rows from elsewhere in x.global and x.local.
  /// Running the units piece by piece gives the bits of loss().
  Activation run_units(const UnitRange& range, const ModelInput& input, Activation x,
                       ForwardContext& context) const;
  /// The head: next-token loss of the decoder's streams.
  ModelLoss loss_of(const Streams& hidden, const ModelInput& input, ForwardContext& context) const;

 protected:
  /// A store for the part of a model that `placement` says.
  OcrModel(const ModelConfig& config, std::uint64_t seed, DType dtype, ParameterValues values,
           const ModelPlacement& placement);

  /// Encoder units of `range` on views [N, 3, S, S] of one size; `x` and the result as in
  /// run_units(). `view` ("global." or "local.") prefixes the seams.
  virtual Streams run_encoder(const UnitRange& range, const Tensor& pixels, Streams x,
                              ForwardContext& context, const std::string& view) const = 0;
  /// The rows that take the places of the image tokens, in their order.
  virtual MediaLayout media_layout(const ModelInput& input, const MediaRows& media) const = 0;

  ParameterStore store_;
};

}  // namespace lectern
