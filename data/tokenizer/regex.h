// Regular expressions of tokenizer.json, which the `tokenizers` library gives to Oniguruma, run by
// PCRE2 (UTF, Unicode properties, just-in-time code).
//
// Where the two dialects read the same text differently the pattern is translated: `\s`, `\w`, `\b`
// (Unicode's White_Space and word characters), `\h` (hexadecimal digit), `\p{Script}`, `^` and `$`
// (at every line). What cannot be translated is refused: nested and intersected classes, inline
// options other than `i`, a `+` after an interval (possessive in PCRE2, repetition in Oniguruma).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace lectern {

/// Per-thread working memory of matching.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;
  RegexScratch& operator=(RegexScratch&&) noexcept;

 private:
  friend class Regex;
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

/// A compiled pattern; immutable, so threads may share it, each with its own RegexScratch.
class Regex {
 public:
  /// Throws ConfigError saying what is wrong with the pattern, and where.
  static Regex compile(std::string_view pattern);
  /// Matches `text` itself.
  static Regex literal(std::string_view text);

  struct Match {
    std::size_t begin, end;  // bytes
  };
  /// The first match that starts at byte `from` or later of `text`, which must be well-formed
  /// UTF-8. False when there is none. Throws Error when the pattern exceeds the limit of steps:
  /// a hostile pattern cannot hang the program.
  bool find(std::string_view text, std::size_t from, Match& match, RegexScratch& scratch) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace lectern
