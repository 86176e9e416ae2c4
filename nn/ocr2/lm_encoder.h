// LM-style vision encoder of DeepSeek-OCR 2: image tokens that see each other, followed by
// learnable causal-flow queries that see all image tokens and the queries before them (paper,
// section 3.2).
#pragma once

#include "nn/blocks/transformer_block.h"
#include "nn/forward_context.h"
#include "nn/ocr2/config.h"
#include "nn/parameter.h"

#include <string>
#include <vector>

namespace lectern {

class LmEncoder {
 public:
  LmEncoder(ParameterStore& store, const Ocr2Config& config);

  /// image_tokens [N, m, C] -> [N, n, C]: the query rows after the final norm, with n rows of the
  /// first query table when m fits it, else of the second. Where the decoder reads the visual
  /// tokens there are no queries, which these could not see anyway: [N, m, C].
  Variable forward(const Variable& image_tokens, ForwardContext& context,
                   const std::string& view) const;

  // The same in pieces: enter, block 0 .. blocks() - 1, leave.
  std::int64_t blocks() const { return static_cast<std::int64_t>(blocks_.size()); }
  /// [N, m, C] -> streams [N, m + n, C]: image tokens, then queries; n is 0 without queries.
  Streams enter(const Variable& image_tokens, ForwardContext& context) const;
  /// `image_tokens`: m.
  Streams block(std::int64_t index, const Streams& x, std::int64_t image_tokens,
                ForwardContext& context, const std::string& view) const;
  /// streams [N, m + n, C] -> [N, n, C], without queries [N, m, C].
  Variable leave(const Streams& x, std::int64_t image_tokens, ForwardContext& context,
                 const std::string& view) const;

 private:
  EncoderConfig config_;
  DecoderReads reads_;
  std::int64_t queries_768_count_;
  Variable queries_768_, queries_1024_, norm_;
  ResidualStack residual_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace lectern
