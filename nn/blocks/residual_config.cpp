#include "nn/blocks/residual_config.h"

#include "core/error.h"

namespace lectern {

ResidualKind residual_kind_from(std::string_view word) {
  if (word == "plain") return ResidualKind::plain;
  if (word == "hc") return ResidualKind::hc;
  if (word == "mhc") return ResidualKind::mhc;
  fail<ConfigError>(
      fmt::format("residual: must be \"plain\", \"hc\" or \"mhc\", got \"{}\"", word));
}

StreamMerge stream_merge_from(std::string_view word) {
  if (word == "head") return StreamMerge::head;
  if (word == "mean") return StreamMerge::mean;
  fail<ConfigError>(fmt::format("merge: must be \"head\" or \"mean\", got \"{}\"", word));
}

void set_residual_in(std::string_view word, ResidualConfig& config) {
  if (word != "both" && word != "encoder" && word != "decoder")
    fail<ConfigError>(
        fmt::format("residual_in: must be \"both\", \"encoder\" or \"decoder\", got \"{}\"", word));
  config.in_encoder = word != "decoder";
  config.in_decoder = word != "encoder";
}

std::string_view name_of(ResidualKind kind) {
  switch (kind) {
    case ResidualKind::plain:
      return "plain";
    case ResidualKind::hc:
      return "hc";
    case ResidualKind::mhc:
      return "mhc";
  }
  return "?";
}

std::string_view name_of(StreamMerge merge) { return merge == StreamMerge::head ? "head" : "mean"; }

std::string residual_in(const ResidualConfig& config) {
  return config.in_encoder && config.in_decoder ? "both"
         : config.in_encoder                    ? "encoder"
                                                : "decoder";
}

}  // namespace lectern
