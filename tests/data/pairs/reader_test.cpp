// The forms in which people have pictures with answers.
#include "data/pairs/reader.h"

#include "core/io/file.h"
#include "data/images/image.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using detail::PairItem;
using testing::TemporaryFolder;
using testing::throws_with;

std::vector<PairItem> read_items(const std::filesystem::path& path,
                                 const detail::FormOptions& options = {"", "\n"}) {
  const auto reader = detail::open_input(path, options);
  std::vector<PairItem> out;
  for (PairItem item; reader->next(item);) out.push_back(item);
  return out;
}

std::vector<PairItem> items_of(const std::string& text,
                               const detail::FormOptions& options = {"", "\n"}) {
  const TemporaryFolder folder;
  write_file(folder.path() / "a.jsonl", text);
  return read_items(folder.path() / "a.jsonl", options);
}

PairItem item_of(const std::string& record, const detail::FormOptions& options = {"", "\n"}) {
  const std::vector<PairItem> items = items_of(record + "\n", options);
  EXPECT_EQ(items.size(), 1u);
  return items.at(0);
}

/// "kind: reason"
std::string fault(const std::string& record, const detail::FormOptions& options = {"", "\n"}) {
  const PairItem item = item_of(record, options);
  return item.unusable.kind + ": " + item.unusable.reason;
}

TEST(PairForms, PictureTextAndPrompt) {
  const PairItem own = item_of(R"({"image": "a/b.png", "text": "one", "id": 7})");
  EXPECT_FALSE(own.unusable) << own.unusable.reason;
  EXPECT_EQ(own.form, "text with a picture");
  EXPECT_EQ(own.name, "a/b.png");
  EXPECT_TRUE(own.picture.is_absolute());
  EXPECT_EQ(own.answer, "one");
  EXPECT_EQ(own.prompt, "");
  EXPECT_TRUE(own.notes.empty());
  const PairItem asked =
      item_of(R"({"images": ["x.png"], "text": "t", "prompt": "Sum?", "kind": "bill"})");
  EXPECT_EQ(asked.prompt, "<image>\nSum?");
  EXPECT_EQ(asked.kind, "bill");
  EXPECT_EQ(item_of(R"({"image": "x", "text": "t", "prompt": "<image>Sum?"})").prompt,
            "<image>Sum?");
  const PairItem text = item_of(R"({"text": "alone"})");
  EXPECT_EQ(text.form, "text alone");
  EXPECT_EQ(text.prompt, "");
  EXPECT_TRUE(text.picture.empty());
}

TEST(PairForms, MessagesAndConversations) {
  const std::string turns =
      R"([{"role":"user","content":"<image>\nWhat?"},{"role":"assistant","content":"This."}])";
  const PairItem one = item_of(R"({"images": ["a.png"], "messages": )" + turns + "}");
  EXPECT_EQ(one.form, "messages with a picture");
  EXPECT_EQ(one.prompt, "<image>\nWhat?");
  EXPECT_EQ(one.answer, "This.");
  const PairItem two =
      item_of(R"({"image":"a.png","conversations":[{"from":"system","value":"Be terse."},)"
              R"({"from":"human","value":"What?\n<image>"},{"from":"gpt","value":"This."}]})");
  EXPECT_FALSE(two.unusable) << two.unusable.reason;
  EXPECT_EQ(two.form, "conversations with a picture");
  EXPECT_EQ(two.prompt, "<image>\nBe terse.\nWhat?");
  EXPECT_EQ(two.notes.size(), 2u);
  const PairItem parts =
      item_of(R"({"messages":[{"role":"user","content":[{"type":"image","image":"p.png"},)"
              R"({"type":"text","text":"What?"}]},{"role":"assistant","content":)"
              R"([{"type":"text","text":"This."}]}]})");
  EXPECT_EQ(parts.name, "p.png");
  EXPECT_EQ(parts.prompt, "<image>What?");
  EXPECT_EQ(parts.answer, "This.");
  const PairItem text = item_of(
      R"({"messages":[{"role":"user","content":"What?"},{"role":"assistant","content":"This."}]})");
  EXPECT_EQ(text.form, "messages alone");
  EXPECT_EQ(text.prompt, "What?");
}

TEST(PairForms, WhatCannotBeUsedSaysWhy) {
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos ? ::testing::AssertionSuccess()
                                                : ::testing::AssertionFailure() << text;
  };
  const std::string answer = R"({"role":"assistant","content":"b"})";
  const auto messages = [&](const std::string& user, const std::string& more) {
    return R"({"messages":[{"role":"user","content":")" + user + R"("},)" + answer + "]" + more +
           "}";
  };
  EXPECT_TRUE(has(fault(messages("<image><image>", R"(,"images":["a"])")),
                  "differ: must have an <image> for each picture, got 2 <image> and 1 pictures"));
  EXPECT_TRUE(has(fault(messages("<image>", "")), "got 1 <image> and 0 pictures"));
  EXPECT_TRUE(has(fault(messages("<image><image>", R"(,"images":["a","b"])")),
                  "several pictures: must have one picture"));
  EXPECT_TRUE(has(fault(R"({"image":"a","text":"b <image>"})"), "<image> in the answer"));
  EXPECT_TRUE(has(fault(R"({"image":"a","txet":"b"})"), "did you mean \"text\"?"));
  EXPECT_TRUE(has(fault(R"({"image":"a","text":"b","prmopt":"c"})"), "did you mean \"prompt\"?"));
  EXPECT_TRUE(has(fault(R"({"image":"a","text":3})"), "form: text must be a text, got 3"));
  EXPECT_TRUE(has(fault(R"({"image":"a","label":"b"})"), "must have \"text\", \"messages\""));
  EXPECT_TRUE(has(fault(R"({"text":"a","videos":["v"]})"), "\"videos\" cannot be learnt from"));
  EXPECT_TRUE(has(fault(R"({"text":"a","image":"http://x/y.png"})"), "the path of a file"));
  EXPECT_TRUE(has(fault(R"([1])"), "form: must be an object"));
  EXPECT_TRUE(has(fault(R"({"messages":[)" + answer + "," + answer + "]}"), "several turns"));
  EXPECT_TRUE(has(fault(R"({"messages":[{"role":"user","content":"a"}]})"), "no answer"));
  EXPECT_TRUE(has(fault(R"({"messages":[{"role":"tool","content":"a"}]})"), "got \"tool\""));
  EXPECT_TRUE(has(fault(R"({"text":"a"})", {"book", ""}), "no group"));
  EXPECT_EQ(item_of(R"({"text":"a","book":12})", {"book", ""}).group, "12");
  EXPECT_TRUE(has(fault(R"({"img":"a","text":"b"})"), "did you mean \"image\"?"));
  EXPECT_FALSE(item_of(R"({"text":"a","page":3})").unusable);
  const PairItem odd = item_of(R"({"text":"a","licence":"x"})");
  EXPECT_FALSE(odd.unusable);
  EXPECT_EQ(odd.notes, std::vector<std::string>{"unknown key \"licence\" is passed over"});
}

TEST(PairReader, BrokenLinesSayWhereAndTheOthersAreRead) {
  const std::vector<PairItem> items = items_of(
      "\xef\xbb\xbf{\"text\": \"a\"}\r\n\n{\"text\": \"b\",}\n{\"text\": \"c\"\n{\"text\": "
      "\"\xff\"}\n"
      "{\"text\": \"d\"}");
  ASSERT_EQ(items.size(), 5u);
  EXPECT_EQ(items[0].answer, "a");
  EXPECT_EQ(items[1].line, 3);
  EXPECT_EQ(items[1].unusable.kind, "broken JSON");
  EXPECT_NE(items[1].unusable.reason.find("column 14: syntax error"), std::string::npos)
      << items[1].unusable.reason;
  EXPECT_EQ(items[2].line, 4);
  EXPECT_NE(items[2].unusable.reason.find("column 13: "), std::string::npos)
      << items[2].unusable.reason;
  EXPECT_EQ(items[3].unusable.kind, "broken JSON");
  EXPECT_EQ(items[4].answer, "d");
}

TEST(PairReader, ListsAreReadAnElementAtATime) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.json";
  write_file(path,
             " [\n {\"text\": \"a ], \\\" [\",\n  \"id\": [1, {\"x\": 2}]},\n{\"text\": b},"
             "\n\n{\"text\": \"c\"}\n]\n");
  std::vector<PairItem> items = read_items(path);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].answer, "a ], \" [");
  EXPECT_EQ(items[0].line, 2);
  EXPECT_EQ(items[1].line, 4);
  EXPECT_NE(items[1].unusable.reason.find("line 4, column 10"), std::string::npos)
      << items[1].unusable.reason;
  EXPECT_EQ(items[2].line, 6);
  EXPECT_EQ(items[2].answer, "c");
  write_file(path, "[]");
  EXPECT_TRUE(read_items(path).empty());
  write_file(path, "[{\"text\": \"a\"}, {\"text\": \"b\"");
  items = read_items(path);
  ASSERT_EQ(items.size(), 2u);
  EXPECT_NE(items[1].unusable.reason.find("must end with ]"), std::string::npos);
  write_file(path, "[" + std::string(200, '[') + std::string(200, ']') + "]");
  items = read_items(path);
  ASSERT_EQ(items.size(), 1u);
  EXPECT_EQ(items[0].unusable.reason, "must nest at most 64 deep");
}

TEST(PairReader, FoldersPairFilesOfOneName) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() / "b");
  for (const char* name :
       {"one.png", "one.md", "one.txt", "two.JPG", "three.pdf", "three.txt", "four.png", "four.jpg",
        "four.md", "readme.md", ".hidden.png", "b/five.jpeg", "b/five.txt"})
    write_file(folder.path() / name, "x");
  std::vector<std::string> told;
  for (const PairItem& item : read_items(folder.path()))
    told.push_back(item.unusable ? item.name + ": " + item.unusable.reason
                                 : item.name + " " + item.text_file.filename().string());
  EXPECT_EQ(
      told,
      (std::vector<std::string>{
          "four.jpg: four.png lies beside it, too: one of a name must remain", "one.png one.md",
          "readme.md: no .png, .jpg or .pdf of its name lies beside it", "three.pdf three.txt",
          "two.JPG: no .md or .txt of its name lies beside it", "b/five.jpeg five.txt"}));
  EXPECT_TRUE(throws_with([&] { read_items(folder.path(), {"key", ""}); }, {"no key \"key\""}));
}

TEST(PairReader, WhatIsNoInputIsRefused) {
  const TemporaryFolder folder;
  EXPECT_TRUE(throws_with([&] { read_items(folder.path() / "none"); }, {"none", "got nothing"}));
  write_file(folder.path() / "empty", "");
  EXPECT_TRUE(throws_with([&] { read_items(folder.path() / "empty"); }, {"must have records"}));
  write_png(make_image(4, 4), folder.path() / "a.png");
  EXPECT_TRUE(throws_with([&] { read_items(folder.path() / "a.png"); }, {"got a PNG image"}));
}

}  // namespace
}  // namespace lectern
