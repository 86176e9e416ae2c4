// `lectern ocr` with the files that people have: turned, dark, blank, damaged, badly named, in the
// way of each other, and too many to wait for.
#include "core/error.h"
#include "data/images/exif.h"
#include "data/text/utf8.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/read/input_files.h"
#include "recipes/read/page_reader.h"
#include "tests/data/drawn_sheet.h"
#include "tests/data/test_pdf.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/read/piece_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <numeric>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Child;
using testing::DrawnSheet;
using testing::Finished;
using testing::run_lectern;
using testing::write_bytes;

/// A tiny model that reads pages of drawn letters by pieces, and a page for it.
class OcrFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::save_piece_model(model());
    DrawnSheet sheet(300, 200);
    sheet.line("Some words that were set in type", 20, 40, 14, 0);
    sheet.line("and go on in a second line", 20, 58, 14, 0);
    image_ = sheet.image();
    write_png(image_, at("plain.png"));
  }

  fs::path model() const { return folder_.path() / "model"; }
  fs::path at(const std::string& name) const { return folder_.path() / name; }
  fs::path out() const { return folder_.path() / "out"; }
  std::string copy(const std::string& name) const {
    fs::copy_file(at("plain.png"), at(name), fs::copy_options::overwrite_existing);
    return at(name).string();
  }
  std::vector<std::string> words(std::vector<std::string> more) const {
    more.insert(more.begin(),
                {"ocr", "--checkpoint", model().string(), "--max-tokens", "3", "--threads", "1"});
    return more;
  }
  Finished ocr(std::vector<std::string> more) const { return run_lectern(words(std::move(more))); }
  /// Entry of the only file.
  json read(const fs::path& file, int status = 0) const {
    const Finished run = ocr({"--json", file.string()});
    EXPECT_EQ(run.status, status) << run.errors;
    const json out = json::parse(run.out);
    EXPECT_EQ(out.size(), 1u);
    return out[0];
  }
  static bool says(const Finished& run, const std::string& what) {
    if (run.errors.find(what) != std::string::npos) return true;
    ADD_FAILURE() << "\"" << what << "\" is not in: " << run.errors;
    return false;
  }

  testing::TemporaryFolder folder_;
  Image image_;
};

Image inverse(Image image) {
  for (std::uint8_t& value : image.pixels) value = static_cast<std::uint8_t>(255 - value);
  return image;
}

/// The drawing with other colours for ink and paper.
Image coloured(const Image& drawing, const std::vector<int>& ink, const std::vector<int>& paper) {
  Image out = drawing;
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    const int light = drawing.pixels[i];
    out.pixels[i] =
        static_cast<std::uint8_t>((light * paper[i % 3] + (255 - light) * ink[i % 3]) / 255);
  }
  return out;
}

std::size_t word_count(const FoundText& found) {
  return std::accumulate(
      found.segments.lines.begin(), found.segments.lines.end(), std::size_t{0},
      [](std::size_t sum, const InkText& line) { return sum + line.words.size(); });
}

TEST_F(OcrFiles, DarkPagesAreReadAsTheirInverse) {
  write_png(inverse(image_), at("dark.png"));
  EXPECT_EQ(read(at("dark.png"))["pages"], read(at("plain.png"))["pages"]);
  const FoundText plain = find_dark_or_light_text(image_);
  EXPECT_EQ(plain.page.pixels, image_.pixels);
  const std::size_t words = word_count(plain);
  EXPECT_EQ(words, 14u);
  for (const auto& [ink, paper] :
       {std::pair<std::vector<int>, std::vector<int>>{{0, 255, 0}, {10, 10, 60}},
        {{255, 255, 0}, {90, 0, 0}},
        {{240, 240, 240}, {120, 120, 120}},
        {{255, 120, 120}, {0, 0, 0}}})
    EXPECT_EQ(word_count(find_dark_or_light_text(coloured(image_, ink, paper))), words) << ink[0];
  // A page on a dark table is no dark page.
  Image table = make_image(900, 700, 30);
  for (std::int64_t y = 0; y < image_.height; ++y)
    std::copy_n(image_.row(y), image_.width * 3, table.row(y + 250) + 300 * 3);
  const FoundText on_table = find_dark_or_light_text(table);
  EXPECT_EQ(on_table.page.pixels, table.pixels);
  EXPECT_EQ(find_dark_or_light_text(make_image(40, 30, 0)).segments.lines.size(), 0u);
}

TEST_F(OcrFiles, BlankPagesAreSaid) {
  write_png(make_image(200, 100), at("blank.png"));
  const json blank = read(at("blank.png"));
  EXPECT_EQ(blank["pages"], json::array({""}));
  EXPECT_EQ(blank["without_text"], json::array({1}));
  EXPECT_TRUE(says(ocr({at("blank.png").string()}), "blank.png: no text was found"));
  EXPECT_FALSE(read(at("plain.png")).contains("without_text"));
  const auto pdf = write_bytes(at("three.pdf"),
                               testing::make_pdf({{""}, {testing::pdf_paragraph("First")}, {""}}));
  EXPECT_EQ(read(pdf)["without_text"], json::array({1, 3}));
  EXPECT_TRUE(says(ocr({pdf.string()}), "three.pdf: no text was found on pages 1, 3"));
}

TEST_F(OcrFiles, NamesNeedNotBeUtf8) {
  const std::string name = "caf\xe9";
  const std::string odd = copy(name + ".png");
  const Finished run = ocr({"--json", at("plain.png").string(), odd});
  ASSERT_EQ(run.status, 0) << run.errors;
  const json both = json::parse(run.out);
  ASSERT_EQ(both.size(), 2u);
  EXPECT_EQ(both[1]["file"], at("caf\ufffd.png").string());
  EXPECT_EQ(both[0]["pages"], both[1]["pages"]);
  EXPECT_EQ(ocr({"--out", out().string(), odd}).status, 0);
  EXPECT_TRUE(fs::exists(out() / (name + ".md")));
  const Finished missing = ocr({"--json", odd + "x"});
  EXPECT_EQ(missing.status, 1);
  EXPECT_EQ(json::parse(missing.out)[0]["file"], at("caf\ufffd.pngx").string());
}

TEST_F(OcrFiles, OneOutputInTheWayIsOneError) {
  fs::create_directories(out() / "b.md");
  const std::vector<std::string> files = {copy("a.png"), copy("b.png"), copy("c.png")};
  const Finished run = ocr({"--out", out().string(), "--json", files[0], files[1], files[2]});
  EXPECT_EQ(run.status, 1);
  EXPECT_TRUE(fs::is_regular_file(out() / "a.md"));
  EXPECT_TRUE(fs::is_regular_file(out() / "c.md"));
  EXPECT_TRUE(fs::is_directory(out() / "b.md"));
  const json all = json::parse(run.out);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_FALSE(all[0].contains("error"));
  EXPECT_NE(all[1]["error"].get<std::string>().find("b.md"), std::string::npos);
  EXPECT_TRUE(says(run, "b.md must be a file, and is none"));
}

/// Found out only when it is written: the text is not lost.
TEST_F(OcrFiles, TextThatCannotBeWrittenGoesToStdout) {
  const std::string file = copy(std::string(250, 'n') + ".png");
  // Its stem fits into a name, the temporary name of its target does not.
  const Finished run = ocr({"--out", out().string(), file, copy("c.png")});
  EXPECT_EQ(run.status, 1);
  EXPECT_TRUE(says(run, "its text goes to stdout"));
  EXPECT_EQ(run.out, read_file(out() / "c.md"));
  EXPECT_EQ(std::distance(fs::directory_iterator(out()), {}), 1);
}

TEST_F(OcrFiles, AnOutFolderThatCannotBeMadeIsToldBeforeReading) {
  write_bytes(at("file"), "x");
  const Finished run = ocr({"--out", (at("file") / "out").string(), at("plain.png").string()});
  EXPECT_EQ(run.status, 1);
  EXPECT_TRUE(says(run, "--out: "));
  EXPECT_EQ(run.errors.find("tokens/s"), std::string::npos) << run.errors;
}

TEST_F(OcrFiles, WhatIsThereIsNotOverwritten) {
  const std::string a = copy("a.png"), b = copy("b.png");
  ASSERT_EQ(ocr({"--out", out().string(), a}).status, 0);
  const std::string whole = read_file(out() / "a.md");
  write_file(out() / "a.md", "corrected by hand");
  const Finished again = ocr({"--out", out().string(), a, b});
  EXPECT_EQ(again.status, 1);
  EXPECT_TRUE(says(again, "a.md is there already: --overwrite replaces it, --skip-existing"));
  EXPECT_EQ(read_file(out() / "a.md"), "corrected by hand");
  EXPECT_EQ(read_file(out() / "b.md"), whole);
  const Finished skipped = ocr({"--out", out().string(), "--skip-existing", "--json", a, b});
  EXPECT_EQ(skipped.status, 0) << skipped.errors;
  EXPECT_EQ(json::parse(skipped.out)[0]["skipped"], (out() / "a.md").string());
  EXPECT_EQ(read_file(out() / "a.md"), "corrected by hand");
  EXPECT_EQ(ocr({"--out", out().string(), "--overwrite", a}).status, 0);
  EXPECT_EQ(read_file(out() / "a.md"), whole);
  // What an interruption left is not finished, and is made anew.
  write_file(out() / "a.md", "x\n\n---\n\n<!-- lectern: stopped after page 1 of 3 -->\n");
  EXPECT_EQ(ocr({"--out", out().string(), "--skip-existing", a}).status, 0);
  EXPECT_EQ(read_file(out() / "a.md"), whole);
}

TEST_F(OcrFiles, FoldersGiveTheirPicturesAndPdfsInOrder) {
  const fs::path folder = at("scans");
  fs::create_directories(folder / "inner");
  for (const char* name : {"c.PNG", "a.png", "inner/z.png"})
    fs::copy_file(at("plain.png"), folder / name);
  write_bytes(folder / "b", testing::make_pdf({{testing::pdf_paragraph("First")}}));
  write_bytes(folder / "notes.txt", "no picture");
  write_bytes(folder / "broken.jpg", "no picture either");
  write_bytes(folder / ".hidden.png", "x");
  const Finished run = ocr({"--json", at("plain.png").string(), folder.string()});
  EXPECT_EQ(run.status, 1);
  const json all = json::parse(run.out);
  ASSERT_EQ(all.size(), 5u);
  EXPECT_EQ(all[1]["file"], (folder / "a.png").string());
  EXPECT_EQ(all[2]["file"], (folder / "b").string());
  EXPECT_EQ(all[2]["pages"].size(), 1u);
  EXPECT_TRUE(all[3].contains("error"));
  EXPECT_EQ(all[4]["file"], (folder / "c.PNG").string());
  EXPECT_TRUE(says(run, "scans: 4 pictures and PDFs; 1 other files and 1 folders"));
  fs::create_directories(at("empty"));
  const Finished empty = ocr({at("empty").string(), at("plain.png").string()});
  EXPECT_EQ(empty.status, 1);
  EXPECT_TRUE(says(empty, "empty: must be a PNG, JPEG or PDF, or a folder that has some"));
  EXPECT_FALSE(empty.out.empty());
}

TEST_F(OcrFiles, ContentSaysWhatAFileIs) {
  const std::string pdf = testing::make_pdf({{testing::pdf_paragraph("First")}});
  EXPECT_EQ(read(write_bytes(at("page.pdf"), pdf))["pages"],
            read(write_bytes(at("download"), pdf))["pages"]);
  EXPECT_EQ(read(copy("picture.pdf"))["pages"], read(at("plain.png"))["pages"]);
  EXPECT_TRUE(says(ocr({write_bytes(at("a.png"), "GIF89a....").string()}),
                   "a.png: must be a PNG, JPEG or PDF, got a GIF image"));
  EXPECT_TRUE(says(ocr({write_bytes(at("b.png"), "").string()}), "got an empty file"));
  EXPECT_TRUE(says(ocr({write_bytes(at("c"), "Dear Sir,").string()}), "got text"));
}

/// A page that cannot be drawn is named; the pages beside it are read as without it.
TEST_F(OcrFiles, BadPagesOfAPdfAreNamed) {
  const std::vector<testing::PdfPage> good = {{testing::pdf_paragraph("First")},
                                              {testing::pdf_paragraph("Third")}};
  const json want = read(write_bytes(at("good.pdf"), testing::make_pdf(good)))["pages"];
  const auto large = write_bytes(
      at("large.pdf"),
      testing::make_pdf({good[0], {testing::pdf_paragraph("Huge"), "", 14400, 14400}, good[1]}));
  const json got = read(large, 1);
  ASSERT_EQ(got["pages"].size(), 3u);
  EXPECT_EQ(got["pages"][0], want[0]);
  EXPECT_TRUE(got["pages"][1].is_null());
  EXPECT_EQ(got["pages"][2], want[1]);
  ASSERT_EQ(got["errors"].size(), 1u);
  EXPECT_EQ(got["errors"][0]["page"], 2);
  const Finished run = ocr({"--out", out().string(), large.string()});
  EXPECT_EQ(run.status, 1);
  EXPECT_TRUE(says(run, "large.pdf: page 2: too large"));
  EXPECT_NE(read_file(out() / "large.md").find("<!-- lectern: page 2 could not be read -->"),
            std::string::npos);
  // What poppler draws as white, with a complaint, is no blank page.
  const auto damaged = write_bytes(
      at("damaged.pdf"), testing::make_pdf({good[0], {"BT /F1 12 Tf (never closed"}, good[1]}));
  const json broken = read(damaged, 1);
  ASSERT_EQ(broken["errors"].size(), 1u) << broken;
  EXPECT_EQ(broken["errors"][0]["page"], 2);
  EXPECT_FALSE(broken.contains("without_text"));
  EXPECT_TRUE(says(ocr({damaged.string()}), "damaged.pdf: page 2: "));
}

/// Ctrl-C in the middle of a book: what was read is written, and what was not is said.
TEST_F(OcrFiles, AStopKeepsThePagesThatWereRead) {
  std::vector<testing::PdfPage> pages;
  for (int i = 0; i < 400; ++i) pages.push_back({testing::pdf_paragraph(fmt::format("No {}", i))});
  const auto book = write_bytes(at("book.pdf"), testing::make_pdf(pages));
  for (const int signal : {SIGINT, SIGTERM}) {
    fs::remove_all(out());
    Child child(words({"--out", out().string(), "--json", at("plain.png").string(), book.string(),
                       copy("after.png")}));
    const auto is_reading = [&] {
      try {
        return child.errors().find("book.pdf: 8 of 400 pages read") != std::string::npos;
      } catch (const IoError&) {  // it has not begun to write
        return false;
      }
    };
    ASSERT_TRUE(wait_until(child, is_reading)) << child.errors();
    child.send(signal);
    EXPECT_EQ(child.wait(), 128 + signal) << child.errors();
    const json all = json::parse(child.out());
    ASSERT_EQ(all.size(), 3u);
    EXPECT_FALSE(all[0].contains("error"));
    const std::size_t read = all[1]["pages"].size();
    ASSERT_GE(read, 8u);
    ASSERT_LT(read, 400u);
    const std::string far = fmt::format("book.pdf: stopped after {} of 400 pages", read);
    EXPECT_NE(all[1]["error"].get<std::string>().find(far), std::string::npos) << all[1]["error"];
    EXPECT_NE(child.errors().find(far), std::string::npos) << child.errors();
    EXPECT_NE(all[2]["error"].get<std::string>().find("after.png: stopped before"),
              std::string::npos);
    std::string want;
    for (const json& page : all[1]["pages"]) want += page.get<std::string>() + "\n\n---\n\n";
    EXPECT_EQ(read_file(out() / "book.md"),
              want + fmt::format("<!-- lectern: stopped after page {} of 400 -->\n", read));
    EXPECT_TRUE(fs::exists(out() / "plain.md"));
    EXPECT_FALSE(fs::exists(out() / "after.md"));
  }
}

TEST_F(OcrFiles, StderrThatCannotBeWrittenIsNoReasonToStop) {
  std::string command = testing::lectern_binary();
  for (const std::string& word : words({"--out", out().string(), at("plain.png").string()}))
    command += " " + word;
  EXPECT_EQ(WEXITSTATUS(std::system((command + " 2>/dev/full").c_str())), 0);
  EXPECT_TRUE(fs::exists(out() / "plain.md"));
}

TEST_F(OcrFiles, OddSizesAreReadOrNamed) {
  for (const auto& [width, height] : {std::pair{1, 1}, {1, 9000}, {9000, 1}}) {
    write_png(make_image(width, height, 0), at("odd.png"));
    for (const char* how : {"--pieces", "--whole-pages"}) {
      const Finished run = ocr({"--json", how, at("odd.png").string(), at("plain.png").string()});
      ASSERT_FALSE(run.out.empty()) << run.errors;
      EXPECT_TRUE(json::parse(run.out)[1].contains("pages")) << run.errors;
    }
  }
}

TEST_F(OcrFiles, TurnedPicturesAreReadUpright) {
  // Stored on its side; the PNG says so.
  const Image stored = upright(image_, 8);  // what 6 turns back
  ASSERT_EQ(upright(stored, 6).pixels, image_.pixels);
  std::string png = [&] {
    const auto bytes = encode_png(stored);
    return std::string(bytes.begin(), bytes.end());
  }();
  const std::string tiff("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 26);
  std::string chunk = std::string("\0\0\0\x1a", 4) + "eXIf" + tiff;
  // CRC-32 bit by bit, of type and data.
  std::uint32_t crc = 0xffffffffu;
  for (std::size_t i = 4; i < chunk.size(); ++i) {
    crc ^= static_cast<unsigned char>(chunk[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  crc = ~crc;
  for (int shift = 24; shift >= 0; shift -= 8) chunk += static_cast<char>(crc >> shift);
  png.insert(33, chunk);
  EXPECT_EQ(read(write_bytes(at("side.png"), png))["pages"], read(at("plain.png"))["pages"]);
}

}  // namespace
}  // namespace lectern
