// Adapter folders of PEFT (huggingface.co/docs/peft, checkpoint format): adapter_config.json and
// adapter_model.safetensors.
#pragma once

#include "recipes/checkpoint/adapter_folder.h"

#include <filesystem>
#include <string>

namespace lectern {

inline constexpr const char* kPeftConfig = "adapter_config.json";
inline constexpr const char* kPeftWeights = "adapter_model.safetensors";
/// What stands before every tensor's name in the file.
inline constexpr const char* kPeftPrefix = "base_model.model.";

bool is_peft_folder(const std::filesystem::path& path);

/// "<matrix>.lora_A.weight" of a tensor in the file, whether it has the published name of its
/// matrix or that of transformers' module.
std::string published_of_peft(const std::string& tensor, const ModelConfig& config);

/// Throws as read_adapter_info().
AdapterInfo read_peft_info(const std::filesystem::path& folder, const ModelConfig& config);

}  // namespace lectern
