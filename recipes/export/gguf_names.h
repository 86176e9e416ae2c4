// What llama.cpp calls the tensors that models have in common, and where their values go.
//
// A family has tables of rules; gguf_target() applies them to published names, of weights and of
// what belongs to a weight (an adapter's pair is "<GGUF name>.lora_a", "<GGUF name>.lora_b").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace lectern {

enum class GgufRole {
  matrix,  ///< read in any type
  exact    ///< F32 only: readers assert it, or lose by anything else (norms, tables, router,
           ///< convolutions)
};

/// `*` stands for a number, the same in both names; a number that `published` has more is the place
/// in a stack. Names are those without ".weight" and ".bias", which are carried over; a rule
/// whose `published` is a whole name gives a whole name.
struct GgufRule {
  std::string_view published, gguf;
  GgufRole role = GgufRole::exact;
};

struct GgufTarget {
  std::string name;
  std::int64_t stack = -1;  ///< the matrix of a stack that the published tensor is, or -1
  GgufRole role = GgufRole::exact;
};

/// Nothing when no rule fits.
std::optional<GgufTarget> gguf_target(std::span<const GgufRule> rules, std::string_view published);

/// The DeepSeek-MoE decoder (architecture deepseek2-ocr).
std::span<const GgufRule> gguf_decoder_rules();
/// The SAM vision tokenizer, the projector, and what separates views (architecture clip).
std::span<const GgufRule> gguf_vision_rules();

}  // namespace lectern
