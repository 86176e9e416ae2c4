#include "data/text/text_corpus.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/files.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <array>
#include <set>
#include <unordered_set>
#include <utility>

namespace lectern {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestWord = 256;  // bytes; longer is no word

struct CodeRange {
  char32_t first, last;
  Script script;
};

/// Blocks of Unicode, ascending; what lies between them is `other`.
constexpr std::array<CodeRange, 24> kRanges{
    {{0x21, 0x40, Script::common},     {0x41, 0x5a, Script::latin},
     {0x5b, 0x60, Script::common},     {0x61, 0x7a, Script::latin},
     {0x7b, 0x7e, Script::common},     {0xa1, 0xac, Script::common},
     {0xae, 0xbf, Script::common},  // not the soft hyphen
     {0xc0, 0x24f, Script::latin},     {0x370, 0x3ff, Script::greek},
     {0x400, 0x4ff, Script::cyrillic}, {0x1e00, 0x1eff, Script::latin},
     {0x1f00, 0x1fff, Script::greek},  {0x2010, 0x2027, Script::common},
     {0x2030, 0x205e, Script::common}, {0x20a0, 0x20bf, Script::common},
     {0x2100, 0x214f, Script::common}, {0x2190, 0x22ff, Script::common},
     {0x3001, 0x30ff, Script::cjk},    {0x3400, 0x4dbf, Script::cjk},
     {0x4e00, 0x9fff, Script::cjk},    {0xac00, 0xd7a3, Script::cjk},
     {0xf900, 0xfaff, Script::cjk},    {0xff01, 0xffee, Script::cjk},
     {0x20000, 0x2ffff, Script::cjk}}};

bool is_kept(char32_t character, const CorpusOptions& options) {
  if (options.ascii_only && character > 0x7e) return false;
  const Script script = script_of(character);
  return script == Script::common ||
         std::find(options.scripts.begin(), options.scripts.end(), script) != options.scripts.end();
}

}  // namespace

std::vector<fs::path> text_files(const CorpusOptions& options) {
  std::vector<fs::path> out = text_files(options.text);
  const auto is_excluded = [&](const fs::path& path) {
    const std::string name = path.filename().string();
    return std::any_of(options.exclude.begin(), options.exclude.end(),
                       [&](const std::string& begin) { return name.starts_with(begin); });
  };
  out.erase(std::remove_if(out.begin(), out.end(), is_excluded), out.end());
  return out;
}

std::vector<fs::path> text_files(const std::vector<fs::path>& paths) {
  std::vector<fs::path> out;
  for (const fs::path& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      out.push_back(path);
      continue;
    }
    std::vector<fs::path> found;
    fs::recursive_directory_iterator entry(path, error);
    for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error))
      if (entry->is_regular_file(error) && entry->path().extension() == ".txt")
        found.push_back(entry->path());
    if (error)
      fail<IoError>(fmt::format("{}: cannot be listed: {}", path.string(), error.message()));
    if (found.empty())
      fail<IoError>(fmt::format("{}: the folder must hold .txt files, got none", path.string()));
    std::sort(found.begin(), found.end());
    out.insert(out.end(), found.begin(), found.end());
  }
  return out;
}

Script script_from(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Script>, 4> kNames{
      {{"latin", Script::latin},
       {"greek", Script::greek},
       {"cyrillic", Script::cyrillic},
       {"cjk", Script::cjk}}};
  for (const auto& [text, script] : kNames)
    if (text == name) return script;
  fail<ConfigError>(
      fmt::format("scripts: must be of latin, greek, cyrillic and cjk, got \"{}\"", name));
}

Script script_of(char32_t character) {
  for (const CodeRange& range : kRanges)
    if (character <= range.last) return character >= range.first ? range.script : Script::other;
  return Script::other;
}

TextCorpus::TextCorpus(const CorpusOptions& options) {
  if (options.text.empty()) fail<ConfigError>("text corpus: text must name a file, got none");
  for (const fs::path& path : text_files(options)) add_text(lossy_utf8(read_file(path)), options);
  finish(options);
}

TextCorpus::TextCorpus(std::string_view text, const CorpusOptions& options) {
  add_text(lossy_utf8(text), options);
  finish(options);
}

void TextCorpus::add_text(std::string_view text, const CorpusOptions& options) {
  const std::string composed = normalize(text, NormalForm::nfc);
  bool begins_paragraph = true;
  std::size_t begin = 0;
  int newlines = 0;
  for (std::size_t at = 0; at <= composed.size();) {
    const bool ended = at == composed.size();
    const CodePoint point = ended ? CodePoint{U' ', 1} : code_point(composed, at);
    if (is_white_space(point.value) || point.value < 0x20) {
      if (at > begin) {
        add_token(std::string_view(composed).substr(begin, at - begin), options, begins_paragraph);
        newlines = 0;
      }
      newlines += point.value == U'\n';
      if (newlines > 1 || point.value == U'\f') begins_paragraph = true;
      begin = at + point.bytes;
    }
    at += point.bytes;
  }
}

/// Text between white space: one word, or several where it has CJK characters.
void TextCorpus::add_token(std::string_view token, const CorpusOptions& options,
                           bool& begins_paragraph) {
  std::size_t begin = 0;  // of the word that is being collected
  bool glued = false;
  bool kept = token.size() <= kLongestWord;
  for (std::size_t at = 0; kept && at < token.size();) {
    const CodePoint point = code_point(token, at);
    kept = is_kept(point.value, options);
    at += point.bytes;
  }
  if (!kept) {
    ++dropped_;
    return;
  }
  for (std::size_t at = 0; at < token.size();) {
    const CodePoint point = code_point(token, at);
    if (script_of(point.value) == Script::cjk) {
      if (at > begin) {
        add_word(token.substr(begin, at - begin), glued, begins_paragraph);
        glued = true;
      }
      add_word(token.substr(at, point.bytes), glued, begins_paragraph);
      glued = true;
      begin = at + point.bytes;
    }
    at += point.bytes;
  }
  if (begin < token.size()) add_word(token.substr(begin), glued, begins_paragraph);
}

void TextCorpus::add_word(std::string_view word, bool glued, bool& begins_paragraph) {
  std::uint16_t length = 0;
  for (std::size_t at = 0; at < word.size(); at += code_point(word, at).bytes) ++length;
  words_.push_back(
      {text_.size(), static_cast<std::uint16_t>(word.size()), length, glued, begins_paragraph});
  text_ += word;
  begins_paragraph = false;
}

void TextCorpus::finish(const CorpusOptions& options) {
  if (words_.empty())
    fail<ConfigError>(
        fmt::format("text corpus: no word of {} is left ({} have characters outside "
                    "the scripts)",
                    options.text.empty() ? "the text" : options.text[0].string(), dropped_));
  std::unordered_set<std::string_view> seen;
  std::set<char32_t> characters;
  distinct_.clear();
  for (std::int64_t i = 0; i < words(); ++i) {
    const std::string_view text = word(i);
    if (!seen.insert(text).second) continue;
    distinct_.push_back(i);
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint point = code_point(text, at);
      characters.insert(point.value);
      at += point.bytes;
    }
  }
  characters_.assign(characters.begin(), characters.end());
  std::string bytes;
  for (std::int64_t i = 0; i < words(); ++i)
    bytes.append(begins_paragraph(i) ? "\n" : is_glued(i) ? "" : " ").append(word(i));
  sha256_ = sha256_of(bytes);
}

void TextCorpus::drop_words_with(const std::vector<char32_t>& characters) {
  if (characters.empty()) return;
  const auto is_dropped = [&](const Word& word) {
    const std::string_view text = std::string_view(text_).substr(word.begin, word.bytes);
    for (std::size_t at = 0; at < text.size();) {
      const CodePoint point = code_point(text, at);
      if (std::binary_search(characters.begin(), characters.end(), point.value)) return true;
      at += point.bytes;
    }
    return false;
  };
  const auto kept = std::remove_if(words_.begin(), words_.end(), is_dropped);
  dropped_ += words_.end() - kept;
  words_.erase(kept, words_.end());
  finish({});
}

}  // namespace lectern
