// tokenizer.json as other programs leave it, and as other programs need it.
#include "core/io/file.h"
#include "data/tokenizer/template.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/notices.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;

json deepseek() {
  const auto path = testing::fixture("tokenizer/deepseek/tokenizer.json");
  return parse_json(read_file(path), path.string());
}

TEST(ForeignTokenizer, TruncationAndPaddingArePassedOverWithANote) {
  const std::string text = "The quick brown fox jumps over the lazy dog, 3.14 times.";
  const auto want = Tokenizer::from_json(deepseek().dump(), "plain.json").encode(text, true);
  ASSERT_GT(want.size(), 5u);
  json document = deepseek();
  document["truncation"] = {
      {"direction", "Right"}, {"max_length", 5}, {"strategy", "LongestFirst"}, {"stride", 0}};
  document["padding"] = {{"strategy", {{"Fixed", 64}}}, {"direction", "Right"}, {"pad_id", 2}};
  const testing::Notices notices;
  const Tokenizer tokenizer = Tokenizer::from_json(document.dump(), "t.json");
  EXPECT_EQ(tokenizer.encode(text, true), want);
  EXPECT_EQ(notices.count({"t.json: truncation is passed over"}), 1);
  EXPECT_EQ(notices.count({"t.json: padding is passed over"}), 1);
  EXPECT_EQ(notices.said.size(), 2u);
  // Other programs would apply them: what is made for those is without.
  const json made = json::parse(json_with_begin_token(tokenizer, 0));
  EXPECT_TRUE(made["truncation"].is_null());
  EXPECT_TRUE(made["padding"].is_null());
}

TEST(BeginToken, StandsBeforeATextOnce) {
  const std::string text = "<image>\nFree OCR.";
  for (const char* style : {"deepseek", "gpt2", "qwen2"}) {
    const auto path = testing::fixture(std::string("tokenizer/") + style + "/tokenizer.json");
    const Tokenizer before = Tokenizer::load(path);
    const std::int32_t begin = 3;
    const std::string made = json_with_begin_token(before, begin);
    const Tokenizer after = Tokenizer::from_json(made, "made");
    EXPECT_EQ(after.encode(text), before.encode(text)) << style << ": prompts are as they were";
    auto want = before.encode(text);
    want.insert(want.begin(), begin);
    EXPECT_EQ(after.encode(text, true), want) << style;
    EXPECT_EQ(after.vocab_size(), before.vocab_size());
    EXPECT_EQ(json_with_begin_token(after, begin), made) << style << ": made again it is the same";
    json old = parse_json(before.json(), "old"), now = parse_json(made, "made");
    for (const char* key : {"truncation", "padding", "post_processor"}) {
      old.erase(key);
      now.erase(key);
    }
    EXPECT_EQ(json::diff(old, now), json::array()) << style;
  }
}

TEST(BeginToken, ReplacesAnotherTemplateAndKeepsTheRest) {
  json document = deepseek();
  const std::string first = document["added_tokens"][0]["content"];
  document["post_processor"] = {
      {"type", "Sequence"},
      {"processors",
       {{{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", false}},
        {{"type", "TemplateProcessing"},
         {"single",
          {{{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
           {{"SpecialToken", {{"id", first}, {"type_id", 0}}}}}},
         {"pair", json::array()},
         {"special_tokens", {{first, {{"id", first}, {"ids", {1}}, {"tokens", {first}}}}}}}}}};
  const Tokenizer before = Tokenizer::from_json(document.dump(), "old.json");
  EXPECT_EQ(before.encode("a", true).back(), 1);
  const Tokenizer after = Tokenizer::from_json(json_with_begin_token(before, 0), "made");
  EXPECT_EQ(after.encode("a", true).front(), 0);
  EXPECT_NE(after.encode("a", true).back(), 1);
  const json made = json::parse(after.json())["post_processor"];
  EXPECT_EQ(made["type"], "Sequence");
  ASSERT_EQ(made["processors"].size(), 2u);
  EXPECT_EQ(made["processors"][0]["type"], "ByteLevel");
  EXPECT_EQ(made["processors"][1]["type"], "TemplateProcessing");
  EXPECT_TRUE(testing::throws_with([&] { json_with_begin_token(before, 1 << 30); },
                                   {"must have a token with id 1073741824"}));
}

}  // namespace
}  // namespace lectern
