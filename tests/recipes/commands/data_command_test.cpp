// `lectern data ...` and `lectern tokenizer train` as their users meet them.
#include "core/io/file.h"
#include "tests/data/test_pdf.h"
#include "tests/recipes/spawn.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <filesystem>

namespace lectern {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::run_lectern;
using testing::TemporaryFolder;

TEST(DataCommand, TokenizerTrainTakesFoldersOfText) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder.path() / "text");
  write_file(folder.path() / "text" / "b.txt", "low lower lowest\n");
  write_file(folder.path() / "text" / "a.txt", "new newer newest\n");
  write_file(folder.path() / "text" / "a.json", "{}");
  const auto train = [&](const std::vector<std::string>& text, const std::string& out) {
    std::vector<std::string> arguments = {
        "tokenizer", "train", "--vocab", "300", "--json", "--out", (folder.path() / out).string(),
        "--text"};
    arguments.insert(arguments.end(), text.begin(), text.end());
    return run_lectern(arguments);
  };
  const std::string text = (folder.path() / "text").string();
  const Finished of_folder = train({text}, "folder.json");
  EXPECT_EQ(of_folder.status, 0) << of_folder.errors;
  EXPECT_EQ(json::parse(of_folder.out)["files"], 2);
  EXPECT_EQ(train({text + "/a.txt", text + "/b.txt"}, "files.json").status, 0);
  EXPECT_EQ(read_file(folder.path() / "folder.json"), read_file(folder.path() / "files.json"));
  const Finished none = train({folder.path().string() + "/nothing"}, "none.json");
  EXPECT_EQ(none.status, 1);
  std::filesystem::create_directories(folder.path() / "nothing");
  const Finished empty = train({folder.path().string() + "/nothing"}, "none.json");
  EXPECT_EQ(empty.status, 1);
  EXPECT_NE(empty.errors.find("the folder must hold .txt files"), std::string::npos);
}

TEST(DataCommand, DataPagesSaysWhatItDropped) {
  const TemporaryFolder folder;
  const auto pdf = testing::write_bytes(
      folder.path() / "a.pdf",
      testing::make_pdf(
          {{testing::pdf_paragraph("Kept", 20) + "3 Tr " + testing::pdf_text("ghost", 72, 200), ""},
           {testing::pdf_text("few", 72, 700), ""},
           {testing::pdf_text("less", 72, 700), ""},
           {testing::pdf_paragraph("Turned"), "/Rotate 180"}}));
  const std::string out = (folder.path() / "pages").string();
  const std::string told = "3 pages of these documents are not used; all are listed in " + out +
                           "/pages.json:\n      2  almost no text\n         such as a page 2: "
                           "almost no text: 3 characters\n"
                           "      1  rotated text\n         such as a page 4: rotated text: ";
  for (const char* how : {"1 pages from 1 documents", "up to date"}) {
    const Finished done = run_lectern({"data", "pages", "--pdf", pdf.string(), "--out", out});
    EXPECT_EQ(done.status, 0) << done.errors;
    EXPECT_NE(done.out.find(how), std::string::npos) << done.out;
    EXPECT_NE(done.out.find(told), std::string::npos) << done.out;
    EXPECT_NE(done.out.find("a page 1: 1 words that the picture does not show were left out"),
              std::string::npos)
        << done.out;
  }
  const Finished as_json =
      run_lectern({"data", "pages", "--pdf", pdf.string(), "--out", out, "--json"});
  EXPECT_EQ(json::parse(as_json.out)["dropped_reasons"],
            (json{{"almost no text", 2}, {"rotated text", 1}}));
}

}  // namespace
}  // namespace lectern
