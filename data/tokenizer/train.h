// Training of byte-level byte pair encoding.
//
// Texts are pre-tokenized and counted as words. Then, until the vocabulary is full, the most
// frequent pair of neighbouring tokens (of equals the one with the smallest ids) becomes a token.
// Merges equal those of `tokenizers.trainers.BpeTrainer` for the same texts, special tokens and
// pre-tokenizer with initial_alphabet = the byte alphabet.
#pragma once

#include "data/tokenizer/tokenizer.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// Which text is cut how before merging.
enum class TokenizerStyle {
  deepseek,  // 1-3 digits, runs of Chinese characters and kana, words with the sign before them
  qwen2,     // NFC, single digits, words with the sign before them
  gpt2       // words with the space before them
};

/// "deepseek", "qwen2" or "gpt2"; throws ConfigError for another name.
TokenizerStyle tokenizer_style(std::string_view name);

/// Tokens of DeepSeek-OCR prompts; begin, end and padding get the ids 0, 1, 2 that its model
/// configuration expects.
std::vector<std::string> default_special_tokens();

struct TrainOptions {
  std::int64_t vocab_size = 8192;  // all tokens: special ones, 256 bytes, merges
  std::int64_t min_frequency = 2;  // a pair seen less often is not merged
  TokenizerStyle style = TokenizerStyle::deepseek;
  std::vector<std::string> special_tokens = default_special_tokens();  // ids 0, 1, 2, ...
};

/// Trains on texts that are handed over one by one.
class TokenizerTrainer {
 public:
  /// Throws ConfigError when the options are unusable (vocab_size too small for special tokens and
  /// bytes, a special token empty or given twice).
  explicit TokenizerTrainer(TrainOptions options);
  ~TokenizerTrainer();
  TokenizerTrainer(TokenizerTrainer&&) noexcept;

  /// Counts the words of a text; ill-formed UTF-8 in it becomes U+FFFD. Special tokens in the text
  /// are ordinary text here.
  void add(std::string_view text);
  /// The tokenizer; smaller than vocab_size when the texts offer no more pairs.
  Tokenizer train() const;

 private:
  struct Words;
  TrainOptions options_;
  std::unique_ptr<Words> words_;
};

Tokenizer train_tokenizer(std::span<const std::string> texts, const TrainOptions& options);

}  // namespace lectern
