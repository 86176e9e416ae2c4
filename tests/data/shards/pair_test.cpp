#include "data/shards/pair.h"

#include "core/error.h"
#include "tests/data/synthetic_pages.h"
#include "tests/testing.h"

#include <algorithm>

namespace lectern {
namespace {

using testing::test_tokenizer;
using testing::throws_with;

Pair receipt() {
  Pair out;
  out.id = "receipts/1";
  out.document = "receipts";
  out.source = "receipts.jsonl";
  out.picture = encode_jpeg(make_image(40, 24, 90), 80);
  out.prompt = "<image>\nWhat does it cost?";
  out.answer = "12.50 EUR";
  out.boxes = {{"total", {4, 4, 36, 20}}};
  return out;
}

TEST(Pair, BecomesARecordWithItsTokensAndThePicturesSize) {
  const ShardPage record = pair_record(receipt(), test_tokenizer());
  EXPECT_EQ(record.id, "receipts/1");
  EXPECT_EQ(record.document, "receipts");
  EXPECT_EQ(record.source, "receipts.jsonl");
  EXPECT_EQ(record.kind, "pair");
  EXPECT_EQ(record.width, 40);
  EXPECT_EQ(record.height, 24);
  EXPECT_EQ(record.picture, receipt().picture);  // as it was encoded
  EXPECT_EQ(record.prompt, "<image>\nWhat does it cost?");
  EXPECT_EQ(record.prompt_ids, test_tokenizer().encode("\nWhat does it cost?"));
  EXPECT_EQ(record.text, "12.50 EUR");
  EXPECT_EQ(record.ids, test_tokenizer().encode("12.50 EUR"));
  EXPECT_EQ(record.boxes, receipt().boxes);
  ShardWriter writer;
  writer.add(record);
  EXPECT_EQ(writer.pages(), 1);
}

TEST(Pair, TextAloneNeedsNoPicture) {
  Pair text = receipt();
  text.picture.clear();
  text.boxes.clear();
  text.prompt = "What is it?";
  const ShardPage record = pair_record(text, test_tokenizer());
  EXPECT_FALSE(record.has_picture());
  EXPECT_EQ(record.prompt_ids, test_tokenizer().encode("What is it?"));
}

const Tokenizer& tokenizer_with_places() {
  static const Tokenizer tokenizer =
      Tokenizer::load(testing::source_folder() / "recipes/nano/tokenizer.json");
  return tokenizer;
}

TEST(Pair, PlacesOfTheAnswerAreTokensAndBoxes) {
  Pair pair = receipt();
  pair.answer = "<|ref|>sum<|/ref|><|det|>[[0,0,999,500]]<|/det|> 12";
  pair.prompt = "<image>\n<|grounding|>Read.";
  const ShardPage record = pair_record(pair, tokenizer_with_places());
  ASSERT_EQ(record.boxes.size(), 2u);
  EXPECT_EQ(record.boxes[0].label, "total");
  EXPECT_EQ(record.boxes[1].label, "sum");
  EXPECT_EQ(record.boxes[1].box.right, 40);
  EXPECT_NEAR(record.boxes[1].box.bottom, 24 * 500 / 999.0, 1e-9);
  const auto count = [&](std::string_view token) {
    const std::int32_t id = tokenizer_with_places().token_to_id(token).value();
    return std::count(record.ids.begin(), record.ids.end(), id) +
           std::count(record.prompt_ids.begin(), record.prompt_ids.end(), id);
  };
  for (const char* token : {"<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"})
    EXPECT_EQ(count(token), 1) << token;
}

TEST(Pair, TokensOfTheFrameAndTagsWithoutATokenAreRefused) {
  const auto refused = [](auto change, const Tokenizer& tokenizer,
                          std::initializer_list<std::string_view> parts) {
    Pair pair = receipt();
    change(pair);
    return throws_with([&] { pair_record(pair, tokenizer); }, parts);
  };
  const std::string end = tokenizer_with_places().id_to_token(1).value();
  const Tokenizer& places = tokenizer_with_places();
  EXPECT_TRUE(refused([&](Pair& p) { p.answer += end; }, places,
                      {"receipts/1", "answer must have no special token", end}));
  EXPECT_TRUE(refused([&](Pair& p) { p.prompt += end; }, places,
                      {"prompt must have no special token", end}));
  EXPECT_TRUE(refused([&](Pair& p) { p.answer += "<|grounding|>"; }, places,
                      {"answer must have no special token, got <|grounding|>"}));
  EXPECT_TRUE(refused([](Pair& p) { p.answer = "<|ref|>a"; }, places,
                      {"answer: <|ref|> must be followed by"}));
  const auto place = [](Pair& p) { p.answer = "<|ref|>a<|/ref|><|det|>[[1,2,3,4]]<|/det|>"; };
  std::string json = places.json();
  for (std::size_t at = 0; (at = json.find("<|ref|>", at)) != std::string::npos;)
    json.replace(at, 7, "<|rex|>");  // among the added tokens, and in the vocabulary
  EXPECT_TRUE(refused(place, Tokenizer::from_json(json, "without"),
                      {"answer has <|ref|>, which is no added token"}));
  EXPECT_TRUE(refused(
      [&](Pair& p) {
        place(p);
        p.picture.clear();
        p.prompt.clear();
      },
      places, {"no places without a picture"}));
}

TEST(Pair, WhatCannotBeLearntIsRefused) {
  const auto refused = [](auto change, std::initializer_list<std::string_view> parts) {
    Pair pair = receipt();
    change(pair);
    return throws_with([&] { pair_record(pair, test_tokenizer()); }, parts);
  };
  EXPECT_TRUE(refused([](Pair& p) { p.answer = ""; }, {"receipts/1", "answer must not be empty"}));
  EXPECT_TRUE(refused([](Pair& p) { p.answer = "a <image>"; }, {"answer must have no <image>"}));
  EXPECT_TRUE(refused([](Pair& p) { p.prompt = "See <image>"; }, {"prompt must have <image>"}));
  EXPECT_TRUE(refused([](Pair& p) { p.answer = "\xff"; }, {"answer must be UTF-8"}));
  EXPECT_TRUE(refused([](Pair& p) { p.prompt = "\xc3"; }, {"prompt must be UTF-8"}));
  EXPECT_TRUE(refused([](Pair& p) { p.picture.resize(30); }, {"pair \"receipts/1\": picture"}));
  EXPECT_TRUE(refused([](Pair& p) { p.picture = {'n', 'o'}; }, {"must be a PNG or JPEG"}));
}

}  // namespace
}  // namespace lectern
