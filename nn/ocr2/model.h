// DeepSeek-OCR 2: SAM tokenizer -> LM encoder with causal-flow queries -> projector -> image rows
// in the text sequence -> DeepSeek-MoE decoder -> LM head (arXiv 2601.20552).
#pragma once

#include "nn/linear.h"
#include "nn/model.h"
#include "nn/ocr2/config.h"
#include "nn/ocr2/lm_encoder.h"
#include "nn/vision/sam.h"

#include <filesystem>
#include <string>
#include <string_view>

namespace lectern {

class Ocr2Model final : public OcrModel {
 public:
  /// As ModelConfig::make().
  Ocr2Model(const Ocr2Config& config, std::uint64_t seed, DType dtype = DType::f32,
            ParameterValues values = ParameterValues::initialised,
            const ModelPlacement& placement = {});

  const Ocr2Config& config() const override { return config_; }
  const Decoder& decoder() const override { return decoder_; }
  /// "sam": SAM-base, "qwen2": Qwen2-0.5B (pretrained.cpp).
  void load_pretrained(std::string_view name, const std::filesystem::path& path) override;

 protected:
  Streams run_encoder(const UnitRange& range, const Tensor& pixels, Streams x,
                      ForwardContext& context, const std::string& view) const override;
  MediaLayout media_layout(const ModelInput& input, const MediaRows& media) const override;

 private:
  Ocr2Config config_;
  SamTokenizer sam_;
  LmEncoder encoder_;
  ResidualStack decoder_residual_;
  Linear projector_;
  Variable view_separator_;
  Decoder decoder_;
};

}  // namespace lectern
