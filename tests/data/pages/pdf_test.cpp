#include "data/pages/pdf.h"

#include "core/io/process.h"
#include "data/pages/pdf_text.h"
#include "data/pages/quality.h"
#include "tests/data/test_pdf.h"
#include "tests/testing.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace lectern {
namespace {

using testing::make_pdf;
using testing::pdf_paragraph;
using testing::pdf_text;
using testing::TemporaryFolder;
using testing::throws_with;
using testing::write_bytes;

/// Dark pixels of the picture that lie in no box (grown by `margin`), and boxes without any.
struct InkReport {
  std::int64_t ink = 0, outside = 0, empty_boxes = 0;
};

InkReport compare_ink(const Image& image, const Page& page, double margin) {
  InkReport report;
  std::vector<Word> words = page.rotated_words;
  for (const Line& line : page.lines)
    words.insert(words.end(), line.words.begin(), line.words.end());
  std::vector<std::int64_t> found(words.size(), 0);
  for (std::int64_t y = 0; y < image.height; ++y)
    for (std::int64_t x = 0; x < image.width; ++x) {
      if (image.row(y)[x * 3] > 100) continue;
      ++report.ink;
      bool inside = false;
      for (std::size_t i = 0; i < words.size(); ++i) {
        const Box& box = words[i].box;
        if (x + 0.5 > box.left - margin && x + 0.5 < box.right + margin &&
            y + 0.5 > box.top - margin && y + 0.5 < box.bottom + margin) {
          inside = true;
          ++found[i];
        }
      }
      report.outside += !inside;
    }
  report.empty_boxes = std::count(found.begin(), found.end(), 0);
  return report;
}

std::string words_of(const Page& page) {
  std::string out;
  for (const Line& line : page.lines) {
    for (const Word& word : line.words) out += word.text + " ";
    out.back() = '|';
  }
  return out;
}

TEST(Pdf, BoxesSitOnTheInk) {
  TemporaryFolder folder;
  const std::string text = pdf_paragraph("Hello World");
  // Plain; a page turned by a quarter and its content turned back; a crop box that moves the
  // origin.
  const std::string turned = "q 0 1 -1 0 762 0 cm\n" + text + "Q\n";
  const auto file = write_bytes(
      folder.path() / "a b;$(x).pdf",
      make_pdf({{text, ""}, {turned, "/Rotate 90"}, {text, "/CropBox [50 300 500 760]"}}));
  EXPECT_EQ(read_pdf_info(file).pages, 3);
  for (const double dpi : {72.0, 100.0, 133.0}) {
    const std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 3, dpi);
    std::vector<Page> pages = read_pdf_text(file, 1, 3, dpi);
    ASSERT_EQ(pictures.size(), 3u);
    ASSERT_EQ(pages.size(), 3u);
    const std::pair<double, double> points[] = {{612, 792}, {792, 612}, {450, 460}};
    for (int i = 0; i < 3; ++i) {
      const Image& image = pictures[i].image;
      EXPECT_EQ(pages[i].number, i + 1);
      EXPECT_EQ(pictures[i].number, i + 1);
      EXPECT_EQ(pictures[i].error + pictures[i].note, "");
      EXPECT_NEAR(image.width, points[i].first * dpi / 72, 1.01);
      EXPECT_NEAR(image.height, points[i].second * dpi / 72, 1.01);
      fit_to_image(pages[i], image.width, image.height);
      EXPECT_TRUE(words_of(pages[i]).starts_with("Hello World|line 1 of a paragraph with some"))
          << words_of(pages[i]);
      const InkReport report = compare_ink(image, pages[i], 1.5);
      EXPECT_GT(report.ink, 500);
      EXPECT_EQ(report.outside, 0) << "page " << i + 1 << " at " << dpi;
      EXPECT_EQ(report.empty_boxes, 0) << "page " << i + 1 << " at " << dpi;
      EXPECT_EQ(reason_to_drop(pages[i], image), "");
    }
  }
  // The word starts 72 points from the left; its baseline is 720 above the foot of 792.
  const Page page = read_pdf_text(file, 1, 1, 144)[0];
  EXPECT_EQ(page.lines[0].words[0].text, "Hello");
  EXPECT_NEAR(page.lines[0].words[0].box.left, 144, 3);
  EXPECT_LT(page.lines[0].words[0].box.top, 144 - 20);
  EXPECT_NEAR(page.lines[0].words[0].box.bottom, 144, 12);
}

TEST(Pdf, RotatedWordsAreSetApart) {
  TemporaryFolder folder;
  const std::string sideways = "BT /F1 12 Tf 0 1 -1 0 40 300 Tm (arXiv sidebar text) Tj ET\n";
  const auto file = write_bytes(folder.path() / "a.pdf",
                                make_pdf({{pdf_paragraph("Title here") + sideways, ""}}));
  const Page page = read_pdf_text(file, 1, 1, 100)[0];
  EXPECT_EQ(words_of(page).find("sidebar"), std::string::npos);
  ASSERT_EQ(page.rotated_words.size(), 3u);
  EXPECT_EQ(page.lines.size(), 6u);
  EXPECT_EQ(reason_to_drop(page), "");
  PageQuality strict;
  strict.max_rotated_fraction = 0.05;
  EXPECT_TRUE(reason_to_drop(page, strict).starts_with("rotated text: 16 of"));
}

TEST(Pdf, InvisibleTextIsFound) {
  TemporaryFolder folder;
  const auto file = write_bytes(
      folder.path() / "a.pdf",
      make_pdf({{"3 Tr " + pdf_paragraph("Hidden"), ""}, {"1 g " + pdf_paragraph("White"), ""}}));
  const std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 2, 100);
  std::vector<Page> pages = read_pdf_text(file, 1, 2, 100);
  for (int i = 0; i < 2; ++i) {
    const Image& image = pictures[i].image;
    fit_to_image(pages[i], image.width, image.height);
    EXPECT_EQ(reason_to_drop(pages[i]), "");
    EXPECT_EQ(reason_to_drop(pages[i], image),
              "text that the picture does not show: 41 of 41 words");
  }
}

TEST(Pdf, HostileFilesAreErrorsNamingThem) {
  TemporaryFolder folder;
  const std::string good = make_pdf({{pdf_paragraph("Good"), ""}});
  std::string garbage(5000, '\0');
  for (std::size_t i = 0; i < garbage.size(); ++i) garbage[i] = static_cast<char>(i * 7919 >> 3);
  for (const auto& [name, bytes] : {std::pair<std::string, std::string>{"zero.pdf", ""},
                                    {"garbage.pdf", garbage},
                                    {"cut.pdf", good.substr(0, 60)},
                                    {"liar.pdf", "%PDF-1.4\n" + garbage}}) {
    const auto file = write_bytes(folder.path() / name, bytes);
    EXPECT_TRUE(throws_with([&] { read_pdf_info(file); }, {name, "pdfinfo"})) << name;
    EXPECT_TRUE(throws_with([&] { read_pdf_text(file, 1, 1, 100); }, {name, "pdftotext"}));
    EXPECT_TRUE(throws_with([&] { render_pdf_pages(file, 1, 1, 100); }, {name, "pdfinfo"}));
  }
  EXPECT_TRUE(throws_with([&] { read_pdf_info(folder.path() / "none.pdf"); }, {"none.pdf"}));
  const auto file = write_bytes(folder.path() / "good.pdf", good);
  EXPECT_TRUE(throws_with([&] { read_pdf_text(file, 7, 9, 100); }, {"good.pdf", "pdftotext"}));
  EXPECT_TRUE(throws_with([&] { read_pdf_text(file, 1, 3, 100); }, {"good.pdf", "1 pages for"}));
  EXPECT_TRUE(throws_with([&] { render_pdf_pages(file, 2, 1, 100); }, {"first <= last"}));
  EXPECT_TRUE(throws_with([&] { render_pdf_pages(file, 1, 1, 0); }, {"dots per inch"}));
  EXPECT_TRUE(throws_with([&] { render_pdf_pages(file, 7, 9, 100); }, {"good.pdf", "pdfinfo"}));
}

TEST(Pdf, AWrongCrossReferenceTableIsRebuilt) {
  TemporaryFolder folder;
  std::string bytes = make_pdf({{pdf_paragraph("Rebuilt"), ""}});
  const std::size_t at = bytes.rfind("startxref\n") + 10;
  bytes.replace(at, bytes.find('\n', at) - at, "7");
  const auto file = write_bytes(folder.path() / "xref.pdf", bytes);
  EXPECT_EQ(read_pdf_info(file).pages, 1);
  EXPECT_TRUE(words_of(read_pdf_text(file, 1, 1, 100)[0]).starts_with("Rebuilt|line 1"));
}

TEST(Pdf, WhatTheDocumentSaysOfItselfChangesNothing) {
  TemporaryFolder folder;
  std::string info;
  for (const char* key :
       {"Title", "Author", "Subject", "Keywords", "Creator", "Producer", "CreationDate", "ModDate",
        "Trapped", "GTS_PDFA1Version", "GTS_PDFXVersion", "GTS_PDFEVersion", "GTS_PDFUA1Version"})
    info += fmt::format(
        "/{} (Minutes\\nPages: 1 to 3\\nPages:           1\\nEncrypted:       yes\\n"
        "Page    1 size:  90000 x 90000 pts\\nPage    2 size:  0 x 0 pts\\n) ",
        key);
  const auto file = write_bytes(
      folder.path() / "binder.pdf",
      make_pdf({{pdf_paragraph("1"), ""}, {pdf_paragraph("2"), ""}, {pdf_paragraph("3"), ""}},
               info));
  EXPECT_EQ(read_pdf_info(file).pages, 3);
  const std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 3, 20);
  ASSERT_EQ(pictures.size(), 3u);
  for (const PdfPicture& picture : pictures) EXPECT_EQ(picture.error, "");
}

TEST(Pdf, APasswordIsAskedFor) {
  TemporaryFolder folder;
  std::string bytes = make_pdf({{pdf_paragraph("Secret"), ""}});
  const std::string key(64, '5');  // hexadecimal, of no password
  bytes.insert(bytes.rfind("/Root"),
               fmt::format("/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <{}> /U <{}> >> "
                           "/ID [<00> <00>] ",
                           key, key));
  const auto file = write_bytes(folder.path() / "secret.pdf", bytes);
  EXPECT_TRUE(throws_with([&] { read_pdf_info(file); }, {"secret.pdf", "password"}));
  EXPECT_TRUE(throws_with([&] { render_pdf_pages(file, 1, 1, 20); }, {"secret.pdf", "password"}));
}

TEST(Pdf, APageThatIsNotThereIsNotTheOneBeforeIt) {
  TemporaryFolder folder;
  std::string bytes = make_pdf({{pdf_paragraph("One"), ""}, {pdf_paragraph("Two"), ""}});
  const std::size_t at = bytes.find("/Count 2");
  bytes[at + 7] = '4';
  const auto file = write_bytes(folder.path() / "boast.pdf", bytes);
  EXPECT_EQ(read_pdf_info(file).pages, 4);
  const std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 4, 20);
  ASSERT_EQ(pictures.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pictures[i].number, static_cast<std::int64_t>(i) + 1);
    EXPECT_EQ(pictures[i].error.empty(), i < 2) << i;
    EXPECT_EQ(pictures[i].image.empty(), i >= 2) << i;
  }
  EXPECT_EQ(pictures[2].error, "poppler cannot find this page in the file");
}

TEST(Pdf, APageThatIsTooLargeIsRefusedAlone) {
  TemporaryFolder folder;
  const std::string text = pdf_paragraph("Text");
  const auto file = write_bytes(
      folder.path() / "sheets.pdf",
      make_pdf({{text, ""}, {text, "", 14400, 14400}, {text, ""}, {text, ""}, {text, ""}}));
  std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 5, 100);
  ASSERT_EQ(pictures.size(), 5u);
  for (const PdfPicture& picture : pictures) EXPECT_EQ(picture.error.empty(), picture.number != 2);
  EXPECT_EQ(pictures[1].error,
            "too large: 20000 x 20000 pixels at 100 dots per inch, at most 67108864 pixels");
  // Pages that are too much together come in several calls, each of them at least one.
  PdfLimits limits;
  limits.max_pixels_at_once = 2 * 850 * 1100;
  std::vector<std::int64_t> numbers, calls;
  for (std::int64_t next = 1; next <= 5; next = numbers.back() + 1) {
    pictures = render_pdf_pages(file, next, 5, 100, limits);
    calls.push_back(static_cast<std::int64_t>(pictures.size()));
    for (const PdfPicture& picture : pictures) numbers.push_back(picture.number);
  }
  EXPECT_EQ(numbers, (std::vector<std::int64_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(calls, (std::vector<std::int64_t>{3, 2}));
  limits.max_pixels_at_once = 1;
  EXPECT_EQ(render_pdf_pages(file, 3, 5, 100, limits).size(), 1u);
}

TEST(Pdf, ComplaintsAreToldPageByPage) {
  TemporaryFolder folder;
  const std::string good = pdf_paragraph("Good");
  std::string many;
  for (int i = 0; i < 4000; ++i) many += fmt::format("nonsense{} ", i);
  const auto file = write_bytes(
      folder.path() / "damaged.pdf",
      make_pdf({{good, ""}, {good + "gibberish ", ""}, {good, ""}, {many, ""}, {"rubbish ", ""}}));
  const std::vector<PdfPicture> pictures = render_pdf_pages(file, 1, 5, 20);
  ASSERT_EQ(pictures.size(), 5u);
  for (const PdfPicture& picture : pictures) {
    EXPECT_EQ(picture.error, "");
    EXPECT_GT(picture.image.width, 0);
  }
  EXPECT_EQ(pictures[0].note, "");
  EXPECT_NE(pictures[1].note.find("gibberish"), std::string::npos) << pictures[1].note;
  EXPECT_EQ(pictures[2].note, "");
  EXPECT_NE(pictures[3].note.find(" more)"), std::string::npos) << pictures[3].note;
  EXPECT_NE(pictures[4].note.find("rubbish"), std::string::npos) << pictures[4].note;
  EXPECT_EQ(read_pdf_info(file).note, "");

  // What is wrong with the file is told of the file, not of each page.
  std::string bytes = make_pdf({{good, ""}});
  bytes[1] = 'X';
  const auto broken = write_bytes(folder.path() / "broken.pdf", bytes);
  EXPECT_NE(read_pdf_info(broken).note, "");
  EXPECT_EQ(render_pdf_pages(broken, 1, 1, 20)[0].note, "");
}

std::string layout(const std::string& body) {
  return "<html><head><title>&lt;doc&gt;</title></head><body>\n<doc>\n<page width=\"100\" "
         "height=\"50\">\n" +
         body + "</page>\n</doc>\n</body></html>";
}

std::string line_of(const std::string& words) {
  return "<flow><block xMin=\"0\" yMin=\"0\" xMax=\"1\" yMax=\"1\"><line xMin=\"1\" yMin=\"2\" "
         "xMax=\"90\" yMax=\"12\">" +
         words + "</line></block></flow>\n";
}

std::string word_of(const std::string& text, double left = 1, double right = 30) {
  return fmt::format("<word xMin=\"{}\" yMin=\"2\" xMax=\"{}\" yMax=\"12\">{}</word>\n", left,
                     right, text);
}

TEST(PdfText, EntitiesLigaturesAndComposition) {
  std::vector<Page> pages = parse_bbox_layout(
      layout(line_of(word_of("a&lt;b&amp;&quot;c&#39;&#x41;&unknown;&", 1, 80)) +
             line_of(word_of("e\xef\xac\x83"
                             "cient",
                             1, 50) +                               // ffi ligature
                     word_of("cafe\xcc\x81", 52, 70) +              // e + combining acute
                     word_of("co\xc2\xad", 72, 90)) +               // soft hyphen
             line_of(word_of("\xe2\xbd\x87\xe6\x9c\xac", 1, 50))),  // Kangxi radical sun, "book"
      144, "t");
  ASSERT_EQ(pages.size(), 1u);
  fit_to_image(pages[0], 200, 100);
  EXPECT_EQ(pages[0].text,
            "a<b&\"c'A&unknown;&\n\nefficient caf\xc3\xa9 co-\n\n\xe6\x97\xa5\xe6\x9c\xac");
  EXPECT_EQ(pages[0].lines[1].words[0].box.right, 100);  // 50 points at 144 dpi
  EXPECT_EQ(pages[0].dots_per_inch, 144);
}

TEST(PdfText, CharactersWithoutInkAreLeftOut) {
  const auto read = [](const std::string& word) {
    std::vector<Page> pages = parse_bbox_layout(layout(line_of(word_of(word))), 72, "t");
    fit_to_image(pages[0], 100, 50);
    return pages[0].text;
  };
  for (const char* hidden :
       {"\u200b", "\ufeff", "\u2060", "\u200e", "\u200f",     "\u202a",    "\u202e",
        "\u2066", "\u2069", "\u061c", "\u2062", "\u034f",     "\u180e",    "\u3164",
        "\ufe0f", "\ufff9", "\u200c", "\u200d", "\U000e0041", "\U000e0100"}) {
    EXPECT_EQ(read(fmt::format("ze{}ro", hidden)), "zero") << hidden;
    EXPECT_EQ(read(fmt::format("{}zero{}", hidden, hidden)), "zero") << hidden;
    EXPECT_EQ(read(hidden), "") << hidden;
  }
  // Joiners that decide how the letters beside them look.
  const std::string half = "\u0915\u094d\u200d\u0937", open = "\u0915\u094d\u200c\u0937";
  EXPECT_EQ(read(half), half);
  EXPECT_EQ(read(open), open);
  EXPECT_EQ(read("\u0915\u200d\u0937"), "\u0915\u0937");
  const std::string family = "\U0001f469\u200d\U0001f466";
  EXPECT_EQ(read(family), family);
  EXPECT_EQ(read("\u00a0a\u00a0b\u2028"), "a b");
  EXPECT_EQ(read("co\u00adope\u00ad"), "co\u00adope-");  // whether one is printed, ink will tell
}

std::string word_at(const std::string& text, double left, double top) {
  return fmt::format("<word xMin=\"{}\" yMin=\"{}\" xMax=\"{}\" yMax=\"{}\">{}</word>\n", left, top,
                     left + 18, top + 8, text);
}

std::string line_at(double top, const std::string& words) {
  return fmt::format("<line xMin=\"1\" yMin=\"{}\" xMax=\"90\" yMax=\"{}\">{}</line>", top, top + 8,
                     words);
}

TEST(PdfText, WordsThatStandOnTheirHeadsAreSetApart) {
  const std::string upright = "<block>" + line_at(0, word_at("up", 1, 0)) +
                              line_at(10, word_at("one", 1, 10) + word_at("two", 30, 10)) +
                              "</block>";
  const std::string turned =
      "<block>" + line_at(40, word_at("three", 60, 40) + word_at("four", 30, 40)) +
      line_at(30, word_at("five", 60, 30)) + "</block><block>" +
      line_at(28, word_at("six", 60, 28)) + line_at(18, word_at("seven", 60, 18)) + "</block>";
  const Page both = parse_bbox_layout(layout(upright + turned), 72, "t")[0];
  EXPECT_EQ(words_of(both), "up|one two|");
  EXPECT_EQ(both.rotated_words.size(), 5u);
  // A line that nothing tells about goes with the page.
  const std::string alone = "<block>" + line_at(1, word_at("alone", 60, 1)) + "</block>";
  EXPECT_EQ(parse_bbox_layout(layout(turned + alone), 72, "t")[0].lines.size(), 0u);
  EXPECT_EQ(parse_bbox_layout(layout(upright + alone), 72, "t")[0].lines.size(), 3u);
}

TEST(PdfText, DamagedOutputIsAnErrorOrLeftOut) {
  const std::string whole = layout(line_of(word_of("word")));
  const std::size_t begin = whole.find("<doc>\n"), end = whole.find("</doc>");
  for (std::size_t size = 0; size < end + 6; ++size) {
    if (size < begin + 5)
      EXPECT_TRUE(throws_with([&] { parse_bbox_layout(whole.substr(0, size), 72, "x.pdf"); },
                              {"x.pdf", "no <doc>"}));
    else
      EXPECT_TRUE(throws_with([&] { parse_bbox_layout(whole.substr(0, size), 72, "x.pdf"); },
                              {"x.pdf", "cut off"}));
  }
  // A word without numbers is left out; boxes turned inside out or off the page go with the fit.
  std::vector<Page> pages = parse_bbox_layout(
      layout(line_of("<word xMin=\"nan\" yMin=\"2\" xMax=\"3\" yMax=\"4\">no</word>" +
                     word_of("back", 30, 1) + word_of("off", 5000, 6000) + word_of("yes"))),
      72, "x.pdf");
  fit_to_image(pages[0], 100, 50);
  EXPECT_EQ(pages[0].text, "yes");
  EXPECT_TRUE(throws_with([] { parse_bbox_layout("<doc><line></line></doc>", 72, "x.pdf"); },
                          {"outside of a page"}));
}

TEST(Process, OutputErrorsAndStatus) {
  const ProcessResult result =
      run_process({"sh", "-c", "printf out; printf err >&2; exit 3"}, "subject");
  EXPECT_EQ(result.output, "out");
  EXPECT_EQ(result.errors, "err");
  EXPECT_EQ(result.exit_status, 3);
  EXPECT_TRUE(throws_with(
      [] {
        run_process_or_fail({"sh", "-c", "echo broken >&2; exit 3"}, "a.pdf");
      },
      {"a.pdf", "sh", "exit status 3", "broken"}));
  // Arguments are not read by a shell, stdin is empty.
  EXPECT_EQ(run_process({"printf", "%s", "$(id); \"x\" *"}, "x").output, "$(id); \"x\" *");
  EXPECT_EQ(run_process({"cat"}, "x").output, "");
}

TEST(Process, Limits) {
  ProcessLimits limits;
  limits.seconds = 0.3;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(throws_with(
      [&] {
        run_process({"sleep", "60"}, "a.pdf", limits);
      },
      {"a.pdf", "sleep", "limit of 0.3 s"}));
  // Also when the child has closed its output and goes on.
  EXPECT_TRUE(throws_with(
      [&] {
        run_process({"sh", "-c", "exec sleep 60 >&- 2>&-"}, "a.pdf", limits);
      },
      {"a.pdf", "limit of 0.3 s"}));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  limits = {};
  limits.output_bytes = 1000;
  EXPECT_TRUE(throws_with([&] { run_process({"yes"}, "a.pdf", limits); },
                          {"a.pdf", "yes", "more than 1000 bytes"}));
  EXPECT_EQ(run_process({"head", "-c", "1000", "/dev/zero"}, "x", limits).output.size(), 1000u);
  limits.memory_bytes = std::uint64_t{512} << 20;
  EXPECT_EQ(run_process({"sh", "-c", "ulimit -v"}, "x", limits).output, "524288\n");
}

TEST(Process, CannotStartOrDies) {
  EXPECT_TRUE(throws_with([] { run_process({"no-such-program-here"}, "a.pdf"); },
                          {"no-such-program-here", "not found in PATH"}));
  EXPECT_TRUE(throws_with([] { run_process({"/etc/passwd"}, "a.pdf"); },
                          {"a.pdf", "/etc/passwd", "cannot be started"}));
  EXPECT_TRUE(throws_with(
      [] {
        run_process({"sh", "-c", "kill -SEGV $$"}, "a.pdf");
      },
      {"a.pdf", "sh", "signal 11 (SEGV)"}));
  EXPECT_TRUE(throws_with([] { run_process({}, "a.pdf"); }, {"argv must not be empty"}));
}

}  // namespace
}  // namespace lectern
