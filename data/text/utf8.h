// Text as bytes: UTF-8 repair, stepping, counting and cutting, Unicode normal forms, and the byte
// alphabet of byte-level BPE (one printable character for each of the 256 bytes, as GPT-2 defined
// it).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lectern {

/// `bytes` with every ill-formed sequence replaced by U+FFFD, one for each maximal part that could
/// have begun a character (Unicode 15, section 3.9; Rust's String::from_utf8_lossy).
std::string lossy_utf8(std::string_view bytes);
/// True when lossy_utf8(bytes) == bytes.
bool is_utf8(std::string_view bytes);

struct CodePoint {
  char32_t value;
  std::size_t bytes;
};
/// The character that starts at `at` of well-formed UTF-8.
CodePoint code_point(std::string_view text, std::size_t at);
/// The byte offset of the character that ends at `end` (> 0) of well-formed UTF-8.
std::size_t previous_code_point(std::string_view text, std::size_t end);

/// UTF-8 to code points; ill-formed parts become U+FFFD, as Python's errors="replace" has them.
std::u32string code_points(std::string_view utf8);
std::string to_utf8(std::u32string_view code_points);
/// Appends the character, which must not be above U+10FFFF.
void append_utf8(std::string& out, char32_t character);
/// Characters of well-formed UTF-8.
std::int64_t count_characters(std::string_view text);
/// The longest beginning of at most `bytes` bytes that does not end within a character.
std::string_view utf8_prefix(std::string_view text, std::size_t bytes);

/// Unicode's White_Space property.
bool is_white_space(char32_t character);
/// What `\w` matches: letters, marks, decimal and letter numbers, connectors, joiners.
bool is_word_character(char32_t character);

/// Characters that leave no ink of their own: Unicode's Default_Ignorable_Code_Point (zero-width
/// spaces and joiners, byte-order marks, marks of direction, soft hyphens, variation selectors) and
/// the marks of interlinear annotations.
bool is_ignorable(char32_t character);
/// Marks that belong to the letter before them: accents, vowel signs, ...
bool is_combining_mark(char32_t character);
/// The sign that takes a letter's vowel away in scripts of India and around (combining class 9).
bool is_virama(char32_t character);
/// Symbols such as emoji (general category So or Sk).
bool is_pictograph(char32_t character);
/// Letters and digits, of any script.
bool is_letter_or_digit(char32_t character);
/// Hebrew, Arabic and the other scripts that run from right to left.
bool is_right_to_left(char32_t character);

enum class NormalForm { nfc, nfd, nfkc, nfkd };
/// The normal form of well-formed UTF-8.
std::string normalize(std::string_view text, NormalForm form);

/// UTF-8 of the character that stands for each byte: itself for printable Latin-1, else U+0100 and
/// up in the order of the bytes.
const std::array<std::string, 256>& byte_symbols();
/// `bytes` written in the byte alphabet.
std::string to_byte_symbols(std::string_view bytes);
/// The bytes that `symbols` stands for; nothing when a character is not of the byte alphabet.
std::optional<std::string> from_byte_symbols(std::string_view symbols);

}  // namespace lectern
