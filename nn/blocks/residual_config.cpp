#include "nn/blocks/residual_config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "core/ops/sinkhorn.h"

#include <nlohmann/json.hpp>

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

ResidualConfig parse_residual(const Fields& in) {
  ResidualConfig out;
  out.kind = residual_kind_from(in.choice("residual", "plain", {"plain", "hc", "mhc"}));
  if (out.is_plain()) return out;
  out.convention = stream_convention_from(
      in.choice("convention", "deepseek-v4", {"paper", "megatron", "deepseek-v4"}));
  out.merge = stream_merge_from(in.choice("merge", "head", {"head", "mean"}));
  set_residual_in(in.choice("residual_in", "both", {"both", "encoder", "decoder"}), out);
  out.exact = in.boolean("exact_h_res", out.exact);
  out.streams = in.size("streams", out.streams, 1, out.exact ? 4 : 8);
  out.iterations = in.size("sinkhorn_iterations", out.iterations, 1, 1000);
  out.h_pre = in.boolean("h_pre", out.h_pre);
  out.h_post = in.boolean("h_post", out.h_post);
  out.h_res = in.boolean("h_res", out.h_res);
  return out;
}

void write_residual(const ResidualConfig& residual, nlohmann::json& out) {
  out["residual"] = std::string(name_of(residual.kind));
  if (residual.is_plain()) return;
  out["streams"] = residual.streams;
  out["convention"] = std::string(name_of(residual.convention));
  out["sinkhorn_iterations"] = residual.iterations;
  out["exact_h_res"] = residual.exact;
  out["merge"] = std::string(name_of(residual.merge));
  out["h_pre"] = residual.h_pre;
  out["h_post"] = residual.h_post;
  out["h_res"] = residual.h_res;
  out["residual_in"] = residual_in(residual);
}

}  // namespace lectern
