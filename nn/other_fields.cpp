#include "nn/other_fields.h"

#include "core/io/fields.h"
#include "core/notice.h"

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cctype>

namespace lectern {
namespace {

using nlohmann::json;

/// Parts of names of settings that change what a model computes, here or in other families.
constexpr auto kTelling = std::to_array<std::string_view>(
    {"rope",   "rotary", "yarn",    "ntk",      "alibi",      "posit",     "scal",   "factor",
     "norm",   "eps",    "window",  "slid",     "quant",      "compress",  "sparse", "bias",
     "mask",   "causal", "softcap", "logit",    "attn",       "attention", "activ",  "act_fn",
     "gate",   "gating", "expert",  "router",   "moe",        "topk",      "group",  "head",
     "layer",  "tie",    "embed",   "residual", "multiplier", "pool",      "patch",  "stride",
     "kernel", "resol",  "quer",    "sink",     "merge",      "interleav", "conv",   "lora",
     "token",  "adapter"});

constexpr auto kBookkeeping = std::to_array<std::string_view>(
    {// names, versions, loading
     "architectures", "auto_map", "model_type", "name_or_path", "transformers_version",
     "torch_dtype", "dtype", "use_bfloat16", "tokenizer_class", "base_model_tp_plan",
     "base_model_pp_plan", "base_model_ep_plan",
     // what is returned, how it is run
     "use_cache", "output_attentions", "output_hidden_states", "output_router_logits",
     "output_scores", "return_dict", "return_dict_in_generate", "torchscript",
     "chunk_size_feed_forward", "gradient_checkpointing", "pretraining_tp", "ep_size", "is_decoder",
     "is_encoder_decoder", "tf_legacy_loss",
     // labels
     "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
     "task_specific_params", "prefix",
     // how text is sampled: lectern reads greedily
     "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
     "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
     "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
     "num_return_sequences", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values",
     "exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "sep_token_id",
     "decoder_start_token_id",
     // losses of other trainers
     "router_aux_loss_coef"});

bool is_dropout(std::string_view field) {
  return field.ends_with("dropout") || field.ends_with("_pdrop") ||
         field.ends_with("drop_path_rate");
}

bool tells(std::string_view field) {
  std::string lower(field);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::any_of(kTelling.begin(), kTelling.end(),
                     [&](std::string_view part) { return lower.find(part) != std::string::npos; });
}

/// Whether a setting says no: false, 0, "", [] or {}.
bool is_off(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value == 0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();
}

[[noreturn]] void refuse(const Fields& in, const std::string& field) {
  constexpr std::size_t kLongest = 100;
  std::string value = in.raw(field.c_str()).dump();
  if (value.size() > kLongest) value = value.substr(0, kLongest) + "...";
  fail<ConfigError>(fmt::format(
      "{}.{}: is not supported, got {}; where the model was trained without it, take it out of the "
      "file",
      in.where(), field, value));
}

/// Fields that say something and that nobody has answered for.
std::vector<std::string> others(const Fields& in,
                                const std::vector<std::string_view>& without_effect) {
  std::vector<std::string> out = in.unread();
  std::erase_if(out, [&](const std::string& field) {
    return is_off(in.raw(field.c_str())) || is_bookkeeping(field) ||
           std::find(without_effect.begin(), without_effect.end(), field) != without_effect.end();
  });
  return out;
}

void note_dropout(const Fields& in) {
  for (const std::string& field : in.unread())
    if (is_dropout(field) && !is_off(in.raw(field.c_str())))
      notice(fmt::format("{}.{}: lectern trains without dropout, got {}", in.where(), field,
                         in.raw(field.c_str()).dump()));
}

}  // namespace

bool is_bookkeeping(std::string_view field) {
  return field.starts_with('_') || field.ends_with("_implementation") || is_dropout(field) ||
         std::find(kBookkeeping.begin(), kBookkeeping.end(), field) != kBookkeeping.end();
}

void check_other_fields(const Fields& in, const std::vector<std::string_view>& without_effect) {
  note_dropout(in);
  const std::vector<std::string> found = others(in, without_effect);
  for (const std::string& field : found)
    if (tells(field)) refuse(in, field);
  if (!found.empty())
    notice(fmt::format("{}: without what lectern does not know: {}", in.where(),
                       fmt::join(found, ", ")));
}

void refuse_other_fields(const Fields& in, const std::vector<std::string_view>& without_effect) {
  for (const std::string& field : others(in, without_effect)) refuse(in, field);
}

}  // namespace lectern
