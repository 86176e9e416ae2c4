// Folders that cannot be written, a working directory that has gone, a file in the way: every
// command says so in one line, and what only reads goes on reading.
#include "data/images/image.h"
#include "recipes/checkpoint/model_folder.h"
#include "tests/data/test_pdf.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/machine/small_disk.h"
#include "tests/recipes/tiny_run.h"

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::Child;
using testing::Finished;
using testing::set;
using testing::SmallDisk;
using testing::TinyData;
using testing::told;

using Words = std::vector<std::string>;

/// What each command that writes needs, made once.
class Unwritable : public ::testing::Test {
 protected:
  Unwritable() {
    fs::create_directories(model());
    save_model(
        *testing::make_model(parse_model_config(testing::tiny_config(144, 256), "config"), 1),
        model());
    testing::tiny_tokenizer().save(model() / "tokenizer.json");
    write_png(testing::synthetic_page("doc", 1, 1, 2).image, picture());
    write_file(text(), "low lower lowest new newer newest\n");
    testing::write_bytes(pdf(), testing::make_pdf({{testing::pdf_paragraph("Title", 12)}}));
    const Finished pages =
        run({"data", "pages", "--dpi", "40", "--out", input("pages"), "--pdf", pdf().string()});
    EXPECT_EQ(pages.status, 0) << pages.errors;
  }

  std::string input(const std::string& name) const { return (data_.folder() / name).string(); }
  fs::path model() const { return input("model"); }
  fs::path picture() const { return input("page.png"); }
  fs::path text() const { return input("words.txt"); }
  fs::path pdf() const { return input("a.pdf"); }

  static Finished run(const Words& words, const Words& launcher = {}) {
    Child child(words, "", launcher);
    const int status = child.wait();
    return {status, child.out(), child.errors()};
  }

  /// Every command that writes, into the folder `to`.
  std::vector<Words> writers(const fs::path& to) const {
    const auto at = [&](const char* name) { return (to / name).string(); };
    return {
        {"train", data_.recipe_file("run").string(), "--set", set("run_dir", to / "run")},
        {"data", "pages", "--out", at("pages"), "--pdf", pdf()},
        {"data", "shards", "--pages", input("pages"), "--tokenizer", data_.tokenizer(), "--out",
         at("shards")},
        {"data", "synthetic", "--text", text(), "--count", "1", "--out", at("drawn")},
        {"data", "synthetic", "--text", text(), "--count", "1", "--contact-sheet", at("s.png")},
        {"data", "segments", "--pages", input("pages"), "--draw", at("segments")},
        {"tokenizer", "train", "--text", text(), "--vocab", "280", "--out", at("t.json")},
        {"eval", "--checkpoint", model(), "--shards", data_.shards(), "--level", "word",
         "--samples", "1", "--max-tokens", "1", "--out", at("eval")},
        {"ocr", "--checkpoint", model(), "--max-tokens", "1", "--out", at("read"), picture()},
        {"export", "--checkpoint", model(), "--format", "hf", "--out", at("hf")},
        {"score", "--pred", input("texts"), "--gt", input("texts"), "--out", at("scores.json")},
    };
  }
  void make_texts() const {
    fs::create_directories(input("texts"));
    write_file(input("texts") + "/a.txt", "words");
  }

  TinyData data_;
};

TEST_F(Unwritable, AReadOnlyFolderIsNamed) {
  SmallDisk disk;
  if (!disk.why_not().empty()) GTEST_SKIP() << disk.why_not();
  make_texts();
  disk.set_read_only(true);
  for (const Words& words : writers(disk.path())) {
    const Finished refused = run(words);
    EXPECT_TRUE(told(refused, "Read-only file system")) << words[0] << " " << words[1];
    EXPECT_NE(refused.errors.find(disk.path().string()), std::string::npos) << refused.errors;
  }
  disk.set_read_only(false);
  EXPECT_TRUE(disk.files().empty());
}

TEST_F(Unwritable, AFileInTheWayOfAFolderIsNamed) {
  make_texts();
  write_file(input("file"), "x");
  for (const Words& words : writers(input("file"))) {
    const Finished refused = run(words);
    EXPECT_TRUE(told(refused, input("file"))) << words[0] << " " << words[1];
  }
  EXPECT_EQ(read_file(input("file")), "x");
}

TEST_F(Unwritable, AReadOnlyRunFolderCanBeReadAndExported) {
  SmallDisk disk;
  if (!disk.why_not().empty()) GTEST_SKIP() << disk.why_not();
  const fs::path run_dir = disk.path() / "run";
  const Words train = {"train", data_.recipe_file("run").string(), "--set",
                       set("run_dir", run_dir)};
  ASSERT_EQ(run(train).status, 0);
  const auto before = disk.files();
  disk.set_read_only(true);
  for (const Words& words : std::vector<Words>{
           {"ocr", "--checkpoint", run_dir, "--max-tokens", "1", picture()},
           {"eval", "--checkpoint", run_dir, "--shards", data_.shards(), "--level", "word",
            "--samples", "1", "--max-tokens", "1", "--out", input("eval")},
           {"export", "--checkpoint", run_dir, "--format", "lectern", "--out", input("own")},
           {"train", data_.recipe_file("next").string(), "--set", set("model.init", run_dir),
            "--set", "steps=1"}}) {
    const Finished read = run(words);
    EXPECT_EQ(read.status, 0) << words[0] << ": " << read.errors;
  }
  Words more = train;
  more.insert(more.end(), {"--set", "steps=6", "--resume"});
  EXPECT_TRUE(told(run(more), "Read-only file system"));
  EXPECT_EQ(disk.files(), before);
}

/// With absolute paths nothing needs the working directory; with relative ones the command says
/// what it could not find or make.
TEST_F(Unwritable, AWorkingDirectoryThatHasGone) {
  make_texts();
  const Words gone = {"sh", "-c", "mkdir $0 && cd $0 && rmdir $0 && exec \"$@\"", input("gone")};
  fs::create_directories(input("out"));
  for (const Words& words : writers(input("out"))) {
    const Finished done = run(words, gone);
    EXPECT_EQ(done.status, 0) << words[0] << " " << words[1] << ": " << done.errors;
  }
  for (const Words& words : writers("")) {
    const Finished refused = run(words, gone);
    EXPECT_TRUE(told(refused, "No such file or directory")) << words[0] << " " << words[1];
  }
}

}  // namespace
}  // namespace lectern
