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
  EXPECT_DOUBLE_EQ(scores.pages[0].edit_distance, 1.0 / 5);  // of "hello", without its line end
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
}

/// Folders of predictions and truths, and what scoring them gives.
struct Folders {
  Folders() {
    std::filesystem::create_directories(pred);
    std::filesystem::create_directories(gt);
  }
  Scores score() {
    extra.clear();
    return score_folders(pred, gt, {}, extra);
  }

  testing::TemporaryFolder folder;
  std::filesystem::path pred = folder.path() / "pred", gt = folder.path() / "gt";
  std::vector<std::string> extra;
};

TEST(ScoreFolders, WhatOnlyStorageAddsDoesNotCount) {
  Folders f;
  const std::string mark = "\xef\xbb\xbf";
  write_file(f.gt / "a.txt", "one\ntwo");
  int exact = 0;
  for (const std::string& text : {mark + "one\ntwo", std::string("one\r\ntwo\r\n"),
                                  std::string("one\ntwo\n\n"), mark + "one\r\ntwo"}) {
    write_file(f.pred / "a.txt", text);
    exact += f.score().exact;
    std::swap(f.pred, f.gt);  // the same on the other side
    exact += f.score().exact;
    std::swap(f.pred, f.gt);
  }
  EXPECT_EQ(exact, 8);
  // What is text counts: white space within, a mark within, a lonely carriage return.
  for (const std::string& text : {std::string("one\n\ntwo"), "one\n" + mark + "two",
                                  std::string("one\rtwo"), std::string(" one\ntwo")}) {
    write_file(f.pred / "a.txt", text);
    EXPECT_EQ(f.score().pages[0].edits, 1) << text;
  }
  write_file(f.pred / "a.txt", mark);
  EXPECT_EQ(f.score().pages[0].predicted_length, 0);
}

TEST(ScoreFolders, SuffixesInCapitals) {
  Folders f;
  write_file(f.gt / "a.TXT", "one");
  write_file(f.gt / "b.Md", "two");
  write_file(f.pred / "a.txt", "one");
  write_file(f.pred / "b.MD", "two");
  write_file(f.pred / "b.txt", "not this: .md comes first");
  const Scores scores = f.score();
  EXPECT_EQ(scores.pages.size(), 2u);
  EXPECT_EQ(scores.exact, 2);
}

TEST(ScoreFolders, NamesPairInAnyNormalForm) {
  Folders f;
  write_file(f.gt / "caf\u00e9.txt", "one");     // NFC
  write_file(f.pred / "cafe\u0301.txt", "one");  // NFD, as some file systems store it
  write_file(f.gt / "\u0041\u030a.txt", "two");
  write_file(f.pred / "\u00c5.txt", "two");
  write_file(f.gt / "old\xe9.txt", "three");  // not UTF-8
  write_file(f.pred / "old\xe9.txt", "three");
  write_file(f.pred / "old\xe8.txt", "another name");
  Scores scores = f.score();
  EXPECT_EQ(scores.pages.size(), 3u);
  EXPECT_EQ(scores.exact, 3);
  EXPECT_EQ(f.extra, std::vector<std::string>{"old\xe8.txt"});
  // The very same name is the nearer one.
  write_file(f.pred / "caf\u00e9.txt", "other");
  scores = f.score();
  EXPECT_EQ(scores.exact, 2);
  EXPECT_EQ(f.extra, (std::vector<std::string>{"cafe\u0301.txt", "old\xe8.txt"}));
}

TEST(ScoreFolders, OneBadPredictionIsOnePage) {
  Folders f;
  const std::string large(3 << 20, 'x');
  for (const char* stem : {"a", "b", "c", "d"})
    write_file(f.gt / (std::string(stem) + ".md"), "abc");
  write_file(f.pred / "a.md", "abc");
  write_file(f.pred / "b.md", large);  // long, and compared all the same
  write_file(f.pred / "c.md", std::string("\xff\xfe") + std::string("a\0b\0", 4));
  write_file(f.pred / "d.md", std::string("\0\0\xfe\xff", 4));
  Scores scores = f.score();
  ASSERT_EQ(scores.pages.size(), 4u);
  EXPECT_EQ(scores.pages[0].edits, 0);
  EXPECT_EQ(scores.pages[1].edits, static_cast<std::int64_t>(large.size()));
  EXPECT_EQ(scores.pages[1].problem, "");
  EXPECT_NE(scores.pages[2].problem.find("c.md: must be UTF-8, got UTF-16"), std::string::npos);
  EXPECT_NE(scores.pages[3].problem.find("d.md: must be UTF-8, got UTF-32"), std::string::npos);
  EXPECT_EQ(scores.pages[2].edits, 3);
  EXPECT_FALSE(scores.pages[2].missing);
  const auto json = nlohmann::json::parse(scores_json(scores, false));
  EXPECT_EQ(json["problems"].size(), 2u);
  EXPECT_EQ(json["problems"][0]["name"], "c");
  // Too long to be compared in reasonable time, unless most of it is the same.
  write_file(f.gt / "b.md", std::string(3 << 20, 'y'));
  scores = f.score();
  EXPECT_NE(scores.pages[1].problem.find("b.md: is too long to be compared"), std::string::npos);
  write_file(f.gt / "b.md", large + "y");
  EXPECT_EQ(f.score().pages[1].edits, 1);
  // A truth must be right.
  write_file(f.gt / "a.md", std::string("\xfe\xff\0a", 4));
  EXPECT_TRUE(throws_with([&] { f.score(); }, {"gt/a.md: must be UTF-8, got UTF-16"}));
}

}  // namespace
}  // namespace lectern
