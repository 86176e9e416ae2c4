// A folder of shards as one list of pages, and a bounded cache of decoded pages.
#pragma once

#include "data/images/image.h"
#include "data/shards/shard.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lectern {

/// A page with its pixels, one byte a pixel where the page is grey: pixels[y * width + x], else
/// three as in Image.
struct DecodedPage {
  ShardPage page;  // without `picture`
  bool grey = true;
  std::vector<std::uint8_t> pixels;

  std::int64_t bytes() const;
  /// The part [left, left+width) x [top, top+height) as RGB, white where it leaves the page.
  Image crop(std::int64_t left, std::int64_t top, std::int64_t width, std::int64_t height) const;
};

/// Functions may be called from several threads.
class ShardSet {
 public:
  /// Opens shard-*.h5 of a folder, in order of name, and checks every file's tables. Throws IoError
  /// when there are none, when one is damaged, when they were made with different tokenizers, or
  /// when the manifest beside or above them names others. `cache_bytes` bounds the decoded pages
  /// that are kept (at least the last one is).
  explicit ShardSet(const std::filesystem::path& folder,
                    std::int64_t cache_bytes = std::int64_t{512} << 20);
  ~ShardSet();

  const std::filesystem::path& folder() const;
  const std::string& tokenizer_sha256() const;
  std::int64_t pages() const;
  std::int64_t shards() const;
  /// Whether the records are pairs of a picture and an answer, or text (pair.h): nothing can be cut
  /// from them.
  bool holds_pairs() const;
  /// First page of each shard [shards + 1].
  const std::vector<std::int64_t>& first_page() const;
  /// The shard, opened anew when it was put aside.
  std::shared_ptr<const Shard> shard(std::int64_t index) const;

  /// Texts, boxes and ids of a page; `pixels` is left empty.
  std::shared_ptr<const DecodedPage> read(std::int64_t page) const;
  /// Tokens of a page's text, and its width and height; no file is read.
  std::int64_t token_count(std::int64_t page) const;
  /// Tokens of the page's own prompt; none where it has no prompt.
  std::optional<std::int64_t> prompt_tokens(std::int64_t page) const;
  std::array<std::int64_t, 2> size(std::int64_t page) const;
  /// The page with its pixels. Throws IoError naming the shard and page when the PNG is damaged or
  /// has another size than the shard says.
  std::shared_ptr<const DecodedPage> decoded(std::int64_t page) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace lectern
