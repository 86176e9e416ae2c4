// Pages read piece by piece: what the model sees, how texts come together, and the commands.
#include "core/error.h"
#include "core/io/folder_lock.h"
#include "data/layout/page_segments.h"
#include "data/pages/list.h"
#include "data/pages/pdf.h"
#include "data/samples/cut.h"
#include "data/samples/sample.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/read/page_reader.h"
#include "recipes/report/evaluation.h"
#include "tests/data/drawn_sheet.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/test_pdf.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/read/piece_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

namespace lectern {
namespace {

using nlohmann::json;
using testing::DrawnSheet;
using testing::Finished;
using testing::run_lectern;
using testing::TemporaryFolder;
using testing::throws_with;
using testing::tiny_tokenizer;

/// Three lines of two blocks.
DrawnSheet sheet() {
  DrawnSheet out(300, 200);
  out.line("Some words that were set in type", 20, 40, 14, 0);
  out.line("and go on in a second line", 20, 58, 14, 0);
  out.line("Another block", 20, 110, 14, 1);
  out.page.document = "drawn";
  out.page.source = "drawn.pdf";
  out.page.number = 1;
  out.page.dots_per_inch = 100;
  out.page.text = text_of_lines(out.page.lines);
  return out;
}

/// A tiny model that reads pages of drawn letters by pieces of 60 pixels, and shards of them.
class PieceReading : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::save_piece_model(model());
    const DrawnSheet drawn = sheet();
    image_ = drawn.image();
    write_png(image_, picture());
    std::filesystem::create_directories(shards());
    ShardWriter writer;
    writer.add(testing::shard_page({drawn.page, image_}, tiny_tokenizer()));
    writer.write(shards() / "shard-00000.h5", sha256_of_file(model() / "tokenizer.json"));
  }
  std::filesystem::path model() const { return folder_.path() / "model"; }
  std::filesystem::path shards() const { return folder_.path() / "shards"; }
  std::filesystem::path picture() const { return folder_.path() / "page.png"; }
  std::filesystem::path out() const { return folder_.path() / "out"; }
  Finished eval(std::vector<std::string> more) const {
    more.insert(more.begin(), {"eval", "--checkpoint", model().string(), "--shards",
                               shards().string(), "--max-tokens", "3", "--threads", "1"});
    return run_lectern(more);
  }
  Finished ocr(std::vector<std::string> more) const {
    more.insert(more.begin(), {"ocr", "--checkpoint", model().string(), "--max-tokens", "3",
                               "--threads", "1", "--json"});
    return run_lectern(more);
  }

  TemporaryFolder folder_;
  Image image_;
};

TEST_F(PieceReading, PiecesLookLikeTheSamplesOfTraining) {
  CutOptions source;
  source.shards = std::make_shared<const ShardSet>(shards());
  source.level = Level::line;
  source.cut_width = 60;
  SampleOptions options;
  ViewOptions view;
  view.global_size = 64;
  view.crop = false;
  view.patch_size = 4;
  view.tokens = [](const ViewGrid&) { return std::int64_t{5}; };
  options.views = {view};
  options.margin = 2;
  const SampleSet samples({{make_cut_source(source, tiny_tokenizer())}}, options);
  const ReadingSettings settings = read_model_config(model() / "config.json")->reading;
  ASSERT_GT(samples.units(0), 6);
  for (std::int64_t i = 0; i < samples.units(0); ++i) {
    const Sample sample = samples.make({0, 0, i, 0});
    const auto views = piece_views(image_, {{sample.box, PieceEnd::word}}, settings);
    ASSERT_EQ(views.size(), 1u);
    EXPECT_TRUE(views[0].local.empty());
    EXPECT_EQ(views[0].global.pixels, sample.global.pixels) << sample.text;
  }
}

TEST_F(PieceReading, TextsComeTogetherInOrder) {
  const LoadedModel loaded = load_model_folder(model());
  const ReadingSettings& settings = loaded.model->config().reading;
  ReaderArgs args;
  args.max_new_tokens = 3;
  Reader reader(*loaded.model, loaded.tokenizer, args);
  const std::string text = read_by_pieces(reader, settings, image_);
  const auto pieces = cut_pieces(find_text(image_), settings.piece_width);
  ASSERT_GT(pieces.size(), 6u);
  EXPECT_EQ(text, join_pieces(pieces, reader.read_views(piece_views(image_, pieces, settings))));
  EXPECT_EQ(read_by_pieces(reader, settings, make_image(50, 40)), "");
  EXPECT_EQ(read_by_pieces(reader, settings, make_image(1, 1, 0)), "");
}

TEST_F(PieceReading, PagesShareTheSlotsAndComeInOrder) {
  const LoadedModel loaded = load_model_folder(model());
  ReadingSettings settings = loaded.model->config().reading;
  ReaderArgs args;
  args.max_new_tokens = 5;
  Reader alone(*loaded.model, loaded.tokenizer, args);
  const Image blank = make_image(50, 40);
  const std::vector<Image> pages = {blank, image_, blank, rescaled(image_, 1, 1.3), image_, blank};
  for (const bool by_pieces : {true, false}) {
    settings.by_pieces = by_pieces;
    std::vector<std::string> want;
    for (const Image& page : pages)
      want.push_back(by_pieces ? read_by_pieces(alone, settings, page) : alone.read({page})[0]);
    EXPECT_EQ(by_pieces, want[0].empty());
    for (const std::int64_t slots : {1, 3, 64}) {
      args.batch = slots;
      Reader reader(*loaded.model, loaded.tokenizer, args);
      std::vector<std::string> got;
      std::size_t asked = 0;
      read_pages(
          reader, settings,
          [&]() -> std::optional<Image> {
            if (asked == pages.size()) return std::nullopt;
            return pages[asked++];
          },
          [&](std::string text) { got.push_back(std::move(text)); });
      EXPECT_EQ(got, want) << slots;
    }
  }
  Reader reader(*loaded.model, loaded.tokenizer, args);
  read_pages(
      reader, settings, [] { return std::nullopt; }, [](const std::string&) { FAIL(); });
}

TEST_F(PieceReading, OcrFollowsTheModelAndTheUser) {
  const auto pages = [](const Finished& run) {
    EXPECT_EQ(run.status, 0) << run.errors;
    return json::parse(run.out)[0]["pages"];
  };
  const json by_model = pages(ocr({picture().string()}));
  ASSERT_EQ(by_model.size(), 1u);
  EXPECT_EQ(pages(ocr({"--pieces", picture().string()})), by_model);
  // Three tokens a piece against three a page.
  const json whole = pages(ocr({"--whole-pages", picture().string()}));
  EXPECT_LT(whole[0].get<std::string>().size(), by_model[0].get<std::string>().size());
  // A picture that says it has twice the resolution is scaled down to the model's.
  const auto large = folder_.path() / "large.png";
  write_png(rescaled(image_, 1, 2), large);
  EXPECT_EQ(pages(ocr({"--dpi", "100", picture().string()})), by_model);
  const LoadedModel loaded = load_model_folder(model());
  ReaderArgs args;
  args.max_new_tokens = 3;
  args.batch = kPiecesAtOnce;
  Reader reader(*loaded.model, loaded.tokenizer, args);
  EXPECT_EQ(pages(ocr({"--dpi", "200", large.string()}))[0],
            read_by_pieces(reader, loaded.model->config().reading,
                           rescaled(read_image(large), 200, 100)));
  const Finished both = ocr({"--pieces", "--whole-pages", picture().string()});
  EXPECT_EQ(both.status, 2) << both.errors;
}

TEST_F(PieceReading, PdfPagesAreDrawnAtTheModelsResolution) {
  const auto pdf = testing::write_bytes(folder_.path() / "two.pdf",
                                        testing::make_pdf({{testing::pdf_paragraph("First"), ""},
                                                           {testing::pdf_paragraph("Next"), ""}}));
  std::vector<std::string> files;
  for (const PdfPicture& page : render_pdf_pages(pdf, 1, 2, 100)) {
    files.push_back((folder_.path() / fmt::format("{}.png", files.size())).string());
    write_png(page.image, files.back());
  }
  const json pictures = json::parse(ocr(files).out);
  const json pages = json::parse(ocr({pdf.string()}).out)[0]["pages"];
  ASSERT_EQ(pages.size(), 2u);
  EXPECT_EQ(pages[0], pictures[0]["pages"][0]);
  EXPECT_EQ(pages[1], pictures[1]["pages"][0]);
  EXPECT_EQ(json::parse(ocr({"--dpi", "300", pdf.string()}).out)[0]["pages"], pages);
}

TEST_F(PieceReading, OcrWithoutACheckpointTakesTheShippedModel) {
  const auto folder = std::filesystem::path(testing::lectern_binary()).parent_path().parent_path() /
                      "recipes" / "nano";
  const Finished run = run_lectern({"ocr", "--max-tokens", "2", picture().string()});
  if (std::filesystem::exists(folder / "config.json")) {
    EXPECT_EQ(run.status, 0) << run.errors;
  } else {
    EXPECT_EQ(run.status, 1);
    EXPECT_NE(run.errors.find("recipes/nano: no model is there; name one with --checkpoint"),
              std::string::npos)
        << run.errors;
  }
}

TEST_F(PieceReading, EvalOfPages) {
  const Finished run = eval({"--level", "page", "--out", out().string(), "--json"});
  ASSERT_EQ(run.status, 0) << run.errors;
  const json scores = json::parse(run.out);
  EXPECT_EQ(scores["level"], "page");
  ASSERT_EQ(scores["documents"].size(), 1u);
  EXPECT_EQ(scores["documents"][0]["document"], "drawn");
  EXPECT_EQ(scores["documents"][0]["pieces"], 1);
  EXPECT_EQ(scores["documents"][0]["cer"], scores["cer"]);
  EXPECT_EQ(read_file(out() / "gt" / "00000.txt"), sheet().page.text);
  // The picture is the page, and what was read from it is what ocr reads.
  EXPECT_EQ(read_image(out() / "images" / "00000.png").pixels, image_.pixels);
  const json read = json::parse(ocr({(out() / "images" / "00000.png").string()}).out);
  EXPECT_EQ(read[0]["pages"][0], read_file(out() / "pred" / "00000.txt"));
  EXPECT_EQ(read_file(out() / "samples.tsv"), "level\tstem\tdocument\npage\t00000\tdrawn\n");
  const std::string report = read_file(out() / "report.html");
  for (const char* part : {"<td>drawn</td>", "Worst", "data:image/png;base64,", "drawn/0001"})
    EXPECT_NE(report.find(part), std::string::npos) << part;
  const Finished table = eval({"--level", "page"});
  EXPECT_NE(table.out.find("\ndrawn "), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("\nall "), std::string::npos) << table.out;
  const json whole = json::parse(eval({"--level", "page", "--whole-pages", "--json"}).out);
  EXPECT_EQ(whole["documents"].size(), 1u);
}

/// Leftovers of another evaluation would be scored with this one's.
TEST_F(PieceReading, EvalIntoAUsedFolderIsRefused) {
  const auto lines = [&](const char* samples, std::vector<std::string> more = {}) {
    more.insert(more.begin(), {"--level", "line", "--cut-width", "60", "--samples", samples,
                               "--out", out().string()});
    return eval(more);
  };
  const auto counted = [&] {
    return std::distance(std::filesystem::directory_iterator(out() / "pred"), {});
  };
  std::filesystem::create_directories(out());  // an empty one is as good as none
  ASSERT_EQ(lines("5").status, 0);
  EXPECT_EQ(counted(), 5);
  const Finished again = lines("2");
  EXPECT_EQ(again.status, 1);
  EXPECT_NE(again.errors.find("must be a new or empty folder"), std::string::npos) << again.errors;
  EXPECT_NE(again.errors.find("--overwrite"), std::string::npos) << again.errors;
  EXPECT_EQ(counted(), 5);
  ASSERT_EQ(lines("2", {"--overwrite"}).status, 0);
  EXPECT_EQ(counted(), 2);
  EXPECT_EQ(json::parse(read_file(out() / "samples.json")).size(), 2u);
  EXPECT_FALSE(std::filesystem::exists(out() / ".eval.tmp"));
  {
    const FolderLock other(out(), "another evaluation");
    const Finished locked = lines("1", {"--overwrite"});
    EXPECT_EQ(locked.status, 1);
    EXPECT_NE(locked.errors.find("is in use by process"), std::string::npos) << locked.errors;
  }
  // What is not eval's is never removed.
  write_file(out() / "notes.txt", "mine");
  const Finished foreign = lines("1", {"--overwrite"});
  EXPECT_EQ(foreign.status, 1);
  EXPECT_NE(foreign.errors.find("got notes.txt"), std::string::npos) << foreign.errors;
  EXPECT_EQ(counted(), 2);
}

/// What fails leaves the folder as it was.
TEST_F(PieceReading, EvalThatFailsLeavesNothing) {
  EXPECT_EQ(eval({"--level", "word", "--pieces", "--out", out().string()}).status, 1);
  EXPECT_FALSE(std::filesystem::exists(out()));
  write_file(folder_.path() / "file", "x");
  const Finished blocked =
      eval({"--level", "line", "--out", (folder_.path() / "file/out").string()});
  EXPECT_EQ(blocked.status, 1);
  EXPECT_NE(blocked.errors.find("--out: "), std::string::npos) << blocked.errors;
}

TEST_F(PieceReading, TheReportClaimsWhatIsKnown) {
  ASSERT_EQ(eval({"--level", "line", "--samples", "2", "--out", out().string()}).status, 0);
  const std::string report = read_file(out() / "report.html");
  EXPECT_NE(report.find("2 lines of " + shards().string() + ", read by " + model().string()),
            std::string::npos);
  for (const char* claim : {"never saw", "eld-out", "trained on these"})
    EXPECT_EQ(report.find(claim), std::string::npos) << claim;
  EvaluationResult result;
  const EvaluationSource known{
      .level = "word", .model = "m", .shards = "s", .was_trained_on = true};
  EXPECT_NE(render_evaluation(result, known, out()).find("trained on these shards"),
            std::string::npos);
}

TEST_F(PieceReading, EvalOfLinesIsSplitByDocument) {
  const Finished run = eval({"--level", "line", "--cut-width", "60", "--samples", "5", "--out",
                             out().string(), "--json"});
  ASSERT_EQ(run.status, 0) << run.errors;
  EXPECT_EQ(json::parse(run.out)["documents"][0]["pieces"], 5);
  const std::string report = read_file(out() / "report.html");
  EXPECT_NE(report.find("<h2>Best</h2>"), std::string::npos);
  const Finished wrong = eval({"--level", "word", "--pieces"});
  EXPECT_EQ(wrong.status, 1);
  EXPECT_NE(wrong.errors.find("eval: --level must be page with --pieces, got word"),
            std::string::npos)
      << wrong.errors;
}

TEST_F(PieceReading, ScoresAreSplitByDocument) {
  EvaluationResult result;
  std::vector<PageScore> pages;
  for (const auto& [document, read] : {std::pair{"b", "abcd"}, {"a", "abxx"}, {"b", "xxxx"}}) {
    result.samples.push_back({"key", document, "abcd", read, {}});
    pages.push_back(score_page(read, "abcd"));
  }
  result.scores = summarize(pages);
  const auto split = scores_by_document(result);
  ASSERT_EQ(split.size(), 2u);
  EXPECT_EQ(split[0].first, "a");
  EXPECT_EQ(split[0].second.cer, 0.5);
  EXPECT_EQ(split[1].second.pages.size(), 2u);
  EXPECT_EQ(split[1].second.cer, 0.5);
  EXPECT_EQ(split[1].second.exact, 1);
}

TEST_F(PieceReading, BadUsesAreRefused) {
  const LoadedModel loaded = load_model_folder(model());
  CutOptions source;
  source.shards = std::make_shared<const ShardSet>(shards());
  source.level = Level::page;
  SampleOptions options;
  options.views = {view_options(loaded.model->config())};
  const SampleSet samples({{make_cut_source(source, tiny_tokenizer())}}, options);
  EvaluationArgs args;
  args.by_pieces = args.with_loss = true;
  EXPECT_TRUE(throws_with([&] { evaluate(*loaded.model, loaded.tokenizer, samples, args); },
                          {"with_loss must be off with by_pieces"}));
  EXPECT_TRUE(
      throws_with([&] { rescaled(make_image(1 << 14, 1 << 12), 1, 4); }, {"at most 2^28 pixels"}));
  EXPECT_EQ(rescaled(make_image(3, 2), 100, 1).width, 1);
}

TEST(SegmentCommands, MeasureDrawAndResize) {
  const TemporaryFolder folder;
  DrawnSheet drawn = sheet();
  const auto pages = folder.path() / "pages";
  testing::write_synthetic({drawn.page, drawn.image()}, pages);
  PageList list;
  DocumentEntry document;
  document.id = "drawn";
  document.source = "drawn.pdf";
  list.documents.push_back(document);
  list.pages.push_back({"drawn-0001", "drawn", 1, 300, 200, 60});
  save_page_list(list, pages);
  const auto draw = folder.path() / "boxes";
  const Finished run = run_lectern({"data", "segments", "--pages", pages.string(), "--width", "60",
                                    "--draw", draw.string(), "--json"});
  ASSERT_EQ(run.status, 0) << run.errors;
  const json rows = json::parse(run.out);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["lines"], 3);
  EXPECT_EQ(rows[0]["found"], 1.0);
  EXPECT_EQ(rows[0]["words_split"], 0.0);
  EXPECT_NE(read_image(draw / "drawn-0001.png").pixels, drawn.image().pixels);
  EXPECT_EQ(run_lectern({"data", "segments", "--pages", pages.string(), "--documents", "x"}).status,
            1);
  ASSERT_EQ(run_lectern({"data", "resize", "--pictures", pages.string(), "--scale", "2", "--out",
                         (folder.path() / "large").string()})
                .status,
            0);
  EXPECT_EQ(read_image(folder.path() / "large" / "drawn-0001.png").width, 600);
  ASSERT_EQ(run_lectern({"data", "resize", "--pictures", pages.string(), "--trim", "3", "--scale",
                         "1", "--out", (folder.path() / "trimmed").string()})
                .status,
            0);
  const Image cut = read_image(folder.path() / "trimmed" / "drawn-0001.png");
  const Box& first = drawn.page.lines[0].box;
  EXPECT_NEAR(static_cast<double>(cut.width), first.right - first.left + 6, 3);
  EXPECT_EQ(run_lectern({"data", "resize", "--pictures", "/nowhere", "--scale", "2", "--out", "x"})
                .status,
            1);
}

}  // namespace
}  // namespace lectern
