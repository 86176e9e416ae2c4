#include "data/pairs/builder.h"

#include "core/io/file.h"
#include "core/parallel.h"
#include "data/images/image.h"
#include "data/pairs/key_set.h"
#include "data/pairs/sheet.h"
#include "data/shards/shard_set.h"
#include "tests/data/test_pdf.h"
#include "tests/data/view_tokens.h"
#include "tests/testing.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <map>
#include <set>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;
using testing::throws_with;

fs::path nano_tokenizer() { return testing::source_folder() / "recipes/nano/tokenizer.json"; }

/// A picture that is like no other.
void draw_number(const fs::path& path, int number) {
  fs::create_directories(path.parent_path());
  Image image = make_image(40, 30);
  for (int bit = 0; bit < 16; ++bit)
    if ((number >> bit & 1) != 0)
      for (int c = 0; c < 3; ++c) image.row(5 + bit)[3 * (4 + bit) + c] = 0;
  write_png(image, path);
}

PairBuildOptions options_for(const TemporaryFolder& folder, std::vector<fs::path> inputs) {
  PairBuildOptions out;
  out.inputs = std::move(inputs);
  out.tokenizer = nano_tokenizer();
  out.out = folder.path() / "out";
  return out;
}

/// A JSON-lines file of `count` pictures, `each` of a document.
fs::path numbered_pairs(const fs::path& folder, int count, int each = 1) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const std::string name = fmt::format("pictures/d{}-p{}.png", i / each, i % each);
    draw_number(folder / name, i + 1);
    text += fmt::format("{{\"image\": \"{}\", \"text\": \"answer {}\"}}\n", name, i);
  }
  write_file(folder / "in.jsonl", text);
  return folder / "in.jsonl";
}

/// All files of a folder with their bytes.
std::map<std::string, std::string> bytes_of_folder(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      out[entry.path().lexically_relative(folder).string()] = read_file(entry.path());
  return out;
}

std::vector<nlohmann::json> dropped_lines(const fs::path& out) {
  std::istringstream lines(read_file(out / "dropped.jsonl"));
  std::vector<nlohmann::json> parsed;
  for (std::string line; std::getline(lines, line);) parsed.push_back(nlohmann::json::parse(line));
  return parsed;
}

TEST(PairBuilder, RecordsBecomeShardsThatHoldThem) {
  const TemporaryFolder folder;
  draw_number(folder.path() / "a.png", 1);
  write_file(
      folder.path() / "in.jsonl",
      R"({"image": "a.png", "text": "<|ref|>x<|/ref|><|det|>[[0,0,999,999]]<|/det|>", "prompt": "<image>\n<|grounding|>Find."})"
      "\n"
      R"({"text": "alone"})"
      "\n");
  const PairBuildSummary summary = build_pairs(options_for(folder, {folder.path() / "in.jsonl"}));
  ASSERT_EQ(summary.splits.size(), 1u);
  EXPECT_EQ(summary.splits[0].records, 2);
  EXPECT_EQ(summary.splits[0].pictures, 1);
  EXPECT_EQ(summary.splits[0].boxes, 1);
  EXPECT_EQ(summary.inputs[0].is, "JSON lines");
  EXPECT_EQ(summary.inputs[0].forms.at("text with a picture"), 1);
  const ShardSet shards(folder.path() / "out/train");
  EXPECT_TRUE(shards.holds_pairs());
  const ShardPage& first = shards.decoded(0)->page;
  EXPECT_EQ(first.id, "in.jsonl:1");
  EXPECT_EQ(first.document, "a");
  EXPECT_EQ(first.kind, "pair");
  EXPECT_EQ(first.width, 40);
  EXPECT_EQ(first.prompt, "<image>\n<|grounding|>Find.");
  EXPECT_EQ(first.boxes[0], (LabelledBox{"x", {0, 0, 40, 30}}));
  EXPECT_EQ(shards.read(1)->page.kind, "text");
  EXPECT_FALSE(shards.read(1)->page.has_picture());
  EXPECT_TRUE(build_pairs(options_for(folder, {folder.path() / "in.jsonl"})).up_to_date);
  draw_number(folder.path() / "a.png", 2);  // a picture changes
  EXPECT_FALSE(build_pairs(options_for(folder, {folder.path() / "in.jsonl"})).up_to_date);
}

TEST(PairBuilder, WhatIsDroppedIsListedWithItsLineAndReason) {
  const TemporaryFolder folder;
  draw_number(folder.path() / "a.png", 1);
  write_file(folder.path() / "text.png", "a text");
  write_file(folder.path() / "cut.png", read_file(folder.path() / "a.png").substr(0, 40));
  write_file(folder.path() / "in.jsonl",
             R"({"image": "a.png", "text": "one"}
{"image": "gone.png", "text": "one"}
{"image": "text.png", "text": "one"}
{"image": "cut.png", "text": "one"}
{"image": "a.png", "text": " \n"}
{"image": "a.png", "text": "one"}
{"image": "a.png", "text": "one}
{"image": "a.png", "text": "see <image>"}
{"image": "a.png", "text": "<|ref|>x<|/ref|>"}
{"image": "a.png", "text": "0123456789 0123456789 0123456789 0123456789"}
)");
  PairBuildOptions options = options_for(folder, {folder.path() / "in.jsonl"});
  ViewOptions view;
  view.global_size = view.tile_size = 16;
  view.crop = false;
  view.patch_size = 4;
  testing::set_small_tokens(view);
  options.model = PairModel{.view = view, .positions = 24, .vocabulary = 512};
  options.own_prompt = "<image>";
  const PairBuildSummary summary = build_pairs(options);
  EXPECT_EQ(summary.splits[0].records, 1);
  EXPECT_EQ(summary.dropped_records(), 9);
  std::vector<std::string> told;
  for (const auto& line : dropped_lines(options.out)) {
    told.push_back(
        fmt::format("{} {}", line["line"].get<int>(), line["reason"].get<std::string>()));
    EXPECT_EQ(line["file"], (folder.path() / "in.jsonl").string());
  }
  EXPECT_EQ(told, (std::vector<std::string>{"2 no picture", "3 no PNG, JPEG or PDF",
                                            "4 unreadable picture", "5 empty answer", "6 duplicate",
                                            "7 broken JSON", "8 <image> in the answer",
                                            "9 places in the answer", "10 too long"}));
  EXPECT_NE(summary.dropped.at("no PNG, JPEG or PDF")
                .first.find("in.jsonl, line 3: picture "
                            "text.png must be PNG, JPEG or "
                            "PDF, got text"),
            std::string::npos)
      << summary.dropped.at("no PNG, JPEG or PDF").first;
  options.model->vocabulary = 100;
  options.model->positions = 1000;
  EXPECT_TRUE(
      throws_with([&] { build_pairs(options); }, {"in.jsonl: none of its 10 records can be used",
                                                  "line 1: answer has "
                                                  "token"}));
  EXPECT_FALSE(fs::exists(folder.path() / "out.partial"));
}

TEST(PairBuilder, AFileWithNothingUsableIsAnError) {
  const TemporaryFolder folder;
  const fs::path good = numbered_pairs(folder.path(), 2);
  write_file(folder.path() / "bad.jsonl", "{\"image\": \"none.png\", \"text\": \"a\"}\nx\n");
  EXPECT_TRUE(throws_with(
      [&] {
        build_pairs(options_for(folder, {good, folder.path() / "bad.jsonl"}));
      },
      {"bad.jsonl: none of its 2 records can be used; the first: line 1: picture none.png is not "
       "there"}));
  EXPECT_FALSE(fs::exists(folder.path() / "out"));
}

TEST(PairBuilder, SplitsKeepDocumentsTogether) {
  const TemporaryFolder folder;
  PairBuildOptions options = options_for(folder, {numbered_pairs(folder.path(), 60, 3)});
  options.train_share = 0.8;
  const PairBuildSummary summary = build_pairs(options);
  ASSERT_EQ(summary.splits.size(), 2u);
  EXPECT_EQ(summary.splits[0].records, 48);
  EXPECT_EQ(summary.splits[1].records, 12);
  EXPECT_EQ(summary.splits[1].documents, 4);
  EXPECT_NE(summary.grouped_by.find("20 documents"), std::string::npos) << summary.grouped_by;
  std::set<std::string> documents;
  const ShardSet train(options.out / "train"), validation(options.out / "validation");
  for (std::int64_t i = 0; i < train.pages(); ++i) documents.insert(train.read(i)->page.document);
  for (std::int64_t i = 0; i < validation.pages(); ++i)
    EXPECT_FALSE(documents.contains(validation.read(i)->page.document));
  options.documents = "folder";
  EXPECT_TRUE(throws_with([&] { build_pairs(options); }, {"needs two documents, got one"}));
}

TEST(PairBuilder, ManyFoldersOrAKeyAreDocuments) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 24; ++i) {
    draw_number(folder.path() / fmt::format("book{}/{}.png", i / 2, i), i + 1);
    text += fmt::format("{{\"image\":\"book{}/{}.png\",\"text\":\"{}\",\"who\":\"w{}\"}}\n", i / 2,
                        i, i, i % 3);
  }
  write_file(folder.path() / "in.jsonl", text);
  PairBuildOptions options = options_for(folder, {folder.path() / "in.jsonl"});
  options.train_share = 0.5;
  EXPECT_EQ(build_pairs(options).grouped_by, "12 folders of pictures");
  options.group_by = "who";
  const PairBuildSummary by_key = build_pairs(options);
  EXPECT_EQ(by_key.grouped_by, "3 values of \"who\"");
  EXPECT_TRUE(by_key.notes.empty());
  EXPECT_EQ(by_key.splits[1].documents, 1);
}

TEST(PairBuilder, TextsWithoutADocumentAreSplitOneByOneAndItSaysSo) {
  const TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 20; ++i) text += fmt::format("{{\"text\":\"text {}\"}}\n", i);
  write_file(folder.path() / "in.jsonl", text);
  PairBuildOptions options = options_for(folder, {folder.path() / "in.jsonl"});
  options.train_share = 0.9;
  const PairBuildSummary summary = build_pairs(options);
  EXPECT_EQ(summary.splits[1].records, 2);
  EXPECT_NE(summary.grouped_by.find("20 texts without a picture have none and are split at random"),
            std::string::npos)
      << summary.grouped_by;
}

TEST(PairBuilder, NothingIsInBothSplits) {
  const TemporaryFolder folder;
  const fs::path train = numbered_pairs(folder.path(), 3);
  fs::create_directories(folder.path() / "other");
  fs::copy_file(folder.path() / "pictures/d0-p0.png", folder.path() / "other/same.png");
  draw_number(folder.path() / "other/new.png", 77);
  write_file(folder.path() / "other/v.jsonl", R"({"image": "same.png", "text": "answer 0"}
{"image": "same.png", "text": "another"}
{"image": "new.png", "text": "new"}
)");
  PairBuildOptions options = options_for(folder, {train});
  options.validation = {folder.path() / "other/v.jsonl"};
  const PairBuildSummary summary = build_pairs(options);
  EXPECT_EQ(summary.splits[0].records, 3);
  EXPECT_EQ(summary.splits[1].records, 1);
  EXPECT_EQ(summary.dropped.at("in both splits").records, 2);
  options.train_share = 0.5;
  EXPECT_TRUE(throws_with([&] { build_pairs(options); }, {"validation input or a split"}));
}

TEST(PairBuilder, FoldersAndPdfsOfSeveralPages) {
  const TemporaryFolder folder;
  const fs::path in = folder.path() / "in";
  draw_number(in / "a.png", 1);
  write_file(in / "a.md", "\xef\xbb\xbfone\r\ntwo\n\n");
  testing::write_bytes(in / "b.pdf", testing::make_pdf({{testing::pdf_text("first", 72, 700), ""},
                                                        {testing::pdf_text("last", 72, 700), ""}}));
  write_file(in / "b.md", "first\n\n---\n\nlast\n");
  testing::write_bytes(in / "c.pdf", testing::make_pdf({{testing::pdf_text("x", 72, 700), ""},
                                                        {testing::pdf_text("y", 72, 700), ""}}));
  write_file(in / "c.txt", "x and y");
  PairBuildOptions options = options_for(folder, {in});
  options.dots_per_inch = 30;
  const PairBuildSummary summary = build_pairs(options);
  EXPECT_EQ(summary.splits[0].records, 3);
  EXPECT_EQ(summary.splits[0].documents, 2);
  EXPECT_NE(summary.dropped.at("pages and parts differ").first.find("PDF of 2 pages"),
            std::string::npos);
  const ShardSet shards(options.out / "train");
  EXPECT_EQ(shards.read(0)->page.text, "one\ntwo");
  EXPECT_EQ(shards.read(1)->page.text, "first");
  EXPECT_EQ(shards.read(2)->page.text, "last");
  EXPECT_EQ(shards.read(2)->page.id, "in:2/2");
  EXPECT_EQ(shards.read(2)->page.document, "b");
}

TEST(PairBuilder, BytesDoNotDependOnThreadsOrInterruptions) {
  const TemporaryFolder folder;
  PairBuildOptions options = options_for(folder, {numbered_pairs(folder.path(), 90, 2)});
  write_file(options.inputs[0], read_file(options.inputs[0]) + "{\n{\"text\": \"answer 3\"}\n");
  options.train_share = 0.7;
  options.records_per_shard = 8;
  const int threads = thread_count();
  build_pairs(options);
  const auto expected = bytes_of_folder(options.out);
  EXPECT_GT(expected.size(), 12u);
  set_thread_count(3);
  options.out = folder.path() / "threads";
  build_pairs(options);
  set_thread_count(threads);
  EXPECT_EQ(bytes_of_folder(options.out), expected);
  // Stopped again and again, at every place where it tells how far it is.
  options.out = folder.path() / "stopped";
  int stops = 0;
  std::int64_t taken_over = 0;
  for (int calls = 0; calls < 20; ++calls) {
    int reports = 0;
    options.progress = [&](const PairProgress& progress) {
      if (!progress.is_listing && ++reports == 2) throw std::runtime_error("stopped");
    };
    try {
      taken_over = build_pairs(options).went_on_after;
      break;
    } catch (const std::runtime_error&) {
      ++stops;
      EXPECT_FALSE(fs::exists(options.out));
    }
  }
  EXPECT_GT(stops, 1);
  EXPECT_GT(taken_over, 3);
  EXPECT_EQ(bytes_of_folder(options.out), expected);
  EXPECT_FALSE(fs::exists(folder.path() / "stopped.partial"));
}

TEST(PairBuilder, ADamagedOrForeignRestIsNotTakenUp) {
  const TemporaryFolder folder;
  PairBuildOptions options = options_for(folder, {numbered_pairs(folder.path(), 70)});
  options.records_per_shard = 8;
  build_pairs(options);
  const auto expected = bytes_of_folder(options.out);
  options.out = folder.path() / "stopped";
  const fs::path partial = folder.path() / "stopped.partial";
  const auto stop = [&] {
    int reports = 0;
    options.progress = [&](const PairProgress& progress) {
      if (!progress.is_listing && ++reports == 2) throw std::runtime_error("stopped");
    };
    EXPECT_THROW(build_pairs(options), std::runtime_error);
    options.progress = {};
    EXPECT_TRUE(fs::exists(partial / "progress.json"));
  };
  stop();
  write_file(partial / "new/train/shard-00000.h5", "damaged");
  PairBuildSummary summary = build_pairs(options);
  EXPECT_EQ(summary.went_on_after, 0);
  EXPECT_EQ(bytes_of_folder(options.out), expected);
  fs::remove_all(options.out);
  stop();
  options.seed = 5;  // other settings
  EXPECT_EQ(build_pairs(options).went_on_after, 0);
  write_file(folder.path() / "mine", "something");
  options.out = folder.path() / "mine";
  EXPECT_TRUE(throws_with([&] { build_pairs(options); }, {"data pairs", "must be a new folder"}));
}

TEST(PairSheet, ShowsPicturesBoxesAndTexts) {
  const TemporaryFolder folder;
  draw_number(folder.path() / "a.png", 1);
  write_file(folder.path() / "in.jsonl",
             R"({"image": "a.png", "text": "<|ref|>x<|/ref|><|det|>[[100,100,900,900]]<|/det|>"})"
             "\n{\"text\": \"alone \xf0\x9f\x98\x80\"}\n");
  build_pairs(options_for(folder, {folder.path() / "in.jsonl"}));
  PairSheetOptions look;
  look.columns = 2;
  look.side = 120;
  const Image sheet = pair_sheet(folder.path() / "out/train", look);
  EXPECT_GE(sheet.width, 240);
  bool has_box = false;
  for (std::size_t i = 0; i + 2 < sheet.pixels.size(); i += 3)
    has_box = has_box || (sheet.pixels[i] == 220 && sheet.pixels[i + 1] == 40);
  EXPECT_TRUE(has_box);
}

TEST(PairKeys, AreASet) {
  detail::KeySet set;
  for (int i = 0; i < 5000; ++i) EXPECT_TRUE(set.insert(detail::key_of_text(fmt::format("{}", i))));
  for (int i = 0; i < 5000; ++i)
    EXPECT_FALSE(set.insert(detail::key_of_text(fmt::format("{}", i))));
  EXPECT_TRUE(set.contains(detail::key_of_text("4999")));
  EXPECT_FALSE(set.contains(detail::key_of_text("5000")));
}

}  // namespace
}  // namespace lectern
