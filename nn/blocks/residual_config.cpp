#include "nn/blocks/residual_config.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "core/ops/sinkhorn.h"

#include <nlohmann/json.hpp>

namespace lectern {

void describe(ResidualConfig& r, FieldVisitor& f) {
  f.boolean("exact_h_res", r.exact,
            {.meaning = "H_res = mean of the n! permutation matrices under a softmax: doubly "
                        "stochastic to rounding"});
  f.integer("streams", r.streams, within(1, r.exact ? 4 : 8),
            {.meaning = "n; with `exact_h_res` at most 4"});
  std::string convention(name_of(r.convention)), merge(name_of(r.merge)), named = residual_in(r);
  f.choice("convention", convention, {"paper", "megatron", "deepseek-v4"},
           {.meaning = "below; mhc only"});
  f.integer("sinkhorn_iterations", r.iterations, within(1, 1000),
            {.meaning = "of mhc, until rows and columns sum to 1"});
  f.choice("merge", merge, {"head", "mean"},
           {.meaning = "learned sigmoid head, or the mean of the streams"});
  f.boolean("h_pre", r.h_pre, {.meaning = "false: 1/n (the paper's Table 1)"});
  f.boolean("h_post", r.h_post, {.meaning = "false: ones"});
  f.boolean("h_res", r.h_res, {.meaning = "false: the identity"});
  f.choice("residual_in", named, {"both", "encoder", "decoder"},
           {.meaning = "the other stack stays plain"});
  r.convention = stream_convention_from(convention);
  r.merge = stream_merge_from(merge);
  set_residual_in(named, r);
}

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
  const ResidualConfig out{
      .kind = residual_kind_from(in.choice("residual", "plain", {"plain", "hc", "mhc"}))};
  return out.is_plain() ? out : read_record(in, out);
}

void write_residual(ResidualConfig residual, nlohmann::json& out) {
  out["residual"] = std::string(name_of(residual.kind));
  WriteFields write(out);
  if (!residual.is_plain()) describe(residual, write);
}

}  // namespace lectern
