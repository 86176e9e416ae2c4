// One document page: its picture, its text in reading order, and where the words stand.
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
};

/// What `lectern data pages` writes for a page: <stem>.png, <stem>.txt and <stem>.json.
struct Page {
  std::string source;    // file name of the document
  std::string document;  // id of the document: splits never separate pages of one document
  std::int64_t number = 0;  // 1-based page number
  std::int64_t width = 0, height = 0;
  double dots_per_inch = 0;
  std::filesystem::path image;  // PNG
  std::string text;             // whole page, reading order, lines separated by \n, blocks by \n\n
  std::vector<Line> lines;
};

}  // namespace lectern
