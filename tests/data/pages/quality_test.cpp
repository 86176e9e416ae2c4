#include "data/pages/quality.h"

#include "tests/testing.h"

#include <string>
#include <vector>

namespace lectern {
namespace {

TEST(PageQuality, ReasonsToDrop) {
  const auto reason = [](const std::string& text) {
    Page page;
    page.lines.push_back({"", {}, {{"twenty-characters-long", {}}, {text, {}}}});
    return reason_to_drop(page);
  };
  EXPECT_EQ(reason("fine"), "");
  EXPECT_EQ(reason("\xe6\x97\xa5\xc3\xa9"), "");
  EXPECT_EQ(reason("a\x02"), "control character U+0002");
  EXPECT_EQ(reason("\xc2\x88"), "control character U+0088");
  EXPECT_EQ(reason("\xef\xbf\xbd"), "replacement character U+FFFD");
  EXPECT_EQ(reason("\xef\xa3\xb1"), "private-use character U+F8F1");
  EXPECT_EQ(reason("\xf3\xb0\x80\x80"), "private-use character U+F0000");
  EXPECT_EQ(reason("\xef\xbf\xbf"), "noncharacter U+FFFF");
  EXPECT_EQ(reason("\xff\xfe"), "text that is not UTF-8");
  EXPECT_EQ(reason_to_drop(Page{}), "almost no text: 0 characters");
}

TEST(PageQuality, LettersThatPopplerPutsInTheWrongOrder) {
  const auto reason = [](const std::string& text, const PageQuality& quality = {}) {
    Page page;
    page.lines.push_back({"", {}, {{"twenty-characters-long", {}}, {text, {}}}});
    return reason_to_drop(page, quality);
  };
  EXPECT_EQ(reason("\u05e9\u05dc\u05d5\u05dd"), "right-to-left text: 4 of 26 characters");
  for (const char* letter : {"\u0645", "\u0710", "\u07c0", "\ufb2a", "\ufe8e", "\U0001e900"})
    EXPECT_EQ(reason(letter), "right-to-left text: 1 of 23 characters") << letter;
  PageQuality trusted;
  trusted.keeps_right_to_left = true;
  EXPECT_EQ(reason("\u05e9", trusted), "");
  Page turned;
  turned.lines.push_back({"", {}, {{"twenty-characters-long", {}}}});
  turned.rotated_words.push_back({"\u05e9", {}});
  EXPECT_TRUE(reason_to_drop(turned).starts_with("right-to-left text"));
}

TEST(PageQuality, MarksNeedALetterOfTheirScript) {
  const auto reason = [](const std::string& text) {
    Page page;
    page.lines.push_back({"", {}, {{"twenty-characters-long", {}}, {text, {}}}});
    return reason_to_drop(page);
  };
  EXPECT_EQ(reason("\u0942\u0930\u092e"),
            "a word with the combining mark U+0942 and no letter before it");
  for (const char* stray : {"\u093f\u0930", "\u0301", "\u0301e", "\u20d7v", "\u0e31", "\u0bbe",
                            "a\u093f", "(\u0942", "\u0930@\u094b", "\u0b95\u093f", "\u200d\u093f"})
    EXPECT_NE(reason(stray), "") << stray;
  for (const char* fine :
       {"\u0939\u093f\u0928\u094d\u0926\u0940", "q\u0301", "\u25cc\u093f", "\u0e01\u0e31",
        "\u0b95\u0bbe", "=\u0338", "\u0915\u094d\u200d\u0937\u093f", "\u0905\u0951"})
    EXPECT_EQ(reason(fine), "") << fine;
}

TEST(PageQuality, WordsThatFallApartIntoLetters) {
  Page page;
  page.lines.emplace_back();
  const std::string text = "mirroredtextfallsapart";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto left = static_cast<double>(10 * i);
    page.lines[0].words.push_back({text.substr(i, 1), {left, 0, left + 10, 16}});
  }
  EXPECT_EQ(reason_to_drop(page), "words that fall apart into letters: 22 of 22 characters");
  for (Word& word : page.lines[0].words) word.box.right -= 4;  // a, b, c with spaces between
  EXPECT_EQ(reason_to_drop(page), "");
}

TEST(PageQuality, WordsOnTopOfEachOther) {
  Page page;
  page.lines.push_back({"", {}, {{"printed", {10, 10, 60, 26}}, {"elsewhere", {70, 10, 130, 26}}}});
  page.lines.push_back({"", {}, {{"below", {10, 24, 60, 40}}, {"ab", {10, 10, 20, 26}}}});
  EXPECT_EQ(reason_to_drop(page), "");
  page.lines.push_back({"", {}, {{"hidden", {12, 12, 58, 27}}}});
  EXPECT_EQ(reason_to_drop(page), "words on top of each other: such as \"printed\" and \"hidden\"");
}

void fill(Image& image, int left, int top, int right, int bottom, std::uint8_t value = 0) {
  for (int y = top; y < bottom; ++y)
    for (int x = left * 3; x < right * 3; ++x) image.row(y)[x] = value;
}

/// The words of which the picture shows something, of one line.
std::string shown_words(const Image& image, const std::vector<Word>& words) {
  Page page;
  page.lines.push_back({"", {}, words});
  const std::int64_t hidden = keep_what_is_shown(page, image);
  const std::size_t kept = page.lines.empty() ? 0 : page.lines[0].words.size();
  EXPECT_EQ(hidden, static_cast<std::int64_t>(words.size() - kept));
  return page.text;
}

TEST(PageQuality, WordsWithoutInkAreTakenOut) {
  Image image = make_image(400, 100);
  fill(image, 12, 14, 14, 26);         // a letter
  fill(image, 60, 18, 80, 20);         // a dash as long as its box
  fill(image, 104, 6, 106, 34);        // a bar that is longer than its box
  fill(image, 121, 25, 124, 28);       // a dot that fills its box
  fill(image, 150, 10, 190, 30, 200);  // a grey field
  EXPECT_EQ(shown_words(image, {{"letter", {10, 10, 40, 30}},
                                {"nothing", {210, 10, 250, 30}},
                                {"dash", {60, 10, 80, 30}},
                                {"bar", {103, 10, 107, 30}},
                                {"dot", {121, 25, 124, 28}},
                                {"field", {155, 12, 185, 28}}}),
            "letter dash bar dot");
  // Rules that run through a box, and edges of fields, are not what is written there.
  image = make_image(400, 100);
  fill(image, 0, 28, 400, 29);
  fill(image, 40, 0, 41, 100);
  fill(image, 200, 0, 400, 100, 160);
  fill(image, 110, 14, 112, 26);
  EXPECT_EQ(shown_words(image, {{"ruled", {60, 10, 90, 30}},
                                {"crossed", {30, 10, 55, 30}},
                                {"edge", {180, 10, 220, 27}},
                                {"struck", {105, 10, 130, 30}}}),
            "struck");
}

TEST(PageQuality, WordsThatAreCutOff) {
  Image image = make_image(400, 100);
  for (int letter = 0; letter < 9; ++letter)
    fill(image, 12 + 10 * letter, 14, 16 + 10 * letter, 26);
  Page page;
  page.lines.push_back({"", {}, {{"wholeword", {10, 10, 100, 30}}, {"is", {10, 10, 100, 30}}}});
  EXPECT_EQ(reason_to_drop(page, image), "");
  page.lines[0].words.push_back({"longerword", {10, 10, 150, 30}});
  EXPECT_EQ(reason_to_drop(page, image),
            "text that the picture shows only in part: such as \"longerword\"");
}

TEST(PageQuality, SoftHyphensWithinAWordAreThoseThatAreSeen) {
  const auto draw = [](bool hyphen) {
    Image image = make_image(100, 40);
    for (const int left : {10, 20, 40, 50}) fill(image, left, 12, left + 6, 26);
    if (hyphen) fill(image, 31, 20, 36, 22);
    return image;
  };
  const std::vector<Word> words = {{"co\u00adop", {10, 10, 58, 30}}};
  EXPECT_EQ(shown_words(draw(true), words), "co-op");
  EXPECT_EQ(shown_words(draw(false), words), "coop");
}

}  // namespace
}  // namespace lectern
