// Real text as a list of words, for samples that are drawn instead of cut from pages.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// Which characters a corpus keeps, besides digits and punctuation: "latin", "greek", "cyrillic",
/// "cjk" (Han, kana, Hangul, full-width forms).
enum class Script : std::uint8_t { common, latin, greek, cyrillic, cjk, other };
/// Throws ConfigError for a name that is not of the four.
Script script_from(std::string_view name);
Script script_of(char32_t character);

/// Files as they are, and for each folder the .txt in it and below, by name. Throws IoError for a
/// folder that has none or cannot be listed.
std::vector<std::filesystem::path> text_files(const std::vector<std::filesystem::path>& paths);

struct CorpusOptions {
  std::vector<std::filesystem::path> text;  // UTF-8 files, and folders: their .txt, by name
  std::vector<std::string> exclude;         // files whose names begin so are left out
  std::vector<Script> scripts = {Script::latin};
  bool ascii_only = false;
};

/// The files that `options.text` stands for, in order. Throws IoError for a folder without .txt.
std::vector<std::filesystem::path> text_files(const CorpusOptions& options);

/// Words in the order of the text. A word has no white space in it; runs of CJK are cut into
/// single characters, which are `glued` to the word before. Text is in normal form NFC.
class TextCorpus {
 public:
  /// Throws ConfigError when nothing is named or no word is left, IoError when a file cannot be
  /// read or a folder holds no .txt. Text that is not UTF-8 is repaired first, and words with a
  /// character outside the scripts, a control, a private-use or a replacement character are left
  /// out and counted.
  explicit TextCorpus(const CorpusOptions& options);
  /// Of text in memory; `options.text` is not read.
  TextCorpus(std::string_view text, const CorpusOptions& options);

  std::int64_t words() const { return static_cast<std::int64_t>(words_.size()); }
  std::string_view word(std::int64_t i) const {
    const Word& at = words_[static_cast<std::size_t>(i)];
    return std::string_view(text_).substr(at.begin, at.bytes);
  }
  /// Characters of the word.
  std::int64_t length(std::int64_t i) const { return words_[static_cast<std::size_t>(i)].length; }
  /// No space stands between this word and the one before.
  bool is_glued(std::int64_t i) const { return words_[static_cast<std::size_t>(i)].glued; }
  bool begins_paragraph(std::int64_t i) const {
    return words_[static_cast<std::size_t>(i)].begins_paragraph;
  }
  /// Every different word once, by its first place.
  const std::vector<std::int64_t>& distinct() const { return distinct_; }
  /// Every different character, ascending.
  const std::vector<char32_t>& characters() const { return characters_; }
  std::int64_t dropped() const { return dropped_; }
  /// SHA-256 of the kept text.
  const std::string& sha256() const { return sha256_; }

  /// Leaves out the words that have one of `characters` (ascending), as no font has it. Throws
  /// ConfigError when no word is left.
  void drop_words_with(const std::vector<char32_t>& characters);

 private:
  struct Word {
    std::uint64_t begin = 0;
    std::uint16_t bytes = 0, length = 0;
    bool glued = false, begins_paragraph = false;
  };

  void add_text(std::string_view text, const CorpusOptions& options);
  void add_token(std::string_view token, const CorpusOptions& options, bool& begins_paragraph);
  void add_word(std::string_view word, bool glued, bool& begins_paragraph);
  void finish(const CorpusOptions& options);

  std::string text_;  // the words one after the other
  std::vector<Word> words_;
  std::vector<std::int64_t> distinct_;
  std::vector<char32_t> characters_;
  std::int64_t dropped_ = 0;
  std::string sha256_;
};

}  // namespace lectern
