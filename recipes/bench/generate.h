// Greedy generation, timed: the counterpart of bench/peers/torch_generate.py; the weights that both
// read; and the memory bandwidth that bounds decoding.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <filesystem>
#include <string>

namespace lectern {

struct BenchGenerateArgs {
  std::filesystem::path config;      ///< config.json, transformers layout
  std::filesystem::path checkpoint;  ///< folder with model*.safetensors; empty: random weights
  std::int64_t batch = 1;            ///< pages, each one 1024x1024 view
  std::int64_t crops = 0;            ///< local 768x768 views a page
  std::int64_t tokens = 32;          ///< decoded tokens that are timed, after the first
  std::int64_t threads = 0;          ///< 0: all cores
  std::string dtype = "fp32";        ///< or bf16
};

/// After a run that warms up, times the first token (encoder and prefill) and the `tokens` after
/// it; each is the best of three runs. Returns the fields of torch_generate.py (peer, dtype,
/// threads, batch, crops, parameters, seconds_to_first_token, tokens_per_second, peak_bytes of the
/// process) and: mapped_tensors, those that stay in the file; seconds of loading, encoder, prefill,
/// decode; prefill_tokens_per_second; decode_bytes_per_second, the rate at which decoding one page
/// reads weights.
nlohmann::ordered_json bench_generate(const BenchGenerateArgs& args);

/// Writes DIR/config.json and DIR/model.safetensors with random bf16 weights (norms 1, everything
/// else uniform in -0.03..0.03, as torch_generate.py draws them), one tensor at a time.
nlohmann::ordered_json write_random_weights(const std::filesystem::path& config,
                                            const std::filesystem::path& folder,
                                            std::uint64_t seed);

/// Bytes a second that `threads` threads (0: all cores) read from memory: the best of some passes
/// over 1 GiB, and over a mapped file when one is named.
nlohmann::ordered_json bench_bandwidth(std::int64_t threads, const std::filesystem::path& file);

}  // namespace lectern
