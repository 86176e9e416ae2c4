#include "recipes/export/gguf_names.h"

#include <charconv>
#include <vector>

namespace lectern {
namespace {

constexpr GgufRole kMatrix = GgufRole::matrix;

constexpr GgufRule kDecoderRules[] = {
    {"model.embed_tokens", "token_embd", kMatrix},
    {"lm_head", "output", kMatrix},
    {"model.norm", "output_norm"},
    {"model.layers.*.input_layernorm", "blk.*.attn_norm"},
    {"model.layers.*.post_attention_layernorm", "blk.*.ffn_norm"},
    {"model.layers.*.self_attn.q_proj", "blk.*.attn_q", kMatrix},
    {"model.layers.*.self_attn.k_proj", "blk.*.attn_k", kMatrix},
    {"model.layers.*.self_attn.v_proj", "blk.*.attn_v", kMatrix},
    {"model.layers.*.self_attn.o_proj", "blk.*.attn_output", kMatrix},
    {"model.layers.*.mlp.gate_proj", "blk.*.ffn_gate", kMatrix},
    {"model.layers.*.mlp.up_proj", "blk.*.ffn_up", kMatrix},
    {"model.layers.*.mlp.down_proj", "blk.*.ffn_down", kMatrix},
    {"model.layers.*.mlp.gate", "blk.*.ffn_gate_inp"},
    {"model.layers.*.mlp.experts.*.gate_proj", "blk.*.ffn_gate_exps", kMatrix},
    {"model.layers.*.mlp.experts.*.up_proj", "blk.*.ffn_up_exps", kMatrix},
    {"model.layers.*.mlp.experts.*.down_proj", "blk.*.ffn_down_exps", kMatrix},
    {"model.layers.*.mlp.shared_experts.gate_proj", "blk.*.ffn_gate_shexp", kMatrix},
    {"model.layers.*.mlp.shared_experts.up_proj", "blk.*.ffn_up_shexp", kMatrix},
    {"model.layers.*.mlp.shared_experts.down_proj", "blk.*.ffn_down_shexp", kMatrix},
};

constexpr GgufRule kVisionRules[] = {
    {"model.sam_model.patch_embed.proj", "v.sam.patch_embd"},
    {"model.sam_model.pos_embed", "v.sam.pos_embd.weight"},
    {"model.sam_model.blocks.*.norm1", "v.sam.blk.*.pre_ln"},
    {"model.sam_model.blocks.*.norm2", "v.sam.blk.*.post_ln"},
    {"model.sam_model.blocks.*.attn.qkv", "v.sam.blk.*.attn.qkv", kMatrix},
    {"model.sam_model.blocks.*.attn.proj", "v.sam.blk.*.attn.out", kMatrix},
    {"model.sam_model.blocks.*.attn.rel_pos_h", "v.sam.blk.*.attn.pos_h.weight"},
    {"model.sam_model.blocks.*.attn.rel_pos_w", "v.sam.blk.*.attn.pos_w.weight"},
    {"model.sam_model.blocks.*.mlp.lin1", "v.sam.blk.*.mlp.lin1", kMatrix},
    {"model.sam_model.blocks.*.mlp.lin2", "v.sam.blk.*.mlp.lin2", kMatrix},
    {"model.sam_model.neck.*", "v.sam.neck.*"},
    {"model.sam_model.net_2", "v.sam.net_2"},
    {"model.sam_model.net_3", "v.sam.net_3"},
    {"model.projector.layers", "mm.model.fc", kMatrix},
    {"model.view_seperator", "v.view_seperator"},
};

/// The numbers that stand for the stars of a pattern, when a name fits it.
std::optional<std::vector<std::string_view>> numbers_in(std::string_view name,
                                                        std::string_view pattern) {
  std::vector<std::string_view> out;
  while (!pattern.empty()) {
    if (pattern.front() != '*') {
      if (name.empty() || name.front() != pattern.front()) return std::nullopt;
      name.remove_prefix(1);
      pattern.remove_prefix(1);
      continue;
    }
    const auto end = std::min(name.find_first_not_of("0123456789"), name.size());
    if (end == 0) return std::nullopt;
    out.push_back(name.substr(0, end));
    name.remove_prefix(end);
    pattern.remove_prefix(1);
  }
  if (!name.empty()) return std::nullopt;
  return out;
}

}  // namespace

std::span<const GgufRule> gguf_decoder_rules() { return kDecoderRules; }
std::span<const GgufRule> gguf_vision_rules() { return kVisionRules; }

std::optional<GgufTarget> gguf_target(std::span<const GgufRule> rules, std::string_view published) {
  std::string_view stem = published, suffix;
  for (const std::string_view each : {".weight", ".bias"})
    if (published.ends_with(each)) {
      suffix = each;
      stem.remove_suffix(each.size());
    }
  for (const GgufRule& rule : rules) {
    const auto numbers = numbers_in(stem, rule.published);
    if (!numbers) continue;
    GgufTarget out;
    out.role = rule.role;
    std::size_t used = 0;
    for (const char c : rule.gguf)
      if (c == '*')
        out.name += (*numbers)[used++];
      else
        out.name += c;
    out.name += suffix;
    if (used < numbers->size()) {
      const std::string_view digits = numbers->back();
      std::from_chars(digits.data(), digits.data() + digits.size(), out.stack);
    }
    return out;
  }
  return std::nullopt;
}

}  // namespace lectern
