// Layouts of DeepSeek-OCR 2 that have a file of their own. Private to this room.
#pragma once

#include "nn/ocr2/config.h"
#include "recipes/export/layout.h"

#include <nlohmann/json_fwd.hpp>

namespace lectern::ocr2 {

const Ocr2Config& config_of(const ExportSource& source);
/// processor_config.json of transformers.
nlohmann::json hf_processor(const Ocr2Config& config);

/// llama.cpp's pair of files: model.gguf, mmproj.gguf.
ExportLayout gguf_layout();
/// What stands before the decoder, for other decoders: model.safetensors, config.json, README.md.
ExportLayout encoder_layout();

}  // namespace lectern::ocr2
