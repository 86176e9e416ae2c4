// Pages for tests of the data pipeline: words drawn as patterns that tell them apart.
#pragma once

#include "core/io/files.h"
#include "data/images/image.h"
#include "data/pages/page.h"
#include "data/shards/shard.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/testing.h"

#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <vector>

namespace lectern::testing {

inline std::filesystem::path tokenizer_file() { return fixture("tokenizer/gpt2/tokenizer.json"); }
inline const Tokenizer& test_tokenizer() {
  static const Tokenizer tokenizer = Tokenizer::load(tokenizer_file());
  return tokenizer;
}
inline std::string test_tokenizer_sha256() { return sha256_of_file(tokenizer_file()); }

/// Grey level of a word's pixel; never white, so that a shift by one pixel shows.
inline std::uint8_t ink(std::int64_t page, std::int64_t word, std::int64_t x, std::int64_t y) {
  return static_cast<std::uint8_t>((37 * page + 11 * word + 5 * x + 3 * y) % 251);
}

struct SyntheticPage {
  Page page;
  Image image;
};

/// `lines` lines of `words` words "p<page>w<word>", 8 pixels a character, 16 pixels a line; blocks
/// of four lines. A coloured page has more blue in it.
inline SyntheticPage synthetic_page(const std::string& document, std::int64_t number, int lines = 5,
                                    int words = 3, bool coloured = false) {
  SyntheticPage out;
  Page& page = out.page;
  page.source = document + ".pdf";
  page.document = document;
  page.number = number;
  page.dots_per_inch = 100;
  page.width = 20 + words * 72;
  page.height = 30 + lines * 20;
  out.image = make_image(page.width, page.height);
  std::int64_t index = 0;
  for (int l = 0; l < lines; ++l) {
    Line line;
    line.block = l / 4;
    double x = 10;
    for (int w = 0; w < words; ++w, ++index) {
      const std::string text = fmt::format("p{}w{}", number, index);
      const Box box{x, 10.0 + 20 * l, x + 8.0 * static_cast<double>(text.size()), 26.0 + 20 * l};
      for (auto py = static_cast<std::int64_t>(box.top); py < box.bottom; ++py)
        for (auto px = static_cast<std::int64_t>(box.left); px < box.right; ++px)
          for (int c = 0; c < 3; ++c)
            out.image.row(py)[3 * px + c] =
                coloured && c == 2 ? 251
                                   : ink(number, index, px - static_cast<std::int64_t>(box.left),
                                         py - static_cast<std::int64_t>(box.top));
      line.words.push_back({text, box});
      line.text += (w > 0 ? " " : "") + text;
      line.box = w == 0 ? box : Box{line.box.left, line.box.top, box.right, box.bottom};
      x = box.right + 8;
    }
    page.lines.push_back(line);
  }
  page.text = text_of_lines(page.lines);
  return out;
}

/// What the shard builder makes of it.
inline ShardPage shard_page(const SyntheticPage& from,
                            const Tokenizer& tokenizer = test_tokenizer()) {
  ShardPage out;
  out.id = fmt::format("{}/{:04}", from.page.document, from.page.number);
  out.document = from.page.document;
  out.source = from.page.source;
  out.number = from.page.number;
  out.width = from.page.width;
  out.height = from.page.height;
  out.dots_per_inch = from.page.dots_per_inch;
  out.picture = encode_png(from.image);
  out.text = from.page.text;
  out.ids = tokenizer.encode(out.text);
  for (const Line& line : from.page.lines) {
    out.lines.push_back(line.text, line.box, tokenizer.encode(line.text));
    out.blocks.push_back(static_cast<std::int32_t>(line.block));
    for (const Word& word : line.words)
      out.words.push_back(word.text, word.box, tokenizer.encode(word.text));
    out.first_word.push_back(out.words.size());
  }
  return out;
}

/// Writes <folder>/<document>-<number>.{json,txt,png} as `lectern data pages` does.
inline void write_synthetic(const SyntheticPage& page, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  Page copy = page.page;
  const std::string stem = fmt::format("{}-{:04}", copy.document, copy.number);
  copy.image = folder / (stem + ".png");
  write_png(page.image, copy.image);
  write_page(copy, folder / (stem + ".json"));
}

/// A folder with `shards` shards of `pages` pages each, all of one document.
inline void write_shards(const std::filesystem::path& folder, int shards, int pages, int lines = 5,
                         int words = 3) {
  std::filesystem::create_directories(folder);
  for (int s = 0; s < shards; ++s) {
    ShardWriter writer;
    for (int p = 0; p < pages; ++p)
      writer.add(shard_page(synthetic_page("doc", s * pages + p + 1, lines, words)));
    writer.write(folder / fmt::format("shard-{:05}.h5", s), test_tokenizer_sha256());
  }
}

}  // namespace lectern::testing
