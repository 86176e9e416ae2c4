// Configuration of the SAM vision tokenizer.
#pragma once

#include "nn/heads.h"

#include <cstdint>
#include <string>
#include <vector>

namespace lectern {

class Fields;

/// SAM ViT with neck and the two stride-2 convolutions ("vision tokenizer").
struct SamConfig {
  std::int64_t hidden_size = 768;
  std::int64_t output_channels = 256;  ///< of the neck
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t num_channels = 3;
  std::int64_t image_size = 1024;  ///< pixels a side that pos_embed is made for
  std::int64_t patch_size = 16;
  std::int64_t window_size = 14;  ///< patches a side
  std::vector<std::int64_t> global_attn_indexes = {2, 5, 8, 11};
  std::int64_t mlp_dim = 3072;
  double layer_norm_eps = 1e-6;
  std::vector<std::int64_t> downsample_channels = {512, 896};
  /// As in the file; see initial_deviation().
  double initializer_range = 0.02;

  /// Standard deviation of new weights. transformers' default for SAM is 1e-10, from which nothing
  /// ever trains (its authors start from pretrained weights): a value under 1e-6 stands for 0.02.
  double initial_deviation() const { return initializer_range < 1e-6 ? 0.02 : initializer_range; }
  std::int64_t grid() const { return image_size / patch_size; }
  std::int64_t head_dim() const { return hidden_size / num_attention_heads; }
  bool is_global(std::int64_t layer) const;
};

/// Reads `sam_config` of transformers' layout. Throws ConfigError.
SamConfig parse_sam(const Fields& in);
/// Throws ConfigError unless the sizes fit each other; `names` are those of the file.
void check_sam(const std::string& where, const SamConfig& sam, const HeadNames& names = {});
/// Weights of such a tokenizer, counted without making it.
double parameter_count(const SamConfig& config);

}  // namespace lectern
