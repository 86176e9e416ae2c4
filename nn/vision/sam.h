// SAM-base vision tokenizer: ViT with windowed and global attention, neck, and
// two stride-2 convolutions (arXiv 2304.02643; the convolutions are of arXiv 2510.18234).
#pragma once

#include "nn/forward_context.h"
#include "nn/linear.h"
#include "nn/parameter.h"
#include "nn/vision/sam_config.h"

#include <string>
#include <vector>

namespace lectern {

/// x += attention(LN(x)); x += lin2(GELU(lin1(LN(x)))).
class SamBlock {
 public:
  /// `window` 0: attention over the whole grid.
  SamBlock(ParameterStore& store, const std::string& prefix, const SamConfig& config,
           std::int64_t window);
  /// x [N, h, w, E] -> the same.
  Variable forward(const Variable& x) const;
  const std::vector<Parameter>& parameters() const { return parameters_; }

 private:
  /// tokens [B, side_h * side_w, E].
  Variable attend(const Variable& tokens, std::int64_t side_h, std::int64_t side_w) const;

  std::int64_t heads_, window_;
  double epsilon_;
  Variable norm1_weight_, norm1_bias_, norm2_weight_, norm2_bias_, rel_pos_h_, rel_pos_w_;
  Linear qkv_, proj_, lin1_, lin2_;
  std::vector<Parameter> parameters_;
};

class SamTokenizer {
 public:
  /// `prefix` begins the names of its parameters ("model.sam_model.").
  SamTokenizer(ParameterStore& store, const SamConfig& config, const std::string& prefix);

  /// pixels [N, 3, S, S] f32, values (u8 / 255 - 0.5) / 0.5, S a multiple of patch_size
  /// -> [N, h', w', downsample_channels[1]] with h' = ceil(S / patch_size / 4).
  /// `view` ("global." or "local.") prefixes the seams.
  Variable forward(const Tensor& pixels, ForwardContext& context, const std::string& view) const;

 private:
  Variable embed(const Tensor& pixels, ForwardContext& context, const std::string& view) const;

  SamConfig config_;
  Variable patch_weight_, patch_bias_, pos_embed_;
  std::vector<SamBlock> blocks_;
  Variable neck_conv1_, neck_norm1_weight_, neck_norm1_bias_;
  Variable neck_conv2_, neck_norm2_weight_, neck_norm2_bias_;
  Variable compress1_, compress2_;
};

}  // namespace lectern
