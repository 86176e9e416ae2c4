// One training step on random data, timed: the counterpart of peers/torch_step.py.
#pragma once

#include "nn/model.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <string>

namespace lectern {

struct BenchStepArgs {
  std::filesystem::path config;  ///< config.json, transformers layout
  std::int64_t batch = 1;        ///< pages
  std::int64_t crops = 2;        ///< local 768x768 views a page
  std::int64_t text = 256;       ///< text tokens a page
  std::int64_t steps = 6;        ///< timed, after two that warm up
  std::int64_t threads = 0;      ///< 0: all cores
  std::string dtype = "fp32";    ///< or "bf16": of compute, as the recipes' key
  std::string device = "cpu";    ///< or "cuda"
  std::int64_t stage = 1;        ///< 2 freezes the vision tokenizer, 3 the whole encoder
  bool recompute = false;        ///< keep inputs of blocks only, and streams by the paper's rule
  double memory_gib = 0;         ///< recompute as many blocks as this budget needs; 0: none
  bool encoder_cache = false;    ///< stage 3: read the encoder's rows from its cache on disk
  bool profile = false;          ///< add "profile": where the time of the timed steps went
};

/// Pages of noise with random text, laid out as training lays them out.
ModelInput random_input(const ModelConfig& config, const BenchStepArgs& args);

/// Runs warm-up and timed steps (forward, backward, clipping at 1.0, AdamW) and returns the fields
/// of torch_step.py: seconds_min, seconds_median, peak_bytes (of the process), tensor_peak_bytes
/// (in use by tensors), reserved_bytes (held by the allocator in the end), loss_first, loss_last,
/// parameters, and the arguments. With memory_gib the second warm-up step is the plan's probe, and
/// tensor_peak_bytes is of the timed steps, and there are memory_gib, predicted_peak_bytes,
/// blocks_kept and blocks_recomputed. Throws ConfigError for a bad argument.
nlohmann::ordered_json bench_step(const BenchStepArgs& args);

/// Markdown tables of the field "profile".
std::string profile_tables(const nlohmann::ordered_json& profile);

}  // namespace lectern
