#include "data/shards/pair.h"

#include "core/error.h"
#include "data/images/image.h"
#include "data/shards/grounding.h"
#include "data/text/utf8.h"
#include "data/tokenizer/prompt.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

namespace lectern {
namespace {

/// What a prompt may hold of special tokens beside the tags of places.
constexpr std::string_view kPromptTags[] = {"<|grounding|>", "<|User|>", "<|Assistant|>"};

[[noreturn]] void refuse(const Pair& pair, const std::string& kind, const std::string& message) {
  throw PairError(pair.id, kind, message);
}

void check_text(const Pair& pair) {
  for (const auto& [field, text] :
       {std::pair{"prompt", &pair.prompt}, std::pair{"answer", &pair.answer}})
    if (!is_utf8(*text)) refuse(pair, "not UTF-8", fmt::format("{} must be UTF-8", field));
  if (pair.answer.empty()) refuse(pair, "empty answer", "answer must not be empty");
  if (pair.answer.find(kImageTag) != std::string::npos)
    refuse(pair, "<image> in the answer",
           "answer must have no <image>: the picture stands before the prompt");
  if (const auto found = pair.prompt.rfind(kImageTag); found != std::string::npos && found > 0)
    refuse(pair, "<image> in the prompt", "prompt must have <image> once at most, and first");
}

std::vector<Grounding> groundings_of(const Pair& pair) {
  try {
    return parse_groundings(pair.answer);
  } catch (const ConfigError& error) {
    refuse(pair, "places in the answer", std::string("answer: ") + error.what());
  }
}

/// Tokens such as the end token would end a sample in its middle; a tag in pieces would be learnt
/// as letters.
void check_tokens(const Pair& pair, const char* field, const std::string& text,
                  const std::vector<std::int32_t>& ids, const Tokenizer& tokenizer) {
  const bool is_prompt = &text == &pair.prompt;
  std::vector<std::string_view> tags(kGroundingTags.begin(), kGroundingTags.end());
  if (is_prompt) tags.insert(tags.end(), std::begin(kPromptTags), std::end(kPromptTags));
  for (const std::string_view tag : tags)
    if (text.find(tag) != std::string::npos && tokenizer.encode(tag).size() != 1)
      refuse(pair, "tag without a token",
             fmt::format("{} has {}, which is no added token of the tokenizer", field, tag));
  for (const std::int32_t id : ids) {
    if (!tokenizer.is_special(id)) continue;
    const std::string token = tokenizer.id_to_token(id).value_or("");
    if (std::find(tags.begin(), tags.end(), token) == tags.end())
      refuse(pair, "special token",
             fmt::format("{} must have no special token, got {}", field, token));
  }
}

}  // namespace

ShardPage pair_record(Pair pair, const Tokenizer& tokenizer) {
  check_text(pair);
  const std::vector<Grounding> groundings = groundings_of(pair);
  if (!groundings.empty() && pair.picture.empty())
    refuse(pair, "places in the answer", "answer must have no places without a picture");
  ShardPage out;
  if (!pair.picture.empty()) {
    const Image image = decode_image(pair.picture, fmt::format("pair \"{}\": picture", pair.id));
    out.width = image.width;
    out.height = image.height;
  }
  out.prompt_ids = encode_prompt(tokenizer, pair.prompt);
  out.ids = tokenizer.encode(pair.answer);
  if (out.ids.empty()) refuse(pair, "empty answer", "answer must have tokens, got none");
  check_tokens(pair, "prompt", pair.prompt, out.prompt_ids, tokenizer);
  check_tokens(pair, "answer", pair.answer, out.ids, tokenizer);
  out.id = std::move(pair.id);
  out.document = std::move(pair.document);
  out.source = std::move(pair.source);
  out.kind = std::move(pair.kind);
  out.picture = std::move(pair.picture);
  out.prompt = std::move(pair.prompt);
  out.text = std::move(pair.answer);
  out.boxes = std::move(pair.boxes);
  for (LabelledBox& box : boxes_of(groundings, out.width, out.height))
    out.boxes.push_back(std::move(box));
  return out;
}

}  // namespace lectern
