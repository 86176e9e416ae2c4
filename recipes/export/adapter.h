// Layouts that hold a low-rank adapter alone, of any family. Private to this room.
#pragma once

#include "recipes/export/layout.h"

#include <string>
#include <vector>

namespace lectern {

/// PEFT's folder: adapter_config.json and adapter_model.safetensors, published names behind
/// "base_model.model.". transformers with peft, vLLM and ms-swift read it.
ExportLayout peft_layout();
/// llama.cpp's file: adapter.gguf, for --lora beside the model.gguf of the base.
ExportLayout gguf_lora_layout();

/// "model.layers.3.self_attn.q_proj" of all pairs, with both tensors.
struct ExportedPair {
  std::string matrix;
  Tensor a, b;
  PairShape shape;
};
std::vector<ExportedPair> pairs_of(const ExportSource& source);

/// Throws ConfigError unless the source has an adapter and the options are for one.
void check_adapter(const ExportSource& source, const ExportOptions& options,
                   const std::string& format);

}  // namespace lectern
