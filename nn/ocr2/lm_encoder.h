// LM-style vision encoder of DeepSeek-OCR 2: image tokens that see each other, followed by
// learnable causal-flow queries that see all image tokens and the queries before them (paper,
// section 3.2).
#pragma once

#include "nn/forward_context.h"
#include "nn/ocr2/config.h"
#include "nn/parameter.h"
#include "nn/transformer_block.h"

#include <string>
#include <vector>

namespace lectern {

class LmEncoder {
 public:
  LmEncoder(ParameterStore& store, const Ocr2Config& config);

  /// image_tokens [N, m, C] -> [N, n, C]: the query rows after the final norm, with n rows of the
  /// first query table when m fits it, else of the second.
  Variable forward(const Variable& image_tokens, ForwardContext& context,
                   const std::string& view) const;

 private:
  EncoderConfig config_;
  std::int64_t queries_768_count_;
  Variable queries_768_, queries_1024_, norm_;
  ResidualStack residual_;
  std::vector<TransformerBlock> blocks_;
};

}  // namespace lectern
