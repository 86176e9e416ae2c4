// lectern data segments: lines found by ink alone beside the text layer of pages; and
// lectern data resize: pictures of another resolution.
#include "core/error.h"
#include "core/io/file.h"
#include "core/stopwatch.h"
#include "data/layout/page_segments.h"
#include "data/pages/list.h"
#include "recipes/commands/command.h"
#include "recipes/evaluate/score.h"
#include "recipes/read/piece_reader.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lectern::commands {
namespace {

namespace fs = std::filesystem;

struct SegmentArguments {
  std::string pages, draw;
  std::vector<std::string> documents;
  std::int64_t width = 112;
  bool json = false;
};

struct DocumentScore {
  SegmentScore score;
  std::int64_t pages = 0;
  double seconds = 0, slowest = 0;
  std::vector<PageScore> perfect;  // if every piece were read without an error

  void add(const SegmentScore& page, const PageScore& reading, double taken) {
    perfect.push_back(reading);
    score.lines += page.lines;
    score.found += page.found;
    score.words += page.words;
    score.split += page.split;
    score.out_of_order += page.out_of_order;
    score.pieces += page.pieces;
    score.extra += page.extra;
    ++pages;
    seconds += taken;
    slowest = std::max(slowest, taken);
  }
};

void draw_box(Image& image, const Box& box, std::array<std::uint8_t, 3> colour) {
  const auto left = static_cast<std::int64_t>(box.left) - 1;
  const auto right = static_cast<std::int64_t>(box.right);
  const auto top = static_cast<std::int64_t>(box.top) - 1;
  const auto bottom = static_cast<std::int64_t>(box.bottom);
  const auto set = [&](std::int64_t x, std::int64_t y) {
    if (x >= 0 && y >= 0 && x < image.width && y < image.height)
      std::copy(colour.begin(), colour.end(), image.row(y) + 3 * x);
  };
  for (std::int64_t x = left; x <= right; ++x) {
    set(x, top);
    set(x, bottom);
  }
  for (std::int64_t y = top; y <= bottom; ++y) {
    set(left, y);
    set(right, y);
  }
}

/// The page with the boxes of its pieces; blocks take turns between two colours.
Image drawn(const Image& page, const PageSegments& segments, std::int64_t width) {
  Image out = level_page(page, segments.slope);
  std::int64_t block = 0;
  for (const PagePiece& piece : cut_pieces(segments, width)) {
    draw_box(out, piece.box,
             block % 2 == 0 ? std::array<std::uint8_t, 3>{220, 40, 40}
                            : std::array<std::uint8_t, 3>{30, 80, 220});
    if (piece.end == PieceEnd::block) ++block;
  }
  return out;
}

double share(std::int64_t part, std::int64_t whole) {
  return static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(1, whole));
}

nlohmann::ordered_json to_json(const std::string& document, const DocumentScore& sum) {
  return {{"document", document},
          {"pages", sum.pages},
          {"lines", sum.score.lines},
          {"found", share(sum.score.found, sum.score.lines)},
          {"out_of_order", share(sum.score.out_of_order, sum.score.found)},
          {"words_split", share(sum.score.split, sum.score.words)},
          {"extra", sum.score.extra},
          {"pieces", sum.score.pieces},
          {"perfect_cer", summarize(sum.perfect).cer},
          {"milliseconds", 1e3 * sum.seconds / static_cast<double>(sum.pages)},
          {"slowest_milliseconds", 1e3 * sum.slowest}};
}

void run_segments(const SegmentArguments& arguments) {
  const PageList list = load_page_list(arguments.pages);
  if (!arguments.draw.empty()) fs::create_directories(arguments.draw);
  std::map<std::string, DocumentScore> scores;
  DocumentScore all;
  for (const PageEntry& entry : list.pages) {
    const auto& wanted = arguments.documents;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), entry.document) == wanted.end())
      continue;
    const Page page = load_page(fs::path(arguments.pages) / (entry.stem + ".json"));
    const Image picture = read_image(page.image);
    const Stopwatch watch;
    const PageSegments segments = find_text(picture);
    const double seconds = watch.seconds();
    const SegmentScore score = score_segments(segments, page, arguments.width);
    const PageScore perfect =
        score_page(perfect_reading(segments, page, arguments.width), page.text);
    scores[entry.document].add(score, perfect, seconds);
    all.add(score, perfect, seconds);
    if (!arguments.draw.empty())
      write_png(drawn(picture, segments, arguments.width),
                fs::path(arguments.draw) / (entry.stem + ".png"), 1);
  }
  if (all.pages == 0)
    fail<IoError>(
        fmt::format("{}: must have pages of the documents asked for, got none", arguments.pages));
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const auto& [document, sum] : scores) rows.push_back(to_json(document, sum));
  rows.push_back(to_json("all", all));
  if (arguments.json) {
    fmt::print("{}\n", rows.dump());
    return;
  }
  fmt::print("{:<28} {:>5} {:>6} {:>7} {:>8} {:>7} {:>6} {:>7} {:>7} {:>5} {:>7}\n", "document",
             "pages", "lines", "found", "disorder", "split", "extra", "pieces", "perfect", "ms",
             "slowest");
  for (const auto& row : rows)
    fmt::print(
        "{:<28} {:>5} {:>6} {:>7.4f} {:>8.4f} {:>7.4f} {:>6} {:>7} {:>7.4f} {:>5.1f} {:>7.1f}\n",
        row["document"].get<std::string>(), row["pages"].get<std::int64_t>(),
        row["lines"].get<std::int64_t>(), row["found"].get<double>(),
        row["out_of_order"].get<double>(), row["words_split"].get<double>(),
        row["extra"].get<std::int64_t>(), row["pieces"].get<std::int64_t>(),
        row["perfect_cer"].get<double>(), row["milliseconds"].get<double>(),
        row["slowest_milliseconds"].get<double>());
}

struct ResizeArguments {
  std::string pictures, out;
  double scale = 1;
  std::int64_t trim = -1;
};

/// What is not white, and `margin` pixels around it; a white picture stays as it is.
Image trimmed(const Image& picture, std::int64_t margin) {
  constexpr std::uint8_t kWhite = 250;
  std::int64_t left = picture.width, top = picture.height, right = 0, bottom = 0;
  for (std::int64_t y = 0; y < picture.height; ++y)
    for (std::int64_t x = 0; x < picture.width; ++x) {
      const std::uint8_t* pixel = picture.row(y) + 3 * x;
      if (std::min({pixel[0], pixel[1], pixel[2]}) >= kWhite) continue;
      left = std::min(left, x);
      top = std::min(top, y);
      right = std::max(right, x + 1);
      bottom = std::max(bottom, y + 1);
    }
  if (left >= right) return picture;
  return crop(picture, left - margin, top - margin, right - left + 2 * margin,
              bottom - top + 2 * margin);
}

void resize(const ResizeArguments& arguments) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(arguments.pictures, error)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".png" || extension == ".jpg" || extension == ".jpeg")
      files.push_back(entry.path());
  }
  if (files.empty())
    fail<IoError>(fmt::format("{}: must be a folder with .png or .jpg files, got none{}",
                              arguments.pictures, error ? ": " + error.message() : ""));
  fs::create_directories(arguments.out);
  for (const fs::path& file : files) {
    Image picture = read_image(file);
    if (arguments.trim >= 0) picture = trimmed(picture, arguments.trim);
    write_png(rescaled(std::move(picture), 1, arguments.scale),
              fs::path(arguments.out) / (file.stem().string() + ".png"), 1);
  }
  fmt::print("{} pictures, {} times as large, in {}\n", files.size(), arguments.scale,
             arguments.out);
}

}  // namespace

void add_data_segments(Command data) {
  auto arguments = std::make_shared<SegmentArguments>();
  Command command = data.add_subcommand(
      "segments",
      "Lines and pieces of pages, found by ink alone, beside their text layer: true lines found, "
      "found ones out of order, words cut in two, lines that are none, and the character error "
      "rate "
      "of a reader that makes no mistake");
  command.add_option("--pages", arguments->pages, "folder made by `lectern data pages`").required();
  command.add_option("--documents", arguments->documents, "ids; none: all");
  command.add_option("--width", arguments->width, "pixels: longest run of words")
      .range(1, 1 << 16)
      .show_default();
  command.add_option("--draw", arguments->draw, "folder for the pages with the pieces' boxes");
  command.add_flag("--json", arguments->json, "print one JSON array");
  command.callback([arguments] { run_segments(*arguments); });

  auto sizes = std::make_shared<ResizeArguments>();
  command = data.add_subcommand("resize", "Pictures of a folder, larger or smaller (bicubic)");
  command.add_option("--pictures", sizes->pictures, "folder with .png, .jpg").required();
  command.add_option("--scale", sizes->scale, "sides become so many times as long")
      .range(0.01, 100.0)
      .required();
  command
      .add_option("--trim", sizes->trim,
                  "before that, cut white borders but for so many pixels; without it they stay")
      .range(0, 1000);
  command.add_option("--out", sizes->out, "folder for the .png files").required();
  command.callback([sizes] { resize(*sizes); });
}

}  // namespace lectern::commands
