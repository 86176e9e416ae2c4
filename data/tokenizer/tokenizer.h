// Byte-level byte pair encoding, compatible with the `tokenizer.json` of Hugging Face's
// `tokenizers` library: the same ids for the same text, the same text for the same ids.
//
//   encode:  cut out added tokens -> normalize -> cut out normalized added tokens -> pre-tokenize
//   ->
//            merge the bytes of each piece -> (add_special) put the template's tokens around
//   decode:  the bytes of each token, one after the other; ill-formed UTF-8 becomes U+FFFD
//
// Understood: model BPE (merges as "a b" or ["a", "b"], ignore_merges); normalizer null, NFC, NFD,
// NFKC, NFKD, Sequence; pre_tokenizer ByteLevel, Split (regular expression or string, all five
// behaviors, invert), Digits, Sequence, ending in ByteLevel; decoder ByteLevel, or a Sequence of it
// and Fuse; post_processor null, ByteLevel, TemplateProcessing, Sequence; added tokens with all
// their flags. Anything else is refused with an IoError that names the file and the field.
//
// Differences from the library: a field or type it would ignore is refused; truncation and padding
// are passed over with a note (core/notice.h), so that texts are never cut; input that is not UTF-8
// (which it cannot be given) has its ill-formed sequences replaced by U+FFFD first. As there, a
// byte without a symbol in the vocabulary becomes model.unk_token, or is dropped where that is
// null.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// Immutable; copies share their tables. All functions may be called from several threads at once.
class Tokenizer {
 public:
  /// Reads a tokenizer.json. Throws IoError naming file and field.
  static Tokenizer load(const std::filesystem::path& path);
  /// Reads the text of a tokenizer.json; `name` stands for the file in messages.
  static Tokenizer from_json(std::string json, const std::string& name);
  /// Writes the text that this tokenizer was made from, complete or not at all.
  void save(const std::filesystem::path& path) const;
  /// The text of the tokenizer.json.
  const std::string& json() const;

  /// Ids of `text`. Added tokens are recognised always; `add_special` puts what the file's
  /// post_processor asks for (often a begin-of-sentence token) around them. Throws Error when a
  /// regular expression of the file exceeds its limit of steps.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special = false) const;
  /// Text of `ids`, always well-formed UTF-8. Ids without a token are skipped; so are special
  /// tokens when `skip_special`.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = true) const;
  /// The pieces that merging works within, written in the byte alphabet, of the whole text with
  /// added tokens not cut out.
  std::vector<std::string> pre_tokenize(std::string_view text) const;

  /// Number of tokens, added ones included.
  std::int64_t vocab_size() const;
  /// One more than the largest id; larger than vocab_size() where ids have gaps. An embedding needs
  /// this many rows.
  std::int64_t id_limit() const;
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  /// The token as the file writes it (in the byte alphabet unless it is an added token).
  std::optional<std::string> id_to_token(std::int32_t id) const;
  bool is_special(std::int32_t id) const;

  struct State;

 private:
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace lectern
