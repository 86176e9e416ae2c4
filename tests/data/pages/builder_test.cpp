#include "data/pages/builder.h"

#include "core/io/file.h"
#include "core/io/folder_lock.h"
#include "data/images/image.h"
#include "tests/data/test_pdf.h"
#include "tests/testing.h"

#include <zlib.h>

#include <algorithm>
#include <map>
#include <set>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::make_pdf;
using testing::pdf_paragraph;
using testing::pdf_text;
using testing::TemporaryFolder;
using testing::throws_with;
using testing::write_bytes;

class PageBuilder : public ::testing::Test {
 protected:
  fs::path pdf(const std::string& name, int pages, const std::string& title = "Title") {
    std::vector<testing::PdfPage> list;
    for (int i = 1; i <= pages; ++i)
      list.push_back({pdf_paragraph(fmt::format("{} page {}", title, i)), ""});
    return write_bytes(folder_.path() / name, make_pdf(list));
  }
  PageBuildOptions options(const std::vector<fs::path>& files) const {
    PageBuildOptions out;
    for (const fs::path& file : files) out.sources.push_back({file, 1, 0, ""});
    out.out = out_;
    out.dots_per_inch = 72;
    return out;
  }
  std::map<std::string, std::string> contents(const fs::path& folder) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(folder))
      files[entry.path().filename().string()] = read_file(entry.path());
    return files;
  }
  std::vector<std::string> stems() const {
    std::vector<std::string> names;
    for (const PageEntry& page : load_page_list(out_).pages) names.push_back(page.stem);
    return names;
  }

  TemporaryFolder folder_;
  fs::path out_ = folder_.path() / "out";
};

TEST_F(PageBuilder, WritesPicturesTextAndBoxes) {
  const auto file = write_bytes(folder_.path() / "My Report.pdf",
                                make_pdf({{pdf_paragraph("First"), ""},
                                          {pdf_text("few", 72, 700), ""},
                                          {"3 Tr " + pdf_paragraph("Hidden"), ""},
                                          {pdf_paragraph("Huge"), "", 14400, 14400},
                                          {pdf_paragraph("Last"), ""}}));
  PageBuildOptions options = this->options({file});
  options.licence = "CC0";
  std::vector<std::int64_t> progress;
  options.progress = [&](const PageProgress& p) {
    EXPECT_EQ(p.total, 5);
    progress.push_back(p.done);
  };
  const PageBuildSummary summary = build_pages(options);
  EXPECT_EQ(summary.documents_built, 1);
  EXPECT_EQ(summary.pages_written, 2);
  EXPECT_EQ(summary.pages_dropped, 3);
  EXPECT_FALSE(summary.up_to_date());
  EXPECT_EQ(progress, (std::vector<std::int64_t>{5}));

  const PageList list = load_page_list(out_);
  ASSERT_EQ(list.documents.size(), 1u);
  const DocumentEntry& document = list.documents[0];
  EXPECT_EQ(document.id, "my-report");
  EXPECT_EQ(document.source, "My Report.pdf");
  EXPECT_EQ(document.licence, "CC0");
  EXPECT_EQ(document.poppler, poppler_version());
  EXPECT_EQ(document.sha256.size(), 64u);
  EXPECT_EQ(document.pdf_pages, 5);
  ASSERT_EQ(document.dropped.size(), 3u);
  EXPECT_EQ(document.dropped[0].number, 2);
  EXPECT_EQ(document.dropped[0].reason, "almost no text: 3 characters");
  EXPECT_EQ(document.dropped[1].number, 3);
  EXPECT_TRUE(document.dropped[1].reason.starts_with("text that the picture does not show"));
  EXPECT_TRUE(document.dropped[2].reason.starts_with("too large: 14400 x 14400 pixels"));
  EXPECT_EQ(stems(), (std::vector<std::string>{"my-report-0001", "my-report-0005"}));

  const Page page = load_page(out_ / "my-report-0001.json");
  EXPECT_EQ(page.source, "My Report.pdf");
  EXPECT_EQ(page.document, "my-report");
  EXPECT_EQ(page.number, 1);
  EXPECT_EQ(page.dots_per_inch, 72);
  EXPECT_TRUE(page.text.starts_with("First\n\nline 1 of a paragraph with some words\nline 2"))
      << page.text;
  EXPECT_EQ(page.lines.size(), 6u);
  EXPECT_EQ(read_file(out_ / "my-report-0001.txt"), page.text + "\n");
  const Image image = read_image(page.image);
  EXPECT_EQ(image.width, page.width);
  EXPECT_EQ(image.height, page.height);
  EXPECT_EQ(page.width, 612);
  EXPECT_EQ(contents(out_).size(), 2u * 3 + 1);
}

TEST_F(PageBuilder, WhatThePictureDoesNotShowIsNotInTheText) {
  const std::string text = pdf_paragraph("Shown", 20);
  const auto file = write_bytes(
      folder_.path() / "a.pdf",
      make_pdf({{text + "3 Tr " + pdf_text("ghost", 72, 200) + pdf_text("spook", 300, 200), ""},
                {text + "1 g " + pdf_text("ghost", 72, 200) + "0 g 60 197 300 0.5 re f\n", ""},
                {text + "q 0 0 10 10 re W n " + pdf_text("ghost", 72, 200) + "Q\n", ""},
                {text + pdf_text("ghost", 72, 200) + "0.5 g 60 190 200 30 re f\n", ""},
                {text + pdf_text("ghost", 700, 200) + pdf_text("ghost", 72, -50), ""}}));
  const PageBuildSummary summary = build_pages(options({file}));
  EXPECT_EQ(summary.pages_written, 5);
  for (int number = 1; number <= 5; ++number)
    for (const char* ending : {"txt", "json"}) {
      const std::string stored = read_file(out_ / fmt::format("a-{:04}.{}", number, ending));
      EXPECT_EQ(stored.find("ghost"), std::string::npos) << number << ending;
      EXPECT_EQ(stored.find("spook"), std::string::npos) << number << ending;
      EXPECT_NE(stored.find("line 20 of a paragraph with some words"), std::string::npos);
    }
  const std::vector<PageNote> notes = load_page_list(out_).documents[0].notes;
  ASSERT_EQ(notes.size(), 4u);  // what lies beside the page is no part of it
  EXPECT_EQ(notes[0].number, 1);
  EXPECT_EQ(notes[0].note, "2 words that the picture does not show were left out");
  EXPECT_EQ(summary.documents, (std::vector<std::string>{"a"}));
}

TEST_F(PageBuilder, TurnedPagesAreDropped) {
  const std::string text = pdf_paragraph("Turned");
  const auto file =
      write_bytes(folder_.path() / "a.pdf",
                  make_pdf({{text, "/Rotate 90"},
                            {text, "/Rotate 180"},
                            {text, "/Rotate 270"},
                            {"q -1 0 0 -1 612 792 cm\n" + text + "Q\n", ""},
                            {"q 0 1 -1 0 792 0 cm\n" + text + "Q\n", "", 792, 792},
                            {"q -1 0 0 1 612 0 cm\n" + text + "Q\n", ""},
                            {"q -1 0 0 -1 612 792 cm\n" + text + "Q\n", "/Rotate 180"}}));
  build_pages(options({file}));
  const PageList list = load_page_list(out_);
  ASSERT_EQ(list.pages.size(), 1u);
  EXPECT_EQ(list.pages[0].number, 7);  // turned twice
  ASSERT_EQ(list.documents[0].dropped.size(), 6u);
  for (const DroppedPage& page : list.documents[0].dropped)
    EXPECT_TRUE(
        page.reason.starts_with(page.number == 6 ? "words that fall apart" : "rotated text"))
        << page.number << " " << page.reason;
}

TEST_F(PageBuilder, DamagedPagesAreToldWithWhatPopplerSays) {
  std::string bytes = make_pdf({{pdf_paragraph("Good"), ""},
                                {"gibberish ", ""},
                                {pdf_paragraph("Half") + "gibberish ", ""}});
  bytes[bytes.find("/Count 3") + 7] = '4';
  const auto file = write_bytes(folder_.path() / "a.pdf", bytes);
  build_pages(options({file}));
  const DocumentEntry document = load_page_list(out_).documents[0];
  ASSERT_EQ(document.dropped.size(), 2u);
  EXPECT_TRUE(document.dropped[0].reason.starts_with("almost no text: 0 characters; poppler: "));
  EXPECT_NE(document.dropped[0].reason.find("gibberish"), std::string::npos);
  EXPECT_EQ(document.dropped[1].number, 4);
  EXPECT_EQ(document.dropped[1].reason, "poppler cannot find this page in the file");
  ASSERT_EQ(document.notes.size(), 1u);
  EXPECT_EQ(document.notes[0].number, 3);
  EXPECT_TRUE(document.notes[0].note.starts_with("poppler: "));
}

TEST_F(PageBuilder, OneAtATimeWorksInAFolder) {
  const auto a = pdf("a.pdf", 1), b = pdf("b.pdf", 1, "Other");
  build_pages(options({a}));
  {
    const FolderLock lock(out_, "a test");
    EXPECT_TRUE(throws_with([&] { build_pages(options({b})); }, {"is in use by", "a test"}));
  }
  EXPECT_EQ(build_pages(options({b})).list.documents.size(), 2u);
  EXPECT_FALSE(fs::exists(out_ / ".lectern-lock"));
}

TEST_F(PageBuilder, ASecondRunDoesNothing) {
  const auto file = pdf("a.pdf", 3);
  build_pages(options({file}));
  std::map<fs::path, fs::file_time_type> times;
  for (const auto& entry : fs::directory_iterator(out_))
    times[entry.path()] = entry.last_write_time();
  EXPECT_EQ(times.size(), 10u);
  const PageBuildSummary summary = build_pages(options({file}));
  EXPECT_TRUE(summary.up_to_date());
  EXPECT_EQ(summary.documents_up_to_date, 1);
  EXPECT_EQ(summary.list.pages.size(), 3u);
  for (const auto& entry : fs::directory_iterator(out_))
    EXPECT_EQ(times.at(entry.path()), entry.last_write_time()) << entry.path();
}

TEST_F(PageBuilder, WhatChangedIsMadeAgain) {
  const auto a = pdf("a.pdf", 3), b = pdf("b.pdf", 2, "Other");
  build_pages(options({a, b}));
  EXPECT_EQ(stems().size(), 5u);

  fs::remove(out_ / "b-0002.txt");  // a missing file
  PageBuildSummary summary = build_pages(options({a, b}));
  EXPECT_EQ(summary.documents_up_to_date, 1);
  EXPECT_EQ(summary.documents_built, 1);
  EXPECT_TRUE(fs::exists(out_ / "b-0002.txt"));

  PageBuildOptions finer = options({b});  // another resolution
  finer.dots_per_inch = 144;
  EXPECT_EQ(build_pages(finer).documents_built, 1);
  EXPECT_EQ(load_page(out_ / "b-0001.json").width, 1224);
  EXPECT_EQ(stems().size(), 5u);  // the document that was not named stays

  PageBuildOptions fewer = options({a});  // another range: old pages go
  fewer.sources[0].first = 2;
  fewer.sources[0].last = 99;
  EXPECT_EQ(build_pages(fewer).pages_written, 2);
  EXPECT_EQ(stems(), (std::vector<std::string>{"a-0002", "a-0003", "b-0001", "b-0002"}));
  EXPECT_FALSE(fs::exists(out_ / "a-0001.json"));
  EXPECT_FALSE(fs::exists(out_ / "a-0001.png"));

  pdf("a.pdf", 1, "New bytes in the same place");
  EXPECT_EQ(build_pages(options({a})).pages_written, 1);
  EXPECT_EQ(stems(), (std::vector<std::string>{"a-0001", "b-0001", "b-0002"}));
  EXPECT_EQ(load_page_list(out_).documents.size(), 2u);
  EXPECT_EQ(contents(out_).size(), 3u * 3 + 1);
}

TEST_F(PageBuilder, IdsAreDistinct) {
  fs::create_directories(folder_.path() / "x");
  fs::create_directories(folder_.path() / "y");
  const auto a = pdf("x/a.pdf", 1, "One"), b = pdf("y/a.pdf", 1, "Two"),
             copy = pdf("copy.pdf", 1, "One");
  const PageBuildSummary summary = build_pages(options({a, b, copy}));
  EXPECT_EQ(summary.documents_built, 2);
  ASSERT_EQ(summary.skipped.size(), 1u);
  EXPECT_EQ(summary.skipped[0].source, "copy.pdf");
  EXPECT_EQ(summary.skipped[0].reason, "the same bytes were given before");
  ASSERT_EQ(summary.list.documents.size(), 2u);
  EXPECT_EQ(summary.list.documents[0].id, "a");
  EXPECT_EQ(summary.list.documents[1].id, "a-" + summary.list.documents[1].sha256.substr(0, 8));
  // Ids stay when the order changes, and for a copy of a document that is there.
  EXPECT_TRUE(build_pages(options({copy, b})).up_to_date());

  PageBuildOptions named = options({pdf("c.pdf", 1, "Three")});
  named.sources[0].document_id = "a";
  EXPECT_TRUE(throws_with([&] { build_pages(named); }, {"document id a is taken"}));
  named.sources[0].document_id = "chosen";
  EXPECT_EQ(build_pages(named).list.documents.back().id, "chosen");

  EXPECT_EQ(document_id_of("/x/Report  v2.PDF"), "report-v2");
  EXPECT_EQ(document_id_of("mpfr.pdf.gz"), "mpfr");
  EXPECT_EQ(document_id_of("..pdf"), "document");
  EXPECT_EQ(document_id_of("(?).pdf"), "document");
  EXPECT_EQ(document_id_of("\xe6\x97\xa5.pdf"), "\xe6\x97\xa5");
  EXPECT_EQ(document_id_of("\xff.pdf"), "document");
  EXPECT_EQ(document_id_of(std::string(240, 'x') + ".pdf").size(), 120u);
}

TEST_F(PageBuilder, UnreadableDocumentsAreSkippedAndListed) {
  const auto good = pdf("good.pdf", 1), empty = write_bytes(folder_.path() / "empty.pdf", ""),
             garbage = write_bytes(folder_.path() / "garbage.pdf", std::string(999, 'x')),
             cut = write_bytes(folder_.path() / "cut.pdf.gz", read_file(good).substr(0, 9)),
             none = folder_.path() / "none.pdf";
  PageBuildOptions all = options({empty, garbage, good, cut, none, good});
  all.sources.back().first = 5;  // the same bytes again
  PageBuildSummary summary = build_pages(all);
  EXPECT_EQ(summary.documents_built, 1);
  EXPECT_EQ(summary.skipped.size(), 5u);
  const PageList list = load_page_list(out_);
  ASSERT_EQ(list.skipped.size(), 5u);
  std::set<std::string> names;
  for (const SkippedDocument& skipped : list.skipped) {
    names.insert(skipped.source);
    EXPECT_FALSE(skipped.reason.empty());
  }
  EXPECT_EQ(names, (std::set<std::string>{"cut.pdf.gz", "empty.pdf", "garbage.pdf", "good.pdf",
                                          "none.pdf"}));
  EXPECT_TRUE(build_pages(all).up_to_date());

  PageBuildOptions bad = options({empty, none});
  bad.out = folder_.path() / "bad";
  summary = build_pages(bad);
  EXPECT_EQ(summary.documents_built + summary.documents_up_to_date, 0);
  EXPECT_FALSE(summary.up_to_date());
  EXPECT_EQ(summary.skipped.size(), 2u);

  PageBuildOptions beyond = options({pdf("short.pdf", 2, "Short")});
  beyond.sources[0].first = 3;
  EXPECT_NE(build_pages(beyond).skipped[0].reason.find("first page must be in 1..2, got 3"),
            std::string::npos);
}

TEST_F(PageBuilder, GzipAndManyJobsGiveTheSamePages) {
  const auto file = pdf("many.pdf", 21);
  const std::string bytes = read_file(file);
  const fs::path packed = folder_.path() / "many.pdf.gz";
  gzFile gz = gzopen(packed.c_str(), "wb");
  gzwrite(gz, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(gz);

  PageBuildOptions one = options({file}), four = options({packed});
  one.jobs = 1;
  four.jobs = 4;
  four.out = folder_.path() / "packed";
  std::int64_t last = 0;
  four.progress = [&](const PageProgress& p) {
    EXPECT_GT(p.done, last);
    last = p.done;
  };
  EXPECT_EQ(build_pages(one).pages_written, 21);
  EXPECT_EQ(build_pages(four).pages_written, 21);
  EXPECT_EQ(last, 21);
  auto plain = contents(one.out), unpacked = contents(four.out);
  ASSERT_EQ(plain.size(), 64u);
  for (const auto& [name, content] : plain) {
    if (name.ends_with(".json")) continue;  // names the source
    EXPECT_EQ(content, unpacked[name]) << name;
  }
  EXPECT_EQ(load_page(four.out / "many-0020.json").lines[0].text, "Title page 20");

  write_bytes(packed, read_file(packed).substr(0, 300));
  const PageBuildSummary summary = build_pages(options({packed}));
  EXPECT_EQ(summary.skipped[0].reason.substr(0, 34), "gzip data is damaged or truncated:");
}

TEST_F(PageBuilder, UnusableOptionsAreErrors) {
  const auto file = pdf("a.pdf", 1);
  const auto refused = [&](auto change, std::string_view what) {
    PageBuildOptions changed = options({file});
    change(changed);
    return throws_with([&] { build_pages(changed); }, {what});
  };
  EXPECT_TRUE(refused([](auto& o) { o.sources.clear(); }, "at least one PDF"));
  EXPECT_TRUE(refused([](auto& o) { o.out.clear(); }, "output folder"));
  EXPECT_TRUE(refused([](auto& o) { o.dots_per_inch = 5; }, "dpi must be in 10..1200, got 5"));
  EXPECT_TRUE(refused([](auto& o) { o.jobs = 0; }, "jobs must be"));
  EXPECT_TRUE(refused([](auto& o) { o.sources[0].last = -1; }, "first <= last"));
  EXPECT_TRUE(refused([](auto& o) { o.sources[0].document_id = "../x"; }, "document id"));
  EXPECT_TRUE(refused([&](auto& o) { o.out = file / "x"; }, "a.pdf/x"));
  build_pages(options({file}));
  write_bytes(out_ / "pages.json", "{\"format\": \"lectern-pages\"");
  EXPECT_TRUE(refused([](auto&) {}, "pages.json"));
}

TEST_F(PageBuilder, PageListIsRead) {
  const auto refused = [&](const std::string& text, std::string_view what) {
    write_bytes(folder_.path() / "pages.json", text);
    return throws_with([&] { load_page_list(folder_.path()); }, {"pages.json", what});
  };
  const std::string head = "{\"format\":\"lectern-pages\",\"version\":1,\"documents\":[],";
  EXPECT_TRUE(refused("[]", "must be an object"));
  EXPECT_TRUE(refused("{\"format\":\"x\",\"version\":1}", "format: only \"lectern-pages\""));
  EXPECT_TRUE(refused(head + "\"pages\":3,\"skipped\":[]}",
                      "pages: must be a list of objects, got number"));
  EXPECT_TRUE(refused(head + "\"pages\":[{\"stem\":\"../../x\",\"document\":\"\",\"number\":1,"
                             "\"width\":1,\"height\":1,\"characters\":1}],\"skipped\":[]}",
                      "plain file name"));
  EXPECT_TRUE(refused(head + "\"pages\":[{\"stem\":\"x\"}],\"skipped\":[]}",
                      "pages[0].document: is required"));
  EXPECT_FALSE(find_page_list(folder_.path() / "nowhere").has_value());
}

TEST_F(PageBuilder, PagesAreValidatedWhenRead) {
  build_pages(options({pdf("a.pdf", 1)}));
  const fs::path path = out_ / "a-0001.json";
  const std::string good = read_file(path);
  const auto refused = [&](const std::string& from, const std::string& to, std::string_view what) {
    std::string text = good;
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    write_bytes(path, text);
    return throws_with([&] { load_page(path); }, {"a-0001.json", what});
  };
  EXPECT_TRUE(refused("lectern-page", "other", "format"));
  EXPECT_TRUE(refused("\"version\":1", "\"version\":2", "version must be 1"));
  EXPECT_TRUE(refused("\"number\":1", "\"number\":0", "number must be an integer in 1.."));
  EXPECT_TRUE(refused("\"width\":612", "\"width\":\"612\"", "width"));
  EXPECT_TRUE(refused("\"width\":612", "\"width\":100", "box must be left, top, right, bottom"));
  EXPECT_TRUE(refused("a-0001.png", "../a-0001.png", "image"));
  EXPECT_TRUE(refused("\"box\":[", "\"box\":[-", "box"));
  EXPECT_TRUE(refused("\"box\":[", "\"box\":[1,", "4 numbers"));
  EXPECT_TRUE(refused("\"source\"", "\"sauce\"", "source is missing"));
  EXPECT_TRUE(refused("paragraph", "paragraf", "line"));
  EXPECT_TRUE(refused("\"text\":\"Title page 1\\n\\n", "\"text\":\"Title\\n\\n", "text must be"));
  for (std::size_t size = 0; size + 2 < good.size(); size += 97) {
    write_bytes(path, good.substr(0, size));
    EXPECT_TRUE(throws_with([&] { load_page(path); }, {"a-0001.json"}));
  }
  write_bytes(path, good);
  EXPECT_EQ(load_page(path).image, out_ / "a-0001.png");
  // What is read is written back byte for byte.
  write_page(load_page(path), path);
  EXPECT_EQ(read_file(path), good);
  Page page = load_page(path);
  page.text = "\xff";
  EXPECT_TRUE(throws_with([&] { write_page(page, path); }, {"a-0001.json", "UTF-8"}));
}

}  // namespace
}  // namespace lectern
