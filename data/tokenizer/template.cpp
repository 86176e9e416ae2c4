#include "data/tokenizer/template.h"

#include "core/error.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using Json = nlohmann::ordered_json;  // members stay where the file has them

Json token_item(const std::string& token) {
  return {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
}
Json sequence_item(const char* id, int type) {
  return {{"Sequence", {{"id", id}, {"type_id", type}}}};
}

/// The begin token before the first of one or two texts.
Json begin_template(const std::string& token, std::int32_t id) {
  const Json first = token_item(token), a = sequence_item("A", 0), b = sequence_item("B", 1);
  Json out = {{"type", "TemplateProcessing"}};
  out["single"] = Json::array({first, a});
  out["pair"] = Json::array({first, a, b});
  out["special_tokens"][token] = {
      {"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
  return out;
}

/// The processors of a post_processor one after the other, without templates.
void collect(const Json& processor, Json& out) {
  if (processor.is_null()) return;
  if (processor["type"] == "Sequence") {
    for (const Json& member : processor["processors"]) collect(member, out);
  } else if (processor["type"] != "TemplateProcessing") {
    out.push_back(processor);
  }
}

}  // namespace

std::string json_with_begin_token(const Tokenizer& tokenizer, std::int32_t begin) {
  const auto token = tokenizer.id_to_token(begin);
  if (!token)
    fail<ConfigError>(fmt::format("tokenizer: must have a token with id {} to begin texts", begin));
  Json document = Json::parse(tokenizer.json());
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  Json processors = Json::array();
  if (document.contains("post_processor")) collect(document["post_processor"], processors);
  processors.push_back(begin_template(*token, begin));
  document["post_processor"] = processors.size() == 1
                                   ? processors[0]
                                   : Json{{"type", "Sequence"}, {"processors", processors}};
  return document.dump(2) + "\n";
}

}  // namespace lectern
