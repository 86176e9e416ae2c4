// Residual streams, timed: the counterpart of bench/peers/torch_mhc.py.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <vector>

namespace lectern {

struct BenchStreamsArgs {
  std::int64_t tokens = 1024;
  std::int64_t sinkhorn_tokens = 8192;
  std::int64_t threads = 0;  ///< 0: all cores
  std::int64_t repeat = 3;   ///< timed runs, after one that warms up
};

/// Forward and backward, f32, n = 4, 20 iterations, deepseek-v4, width 1280: Sinkhorn alone; one
/// mHC sub-layer around the identity; one layer of the OCR decoder (64 experts), plain and with mHC
/// in turn. One object each, with the fields of torch_mhc.py.
std::vector<nlohmann::ordered_json> bench_streams(const BenchStreamsArgs& args);

}  // namespace lectern
