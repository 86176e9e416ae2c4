#include "nn/vision/sam_config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "nn/other_fields.h"
#include "nn/unit_work.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

namespace lectern {

bool SamConfig::is_global(std::int64_t layer) const {
  return std::find(global_attn_indexes.begin(), global_attn_indexes.end(), layer) !=
         global_attn_indexes.end();
}

void check_sam(const std::string& where, const SamConfig& sam, const HeadNames& names) {
  check_heads(where, sam.hidden_size, sam.num_attention_heads, sam.num_attention_heads, names);
  if (sam.image_size % sam.patch_size != 0)
    fail<ConfigError>(fmt::format("{}.image_size: must be a multiple of patch_size {}, got {}",
                                  where, sam.patch_size, sam.image_size));
  if (sam.downsample_channels.size() != 2)
    fail<ConfigError>(fmt::format("{}.downsample_channels: must have 2 entries, got {}", where,
                                  sam.downsample_channels.size()));
}

SamConfig parse_sam(const Fields& in) {
  SamConfig out;
  out.hidden_size = in.size("hidden_size", 768);
  out.output_channels = in.size("output_channels", 256);
  out.num_hidden_layers = in.size("num_hidden_layers", 12, 1, 1024);
  out.num_attention_heads = in.size("num_attention_heads", 12);
  out.num_channels = in.size("num_channels", 3);
  in.only("num_channels", 3);
  out.image_size = in.size("image_size", 1024, 1, 1 << 16);
  out.patch_size = in.size("patch_size", 16, 1, 1 << 12);
  out.window_size = in.size("window_size", 14, 1, 1 << 12);
  out.global_attn_indexes = in.sizes("global_attn_indexes", {2, 5, 8, 11}, 0);
  const double ratio = in.number("mlp_ratio", 4.0, 1e-3, 64.0);
  out.mlp_dim =
      in.size("mlp_dim",
              static_cast<std::int64_t>(std::floor(static_cast<double>(out.hidden_size) * ratio)));
  out.layer_norm_eps = in.number("layer_norm_eps", 1e-6, 0, 1);
  out.downsample_channels = in.sizes("downsample_channels", {512, 896}, 1);
  out.initializer_range = in.number("initializer_range", 0.02, 0, 10);
  in.only("hidden_act", "gelu");
  in.only("qkv_bias", true);
  in.only("use_abs_pos", true);
  in.only("use_rel_pos", true);
  // `scale` is written by transformers and read by nobody.
  check_other_fields(in, {"scale"});
  check_sam(in.where(), out);
  return out;
}

// In doubles: sizes from a hostile file do not overflow.
double parameter_count(const SamConfig& sam) {
  const double width = to_double(sam.hidden_size), mlp = to_double(sam.mlp_dim);
  const double patch = to_double(sam.num_channels * sam.patch_size * sam.patch_size);
  const double grid = to_double(sam.grid()), neck = to_double(sam.output_channels);
  double count = width * patch + width + grid * grid * width;
  for (std::int64_t i = 0; i < sam.num_hidden_layers; ++i) {
    const double side = to_double(sam.is_global(i) ? sam.grid() : sam.window_size);
    const double attention =
        4 * width * width + 4 * width + 2 * (2 * side - 1) * to_double(sam.head_dim());
    count += attention + 2 * mlp * width + mlp + width + 4 * width;
  }
  const double first = to_double(sam.downsample_channels[0]),
               second = to_double(sam.downsample_channels[1]);
  return count + neck * width + 9 * neck * neck + 4 * neck + 9 * first * neck + 9 * second * first;
}

}  // namespace lectern
