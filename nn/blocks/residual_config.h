// How a stack of layers carries its residual: one stream, or n of them.
#pragma once

#include "core/io/record.h"
#include "core/ops/stream_math.h"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace lectern {

class Fields;

enum class ResidualKind { plain, hc, mhc };
enum class StreamMerge { head, mean };

/// Under "lectern" in config.json and in [model] of recipes; describe() has the keys and ranges.
struct ResidualConfig {
  ResidualKind kind = ResidualKind::plain;  ///< "residual"
  std::int64_t streams = 4;
  StreamConvention convention = StreamConvention::deepseek_v4;
  std::int64_t iterations = 20;  ///< "sinkhorn_iterations"
  bool exact = false;            ///< "exact_h_res": mhc over permutations
  StreamMerge merge = StreamMerge::head;
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

/// The keys that go with "hc" and "mhc"; "residual" itself, whose words differ, is the caller's.
void describe(ResidualConfig& r, FieldVisitor& f);

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
void write_residual(ResidualConfig residual, nlohmann::json& out);

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
