#include "data/shards/grounding.h"

#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;

TEST(Grounding, PlacesAreReadInOrder) {
  const auto found = parse_groundings(
      "<|ref|>title<|/ref|><|det|>[[0, 1, 998, 999]]<|/det|>\n# Bill\n"
      "<|ref|>a line<|/ref|> <|det|>[[1,2,3,4],[5,6,5,6]]<|/det|>");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].label, "title");
  EXPECT_EQ(found[0].boxes[0], (std::array<std::int64_t, 4>{0, 1, 998, 999}));
  EXPECT_EQ(found[1].label, "a line");
  ASSERT_EQ(found[1].boxes.size(), 2u);
  EXPECT_EQ(found[1].boxes[1], (std::array<std::int64_t, 4>{5, 6, 5, 6}));
  EXPECT_TRUE(parse_groundings("no place, <b>none</b> [[1,2,3,4]]").empty());
}

TEST(Grounding, ThousandthsBecomePixelsUpToTheEdge) {
  const auto boxes =
      boxes_of(parse_groundings("<|ref|>all<|/ref|><|det|>[[0,0,999,999]]<|/det|>"), 640, 481);
  ASSERT_EQ(boxes.size(), 1u);
  EXPECT_EQ(boxes[0], (LabelledBox{"all", {0, 0, 640, 481}}));
}

TEST(Grounding, WhatIsMalformedIsRefusedByName) {
  const auto refused = [](const std::string& text, std::initializer_list<std::string_view> parts) {
    return throws_with([&] { parse_groundings(text); }, parts);
  };
  const auto boxed = [](const std::string& list) {
    return "<|ref|>a<|/ref|><|det|>" + list + "<|/det|>";
  };
  EXPECT_TRUE(refused(boxed("[[0,0,1000,9]]"), {"whole numbers in 0 .. 999", "[[0,0,1000,9]]"}));
  EXPECT_TRUE(refused(boxed("[[0,-1,10,9]]"), {"whole numbers in 0 .. 999"}));
  EXPECT_TRUE(refused(boxed("[[0,0.5,10,9]]"), {"whole numbers in 0 .. 999"}));
  EXPECT_TRUE(refused(boxed("[[20,0,10,9]]"), {"left <= right"}));
  EXPECT_TRUE(refused(boxed("[[0,10,10,9]]"), {"top <= bottom"}));
  EXPECT_TRUE(refused(boxed("[[1,2,3]]"), {"[[left, top, right, bottom], ...]"}));
  EXPECT_TRUE(refused(boxed("[1,2,3,4]"), {"[[left, top, right, bottom], ...]"}));
  EXPECT_TRUE(refused(boxed("[]"), {"[[left, top, right, bottom], ...]"}));
  EXPECT_TRUE(refused(boxed("[[1,2,3,4]] x"), {"must end after its list"}));
  EXPECT_TRUE(refused("<|ref|>a<|/ref|>", {"<|/ref|> must be followed by <|det|>", "the end"}));
  EXPECT_TRUE(refused("<|ref|>a", {"<|ref|> must be followed by <|/ref|>"}));
  EXPECT_TRUE(refused("<|det|>[[1,2,3,4]]<|/det|>", {"<|det|> must come after its partner"}));
  EXPECT_TRUE(refused("a<|/ref|>", {"<|/ref|> must come after its partner"}));
  EXPECT_TRUE(refused("<|ref|>a<|ref|>b<|/ref|>", {"followed by <|/ref|>, got <|ref|>"}));
  EXPECT_TRUE(refused("<|ref|> <|/ref|><|det|>[[1,2,3,4]]<|/det|>", {"a label"}));
  EXPECT_TRUE(refused("<|ref|>a<|/ref|>x<|det|>[[1,2,3,4]]<|/det|>", {"text between them"}));
}

}  // namespace
}  // namespace lectern
