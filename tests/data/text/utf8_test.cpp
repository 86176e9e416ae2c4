#include "data/text/utf8.h"

#include "tests/testing.h"

namespace lectern {
namespace {

TEST(CodePoints, BadBytesBecomeReplacementCharacters) {
  EXPECT_EQ(code_points("a\xc3\xa9\U0001f600"), U"a\u00e9\U0001f600");
  EXPECT_EQ(code_points("a\xff"
                        "b\xe4\xb8"),
            U"a\ufffdb\ufffd");
  EXPECT_EQ(code_points(""), U"");
}

TEST(CodePoints, ComeBackAsUtf8OfEveryLength) {
  const std::u32string text = U"a\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff";
  EXPECT_EQ(code_points(to_utf8(text)), text);
  EXPECT_EQ(to_utf8(text).size(), 1U + 1 + 2 + 2 + 3 + 3 + 4 + 4);
  EXPECT_EQ(count_characters(to_utf8(text)), 8);
  EXPECT_EQ(count_characters(""), 0);
}

TEST(Utf8Prefix, NeverEndsWithinACharacter) {
  const std::string text = "a\u00e9\u4e2d\U0001f600";  // 1, 2, 3 and 4 bytes
  const std::size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (std::size_t bytes = 0; bytes < std::size(want); ++bytes) {
    EXPECT_EQ(utf8_prefix(text, bytes).size(), want[bytes]) << bytes;
    EXPECT_TRUE(is_utf8(utf8_prefix(text, bytes)));
  }
}

}  // namespace
}  // namespace lectern
