// Limits of llama.cpp's SAM vision tokenizer, which its models share.
#include "recipes/export/gguf_model.h"

#include <fmt/ranges.h>

namespace lectern {
namespace {

// What is built in.
constexpr std::int64_t kSamImageSize = 1024, kSamPatchSize = 16, kSamWindowSize = 14;
constexpr std::int64_t kSamGlobalBlocks[] = {2, 5, 8, 11};
constexpr double kSamEpsilon = 1e-6;

}  // namespace

void check_gguf_sam(const SamConfig& sam, GgufLimits& limits) {
  const std::string p = "vision_config.sam_config.";
  limits.need(sam.patch_size == kSamPatchSize, p + "patch_size", kSamPatchSize, sam.patch_size);
  limits.need(sam.image_size == kSamImageSize, p + "image_size", kSamImageSize, sam.image_size);
  limits.need(sam.window_size == kSamWindowSize, p + "window_size", kSamWindowSize,
              sam.window_size);
  std::vector<std::int64_t> global;
  for (const std::int64_t block : kSamGlobalBlocks)
    if (block < sam.num_hidden_layers) global.push_back(block);
  limits.need(sam.global_attn_indexes == global, p + "global_attn_indexes",
              fmt::format("{}", global), fmt::format("{}", sam.global_attn_indexes));
  limits.need(sam.layer_norm_eps == kSamEpsilon, p + "layer_norm_eps", kSamEpsilon,
              sam.layer_norm_eps);
}

}  // namespace lectern
