// A tokenizer.json as the keys of a GGUF file.
#include "recipes/export/gguf_model.h"

#include <nlohmann/json.hpp>

#include <map>
#include <string_view>

namespace lectern {
namespace {

using nlohmann::json;

// Types of tokens.
constexpr std::int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

/// llama.cpp gives the prompt as it is; anything else would put names of roles around it.
constexpr const char* kChatTemplate = "{% for m in messages %}{{m['content']}}{% endfor %}";

/// The regular expressions that cut a text, in their order; "ByteLevel" for the one it brings.
std::vector<std::string> cuts_of(const json& pre_tokenizer) {
  const std::string type = pre_tokenizer["type"];
  if (type == "Sequence") {
    std::vector<std::string> out;
    for (const json& member : pre_tokenizer["pretokenizers"])
      for (std::string& cut : cuts_of(member)) out.push_back(std::move(cut));
    return out;
  }
  if (type == "ByteLevel") {
    if (pre_tokenizer.value("add_prefix_space", false)) return {"a space before the text"};
    return pre_tokenizer.value("use_regex", true) ? std::vector<std::string>{"ByteLevel"}
                                                  : std::vector<std::string>{};
  }
  const bool is_plain = type == "Split" && pre_tokenizer.value("behavior", "") == "Isolated" &&
                        !pre_tokenizer.value("invert", false) &&
                        pre_tokenizer["pattern"].contains("Regex");
  return {is_plain ? pre_tokenizer["pattern"]["Regex"].get<std::string>() : type};
}

/// What llama.cpp calls a way of cutting (tokenizer.ggml.pre); "" for one that it has not.
std::string pre_tokenizer_name(const json& pre_tokenizer) {
  const std::string marks = R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)";
  const std::string spaces = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::map<std::string, std::vector<std::string>> known = {
      {"deepseek-v3",
       {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
        marks + R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" + spaces}},
      {"qwen2",
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)" +
        spaces}},
      {"gpt-2", {"ByteLevel"}}};
  const auto cuts = cuts_of(pre_tokenizer);
  for (const auto& [name, pattern] : known)
    if (cuts == pattern) return name;
  return "";
}

std::vector<std::string> merges_of(const json& model) {
  std::vector<std::string> out;
  for (const json& merge : model["merges"])
    out.push_back(merge.is_string()
                      ? merge.get<std::string>()
                      : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  return out;
}

struct TokenTable {
  std::vector<std::string> texts;
  std::vector<std::int32_t> types;
};

/// One entry an id; what no token has is filled up, for readers want as many as embeddings.
TokenTable token_table(const Tokenizer& tokenizer, const json& document, std::int64_t size) {
  std::map<std::int64_t, bool> added;  // id -> whether special
  if (document.contains("added_tokens"))
    for (const json& token : document["added_tokens"])
      added[token["id"].get<std::int64_t>()] = token["special"].get<bool>();
  TokenTable out;
  for (std::int64_t id = 0; id < size; ++id) {
    const auto text = tokenizer.id_to_token(static_cast<std::int32_t>(id));
    const auto special = added.find(id);
    std::string unused = fmt::format("[PAD{}]", id);
    while (!text && tokenizer.token_to_id(unused)) unused += "_";
    out.texts.push_back(text.value_or(unused));
    if (special != added.end())
      out.types.push_back(special->second ? kControl : kUserDefined);
    else
      out.types.push_back(text ? kNormal : kUnused);
  }
  return out;
}

}  // namespace

void check_gguf_tokenizer(const Tokenizer& tokenizer, GgufLimits& limits) {
  const json document = json::parse(tokenizer.json());
  limits.need(!pre_tokenizer_name(document["pre_tokenizer"]).empty(),
              "tokenizer.json: pre_tokenizer", "DeepSeek's, Qwen 2's or GPT-2's",
              document["pre_tokenizer"].dump());
  // NFC too is left out by llama.cpp, but leaves texts as they are commonly written alone.
  const json normalizer = document.value("normalizer", json());
  limits.need(normalizer.is_null() || normalizer == json{{"type", "NFC"}},
              "tokenizer.json: normalizer", "null or NFC", normalizer.dump());
  limits.need(!document["model"].value("ignore_merges", false),
              "tokenizer.json: model.ignore_merges", "false", "true");
  if (!document.contains("added_tokens")) return;
  for (const json& token : document["added_tokens"])
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      limits.need(
          !token.value(key, false),
          fmt::format("tokenizer.json: {} of the added token {}", key, token["content"].dump()),
          "false", "true");
}

GgufMetadata gguf_tokenizer_metadata(const LoadedModel& model) {
  const DecoderConfig& text = model.model->config().decoder;
  const json document = json::parse(model.tokenizer.json());
  TokenTable table = token_table(model.tokenizer, document, text.vocab_size);
  const std::string p = "tokenizer.ggml.";
  const auto id = [](std::int64_t value) { return static_cast<std::uint32_t>(value); };
  return {{p + "model", std::string("gpt2")},
          {p + "pre", pre_tokenizer_name(document["pre_tokenizer"])},
          {p + "tokens", std::move(table.texts)},
          {p + "token_type", std::move(table.types)},
          {p + "merges", merges_of(document["model"])},
          {p + "bos_token_id", id(text.bos_token_id)},
          {p + "eos_token_id", id(text.eos_token_id)},
          {p + "padding_token_id", id(text.pad_token_id)},
          {p + "add_bos_token", true},
          {p + "add_eos_token", false},
          {"tokenizer.chat_template", std::string(kChatTemplate)}};
}

}  // namespace lectern
