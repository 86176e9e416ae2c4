// How a stack of layers carries its residual: one stream, or n of them.
#pragma once

#include "core/ops/stream_math.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace lectern {

class Fields;

enum class ResidualKind { plain, hc, mhc };
enum class StreamMerge { head, mean };

/// Under "lectern" in config.json; the names there are in brackets.
struct ResidualConfig {
  ResidualKind kind = ResidualKind::plain;                      ///< "residual": plain | hc | mhc
  std::int64_t streams = 4;                                     ///< "streams": 1 to 8
  StreamConvention convention = StreamConvention::deepseek_v4;  ///< "convention"
  std::int64_t iterations = 20;           ///< "sinkhorn_iterations": 1 to 1000
  bool exact = false;                     ///< "exact_h_res": mhc over permutations, n <= 4
  StreamMerge merge = StreamMerge::head;  ///< "merge": head | mean
  /// "h_pre", "h_post", "h_res": false replaces a mapping by 1/n, ones, the identity.
  bool h_pre = true, h_post = true, h_res = true;
  /// "residual_in": both | encoder | decoder. A stack that is not named stays plain.
  bool in_encoder = true, in_decoder = true;

  bool operator==(const ResidualConfig&) const = default;
  /// The configuration of one of the two stacks.
  ResidualConfig of_stack(bool named) const { return named ? *this : ResidualConfig{}; }
  bool is_plain() const { return kind == ResidualKind::plain; }
  StreamMapping mapping() const {
    if (kind == ResidualKind::hc) return StreamMapping::hc;
    return exact ? StreamMapping::exact : StreamMapping::mhc;
  }
};

// The words of config.json and recipes. The readers throw ConfigError "<key>: must be ...".
ResidualKind residual_kind_from(std::string_view word);
StreamMerge stream_merge_from(std::string_view word);
void set_residual_in(std::string_view word, ResidualConfig& config);
std::string_view name_of(ResidualKind kind);
std::string_view name_of(StreamMerge merge);
std::string residual_in(const ResidualConfig& config);

/// Reads the keys of "lectern" in config.json. Throws ConfigError.
ResidualConfig parse_residual(const Fields& in);
/// Writes them into that object.
void write_residual(const ResidualConfig& residual, nlohmann::json& out);

/// Weights of one sub-layer's mappings, and of the learned head.
inline double mapping_parameters(const ResidualConfig& config, double width) {
  if (config.is_plain()) return 0;
  const int n = static_cast<int>(config.streams);
  const StreamMapping mapping = config.mapping();
  const double columns = mapping == StreamMapping::hc ? width : n * width;
  return stream_math::projection_rows(mapping, n) * columns +
         stream_math::mapping_rows(mapping, n) + 3;
}
inline double head_parameters(const ResidualConfig& config, double width) {
  if (config.is_plain() || config.merge == StreamMerge::mean) return 0;
  const double n = static_cast<double>(config.streams);
  return n * n * width + n + 1;
}

}  // namespace lectern
