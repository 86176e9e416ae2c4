#include "data/text/text_corpus.h"

#include "core/io/file.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::TemporaryFolder;
using testing::throws_with;

std::vector<std::string> words(const TextCorpus& corpus) {
  std::vector<std::string> out;
  for (std::int64_t i = 0; i < corpus.words(); ++i) out.emplace_back(corpus.word(i));
  return out;
}

TEST(TextCorpus, CutsWordsAndParagraphs) {
  const TextCorpus corpus("one two\nthree\n\n one  four\f five", {});
  EXPECT_EQ(words(corpus),
            (std::vector<std::string>{"one", "two", "three", "one", "four", "five"}));
  std::vector<std::int64_t> begins;
  for (std::int64_t i = 0; i < corpus.words(); ++i)
    if (corpus.begins_paragraph(i)) begins.push_back(i);
  EXPECT_EQ(begins, (std::vector<std::int64_t>{0, 3, 5}));
  EXPECT_EQ(corpus.distinct(), (std::vector<std::int64_t>{0, 1, 2, 4, 5}));
  EXPECT_EQ(corpus.length(2), 5);
  EXPECT_EQ(corpus.characters().front(), U'e');
}

TEST(TextCorpus, DropsWhatIsNotOfTheScripts) {
  const std::string text =
      "plain sch\u00f6n \u03bb\u03cc\u03b3\u03bf\u03c2 \u043a\u043d bad\u00ad soft \ufffd x\ue000y "
      "a\x01"
      "b";
  CorpusOptions options;
  const TextCorpus latin(text, options);
  // The control character parts the last word.
  EXPECT_EQ(words(latin), (std::vector<std::string>{"plain", "sch\u00f6n", "soft", "a", "b"}));
  EXPECT_EQ(latin.dropped(), 5);
  options.ascii_only = true;
  EXPECT_EQ(words(TextCorpus(text, options)),
            (std::vector<std::string>{"plain", "soft", "a", "b"}));
  options.ascii_only = false;
  options.scripts = {Script::greek, Script::cyrillic};
  EXPECT_EQ(words(TextCorpus(text, options)),
            (std::vector<std::string>{"\u03bb\u03cc\u03b3\u03bf\u03c2", "\u043a\u043d"}));
  EXPECT_TRUE(throws_with([&] { TextCorpus("abc", options); }, {"no word", "1 have characters"}));
  EXPECT_EQ(script_from("cjk"), Script::cjk);
  EXPECT_TRUE(throws_with([] { script_from("runes"); }, {"scripts", "\"runes\""}));
}

TEST(TextCorpus, ComposesAndRepairs) {
  EXPECT_EQ(words(TextCorpus("cafe\u0301", {})), std::vector<std::string>{"caf\u00e9"});
  EXPECT_EQ(words(TextCorpus("ok b\xff"
                             "d",
                             {})),
            std::vector<std::string>{"ok"});
}

TEST(TextCorpus, CutsChineseIntoGluedCharacters) {
  CorpusOptions options;
  options.scripts = {Script::latin, Script::cjk};
  const TextCorpus corpus("use \u6f22\u5b57ok \u6587", options);
  EXPECT_EQ(words(corpus), (std::vector<std::string>{"use", "\u6f22", "\u5b57", "ok", "\u6587"}));
  std::vector<bool> glued;
  for (std::int64_t i = 0; i < corpus.words(); ++i) glued.push_back(corpus.is_glued(i));
  EXPECT_EQ(glued, (std::vector<bool>{false, false, true, true, false}));
}

TEST(TextCorpus, ReadsFilesAndFoldersWithoutTheExcluded) {
  const TemporaryFolder folder;
  write_file(folder.path() / "b.txt", "two");
  write_file(folder.path() / "a.txt", "one");
  write_file(folder.path() / "held-out-0001.txt", "secret");
  write_file(folder.path() / "note.md", "no");
  CorpusOptions options;
  options.text = {folder.path()};
  options.exclude = {"held-out"};
  EXPECT_EQ(words(TextCorpus(options)), (std::vector<std::string>{"one", "two"}));
  options.text = {folder.path() / "note.md"};
  EXPECT_EQ(words(TextCorpus(options)), std::vector<std::string>{"no"});
  options.text = {folder.path() / "absent.txt"};
  EXPECT_TRUE(throws_with([&] { TextCorpus{options}; }, {"absent.txt"}));
  options.text = {};
  EXPECT_TRUE(throws_with([&] { TextCorpus{options}; }, {"text must name a file"}));
  const TemporaryFolder empty;
  options.text = {empty.path()};
  EXPECT_TRUE(throws_with([&] { TextCorpus{options}; }, {"must hold .txt files"}));
}

TEST(TextCorpus, WordsCanBeLeftOut) {
  TextCorpus corpus("abc bcd cde", {});
  const std::string before = corpus.sha256();
  corpus.drop_words_with({});
  EXPECT_EQ(corpus.sha256(), before);
  corpus.drop_words_with({U'a', U'x'});
  EXPECT_EQ(words(corpus), (std::vector<std::string>{"bcd", "cde"}));
  EXPECT_NE(corpus.sha256(), before);
  EXPECT_EQ(corpus.dropped(), 1);
}

}  // namespace
}  // namespace lectern
