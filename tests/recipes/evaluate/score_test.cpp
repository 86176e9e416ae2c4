#include "recipes/evaluate/score.h"

#include "core/io/file.h"
#include "core/random.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using testing::throws_with;

std::u32string random_text(Random& random, std::size_t length, std::uint64_t alphabet) {
  std::u32string out;
  for (std::size_t i = 0; i < length; ++i)
    out += static_cast<char32_t>(0x4e00 + random.below(alphabet));
  return out;
}

TEST(Normalize, CompatibilitySpacesAndEnds) {
  EXPECT_EQ(normalize_text("  \uff21\uff22\u3000c\r\n\r\nd "), "AB c d");
  EXPECT_EQ(normalize_text("e\u0301 \ufb01"), "\u00e9 fi");
  EXPECT_EQ(normalize_text(""), "");
}

TEST(Words, SpacesPartAndHanStandAlone) {
  EXPECT_EQ(words(U" two  words\n"), (std::vector<std::u32string>{U"two", U"words"}));
  EXPECT_EQ(words(U"abc\u4e2d\u6587de"),
            (std::vector<std::u32string>{U"abc", U"\u4e2d", U"\u6587", U"de"}));
  EXPECT_TRUE(words(U" \u00a0\t").empty());
}

TEST(PageScore, HandComputed) {
  // "the cat sat" against "the cat sat down": 5 insertions; sets {the cat sat}, + {down}.
  const PageScore page = score_page("the cat sat", "the cat sat down");
  EXPECT_EQ(page.edits, 5);
  EXPECT_DOUBLE_EQ(page.edit_distance, 5.0 / 16);
  EXPECT_DOUBLE_EQ(page.cer, 5.0 / 16);
  EXPECT_DOUBLE_EQ(page.precision, 1.0);
  EXPECT_DOUBLE_EQ(page.recall, 0.75);
  EXPECT_DOUBLE_EQ(page.f1, 2 * 0.75 / 1.75);
  // Longer than the truth: CER may pass 1, the normalised distance may not.
  const PageScore longer = score_page("abcdef", "xy");
  EXPECT_DOUBLE_EQ(longer.cer, 3.0);
  EXPECT_DOUBLE_EQ(longer.edit_distance, 1.0);
  EXPECT_EQ(longer.f1, 0.0);
  // Words repeated count once: sets.
  EXPECT_DOUBLE_EQ(score_page("a a a b", "a c").precision, 0.5);
  const PageScore empty = score_page("", "");
  EXPECT_EQ(empty.edit_distance, 0.0);
  EXPECT_EQ(empty.cer, 0.0);
  EXPECT_EQ(empty.f1, 1.0);
  EXPECT_EQ(score_page("x", "").cer, 1.0);
  EXPECT_EQ(score_page("", "x").edit_distance, 1.0);
}

TEST(LoopingTail, LoopsToTheEndOnly) {
  const auto repeat = [](const std::u32string& piece, int times) {
    std::u32string out;
    for (int i = 0; i < times; ++i) out += piece;
    return out;
  };
  EXPECT_EQ(looping_tail(U"A page of ordinary text, which ends as pages do."), 0);
  EXPECT_EQ(looping_tail(repeat(U"a", 31)), 0);
  EXPECT_EQ(looping_tail(repeat(U"a", 32)), 32);
  const std::u32string sentence = U"The same sentence, again. ";
  EXPECT_EQ(looping_tail(U"Start: " + repeat(sentence, 3)), 0);
  EXPECT_GE(looping_tail(U"Start: " + repeat(sentence, 4) + U"The"), 4 * 26);
  EXPECT_GT(looping_tail(repeat(sentence, 30) + U"The same sen"), 700);  // cut by the token limit
  EXPECT_EQ(looping_tail(repeat(sentence, 30) + U"and then the text goes on to its own end."), 0);
  EXPECT_GT(looping_tail(repeat(U"a line\n\n   ", 10)), 0);  // white space counts once
  EXPECT_EQ(looping_tail(U""), 0);
}

TEST(LoopingTail, EqualsTheNaiveSearch) {
  Random random(5, "loop");
  for (int round = 0; round < 300; ++round) {
    std::u32string text = random_text(random, random.below(40), 3);
    const std::u32string piece = random_text(random, 1 + random.below(12), 3);
    for (std::uint64_t i = random.below(12); i > 0; --i) text += piece;
    std::size_t longest = 0;
    for (std::size_t p = 1; p < text.size(); ++p) {
      std::size_t length = p;
      while (length < text.size() &&
             text[text.size() - 1 - length] == text[text.size() - 1 - length + p])
        ++length;
      if (length >= std::max<std::size_t>(4 * p, 32)) longest = std::max(longest, length);
    }
    ASSERT_EQ(looping_tail(text), static_cast<std::int64_t>(longest));
  }
}

TEST(PageScore, ALoopOfTheTruthIsNoRepetition) {
  const std::string dots(60, '.');
  EXPECT_TRUE(score_page("contents " + dots, "contents").repeats);
  EXPECT_FALSE(score_page("contents " + dots, "contents " + dots).repeats);
}

TEST(Scores, AggregatesOverPagesAndOverText) {
  Scores scores =
      summarize({score_page("ab", "ab"), score_page("xxxx", "abcd"), score_page("", "abcdef")});
  EXPECT_DOUBLE_EQ(scores.edit_distance, 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores.edit_distance_corpus, 10.0 / 12);
  EXPECT_DOUBLE_EQ(scores.cer, 10.0 / 12);
  EXPECT_DOUBLE_EQ(scores.cer_mean, 2.0 / 3);
  EXPECT_EQ(scores.exact, 1);
  EXPECT_EQ(summarize({}).edit_distance, 0.0);
}

TEST(ScoreFolders, PairsByStem) {
  testing::TemporaryFolder folder;
  const auto pred = folder.path() / "pred", gt = folder.path() / "gt";
  std::filesystem::create_directories(pred);
  std::filesystem::create_directories(gt);
  write_file(gt / "one.txt", "hello\n");
  write_file(gt / "two.p1.md", "world");
  write_file(gt / "three.md", "gone");
  write_file(gt / "notes.json", "{}");
  write_file(pred / "one.md", "hallo\n");
  write_file(pred / "one.txt", "ignored: .md comes first");
  write_file(pred / "two.p1.txt", "world");
  write_file(pred / "stray.md", "x");
  std::vector<std::string> extra;
  const Scores scores = score_folders(pred, gt, {}, extra);
  ASSERT_EQ(scores.pages.size(), 3u);
  EXPECT_EQ(scores.pages[0].name, "one");
  EXPECT_DOUBLE_EQ(scores.pages[0].edit_distance, 1.0 / 6);
  EXPECT_TRUE(scores.pages[1].missing);
  EXPECT_EQ(scores.pages[1].edit_distance, 1.0);
  EXPECT_EQ(scores.pages[2].edits, 0);
  EXPECT_EQ(extra, std::vector<std::string>{"stray.md"});

  const auto json = nlohmann::json::parse(scores_json(scores, true));
  EXPECT_EQ(json["pages"], 3);
  EXPECT_EQ(json["missing"][0], "three");
  EXPECT_EQ(json["per_page"][0]["edits"], 1);
  EXPECT_EQ(json["edit_distance"].get<double>(), scores.edit_distance);

  EXPECT_TRUE(throws_with([&] { score_folders(folder.path() / "no", gt, {}, extra); },
                          {"no: cannot list the prediction folder"}));
  EXPECT_TRUE(throws_with([&] { score_folders(gt, folder.path(), {}, extra); },
                          {"must have pages (.md or .txt files), got none"}));
  write_file(pred / "three.md", std::string((1 << 20) + 1, 'x'));
  EXPECT_TRUE(throws_with([&] { score_folders(pred, gt, {}, extra); },
                          {"three.md: must be at most 1048576 bytes"}));
}

}  // namespace
}  // namespace lectern
