#include "data/shards/pair.h"

#include "core/error.h"
#include "data/images/image.h"
#include "data/text/utf8.h"
#include "data/tokenizer/prompt.h"

#include <utility>

namespace lectern {
namespace {

[[noreturn]] void refuse(const Pair& pair, const std::string& message) {
  fail<ConfigError>(fmt::format("pair \"{}\": {}", pair.id, message));
}

void check_text(const Pair& pair) {
  for (const auto& [field, text] :
       {std::pair{"prompt", &pair.prompt}, std::pair{"answer", &pair.answer}})
    if (!is_utf8(*text)) refuse(pair, fmt::format("{} must be UTF-8", field));
  if (pair.answer.empty()) refuse(pair, "answer must not be empty");
  if (pair.answer.find(kImageTag) != std::string::npos)
    refuse(pair, "answer must have no <image>: the picture stands before the prompt");
  if (const auto found = pair.prompt.rfind(kImageTag); found != std::string::npos && found > 0)
    refuse(pair, "prompt must have <image> once at most, and first");
}

}  // namespace

ShardPage pair_record(Pair pair, const Tokenizer& tokenizer) {
  check_text(pair);
  ShardPage out;
  if (!pair.picture.empty()) {
    const Image image = decode_image(pair.picture, fmt::format("pair \"{}\": picture", pair.id));
    out.width = image.width;
    out.height = image.height;
  }
  out.prompt_ids = encode_prompt(tokenizer, pair.prompt);
  out.ids = tokenizer.encode(pair.answer);
  if (out.ids.empty()) refuse(pair, "answer must have tokens, got none");
  out.id = std::move(pair.id);
  out.document = std::move(pair.document);
  out.source = std::move(pair.source);
  out.kind = std::move(pair.kind);
  out.picture = std::move(pair.picture);
  out.prompt = std::move(pair.prompt);
  out.text = std::move(pair.answer);
  out.boxes = std::move(pair.boxes);
  return out;
}

}  // namespace lectern
