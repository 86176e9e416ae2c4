#include "data/shards/pair.h"

#include "core/error.h"
#include "tests/data/synthetic_pages.h"
#include "tests/testing.h"

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
