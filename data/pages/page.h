// One document page: its picture, its text in reading order, and where the words stand.
//
// <stem>.json: {"format": "lectern-page", "version": 1, "source", "document", "number", "width",
// "height", "dots_per_inch", "image": "<stem>.png", "text", "lines": [{"text", "block", "box":
// [left, top, right, bottom], "words": [{"text", "box"}]}], "rotated_words": [{"text", "box"}]}
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace lectern {

/// Pixels of the page image, left/top inclusive, right/bottom exclusive.
struct Box {
  double left = 0, top = 0, right = 0, bottom = 0;
};

struct Word {
  std::string text;  // UTF-8
  Box box;
};

/// Words on one baseline, in reading order, separated by single spaces in `text`.
struct Line {
  std::string text;
  Box box;
  std::vector<Word> words;
  std::int64_t block = 0;  // lines of one paragraph or column part share a number, ascending
};

/// What `lectern data pages` writes for a page: <stem>.png, <stem>.txt and <stem>.json.
struct Page {
  std::string source;       // file name of the document
  std::string document;     // id of the document: splits never separate pages of one document
  std::int64_t number = 0;  // 1-based page number
  std::int64_t width = 0, height = 0;
  double dots_per_inch = 0;
  std::filesystem::path image;  // PNG
  std::string text;             // whole page, reading order, lines separated by \n, blocks by \n\n
  std::vector<Line> lines;
  std::vector<Word> rotated_words{};  // text that does not run from left to right; not in `lines`
};

/// "\n" between lines, "\n\n" between blocks.
std::string text_of_lines(const std::vector<Line>& lines);

/// Cuts word boxes to width x height, drops words outside, and recomputes lines, their boxes and
/// the page's text. Blocks are renumbered from 0.
void fit_to_image(Page& page, std::int64_t width, std::int64_t height);

/// Writes `path` (the .json) and the text beside it (.txt); the PNG is written by write_png.
/// page.image must stand beside `path`. Throws IoError on text that is not UTF-8 and when a file
/// cannot be written.
void write_page(const Page& page, const std::filesystem::path& path);

/// Reads what write_page wrote; `image` becomes a path beside the file. Throws IoError naming file
/// and field: missing or mistyped fields, boxes that are not finite or leave the page, line texts
/// that are not their words, an image outside the folder.
Page load_page(const std::filesystem::path& path);

}  // namespace lectern
