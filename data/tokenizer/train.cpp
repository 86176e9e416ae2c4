#include "data/tokenizer/train.h"

#include "core/error.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/state.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace lectern {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxVocabulary = 1 << 24;

std::vector<std::string> split_patterns(TokenizerStyle style) {
  static constexpr const char* kTail = R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
  switch (style) {
    case TokenizerStyle::gpt2:
      return {};
    case TokenizerStyle::qwen2:
      return {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
              R"( ?[^\s\p{L}\p{N}]+[\r\n]*|)" +
              std::string(kTail)};
    case TokenizerStyle::deepseek:
      break;
  }
  return {R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
          R"([!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|)"
          R"([^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|)" +
              std::string(kTail)};
}

json byte_level(bool use_regex, bool add_prefix_space = false) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json pre_tokenizer_json(TokenizerStyle style) {
  if (style == TokenizerStyle::gpt2) return byte_level(true);
  json members = json::array();
  for (const std::string& pattern : split_patterns(style))
    members.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", pattern}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
  members.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", members}};
}

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint32_t>(right);
}

// Pair counts of all words, kept up to date while pairs are merged.
class PairMerger {
 public:
  struct Candidate {
    std::int64_t count;
    std::uint64_t pair;
    std::vector<std::int32_t> words;  // where the pair was seen when it was queued

    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  PairMerger(std::vector<std::vector<std::int32_t>> words, std::vector<std::int64_t> counts)
      : words_(std::move(words)), word_counts_(std::move(counts)) {
    for (std::size_t w = 0; w < words_.size(); ++w)
      for (std::size_t i = 1; i < words_[w].size(); ++i)
        change(pair_of(words_[w][i - 1], words_[w][i]), +1, static_cast<std::int32_t>(w));
    queue_seen();
  }

  /// The most frequent pair. A count in the queue is that of when the pair was queued; when it has
  /// changed since, the candidate goes back with its count of now.
  bool pop(Candidate& best) {
    while (!queue_.empty()) {
      std::pop_heap(queue_.begin(), queue_.end());
      best = std::move(queue_.back());
      queue_.pop_back();
      const std::int64_t count = counts_[best.pair];
      if (count == best.count) return true;
      best.count = count;
      if (count > 0) push(std::move(best));
    }
    return false;
  }

  /// Replaces the pair by `id` in the words of the candidate.
  void merge(const Candidate& candidate, std::int32_t id) {
    const auto left = static_cast<std::int32_t>(candidate.pair >> 32);
    const auto right = static_cast<std::int32_t>(candidate.pair);
    for (const std::int32_t w : candidate.words) merge_word(w, left, right, id);
    queue_seen();
  }

 private:
  void merge_word(std::int32_t w, std::int32_t left, std::int32_t right, std::int32_t id) {
    auto& word = words_[w];
    std::size_t kept = 0;
    for (std::size_t i = 0; i < word.size(); ++i) {
      if (i + 1 == word.size() || word[i] != left || word[i + 1] != right) {
        word[kept++] = word[i];
        continue;
      }
      if (kept > 0) {
        change(pair_of(word[kept - 1], left), -1, w);
        change(pair_of(word[kept - 1], id), +1, w);
      }
      if (i + 2 < word.size()) {
        change(pair_of(right, word[i + 2]), -1, w);
        change(pair_of(id, word[i + 2]), +1, w);
      }
      word[kept++] = id;
      ++i;
    }
    word.resize(kept);
  }

  void change(std::uint64_t pair, int direction, std::int32_t w) {
    counts_[pair] += direction * word_counts_[w];
    if (direction < 0) return;
    auto& seen = seen_[pair];
    if (seen.empty() || seen.back() != w) seen.push_back(w);
  }

  void push(Candidate&& candidate) {
    queue_.push_back(std::move(candidate));
    std::push_heap(queue_.begin(), queue_.end());
  }

  void queue_seen() {
    for (auto& [pair, words] : seen_)
      if (const std::int64_t count = counts_[pair]; count > 0)
        push({count, pair, std::move(words)});
    seen_.clear();
  }

  std::vector<std::vector<std::int32_t>> words_;
  std::vector<std::int64_t> word_counts_;
  std::unordered_map<std::uint64_t, std::int64_t> counts_;
  std::unordered_map<std::uint64_t, std::vector<std::int32_t>> seen_;
  std::vector<Candidate> queue_;
};

struct Vocabulary {
  std::vector<std::string> tokens;  // by id
  StringMap<std::int32_t> ids;
  std::vector<std::uint64_t> merges;

  std::int32_t add(const std::string& token) {
    const auto [at, added] = ids.emplace(token, static_cast<std::int32_t>(tokens.size()));
    if (added) tokens.push_back(token);
    return at->second;
  }
};

std::string tokenizer_json(const Vocabulary& vocabulary, const TrainOptions& options) {
  json added = json::array();
  for (const std::string& token : options.special_tokens)
    added.push_back({{"id", vocabulary.ids.find(token)->second},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const json normalizer =
      options.style == TokenizerStyle::qwen2 ? json{{"type", "NFC"}} : json(nullptr);
  // The vocabulary is written by hand to keep it in the order of the ids.
  std::string text = fmt::format(
      "{{\n\"version\": \"1.0\",\n\"truncation\": null,\n\"padding\": null,\n"
      "\"added_tokens\": {},\n\"normalizer\": {},\n\"pre_tokenizer\": {},\n"
      "\"post_processor\": null,\n\"decoder\": {},\n\"model\": {{\"type\": \"BPE\", "
      "\"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null, "
      "\"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, "
      "\"ignore_merges\": false,\n\"vocab\": {{",
      added.dump(), normalizer.dump(), pre_tokenizer_json(options.style).dump(),
      byte_level(true, true).dump());
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id)
    text += fmt::format("{}{}: {}", id == 0 ? "" : ", ", json(vocabulary.tokens[id]).dump(), id);
  text += "},\n\"merges\": [";
  for (std::size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const std::uint64_t pair = vocabulary.merges[i];
    const std::string both =
        vocabulary.tokens[pair >> 32] + " " + vocabulary.tokens[static_cast<std::uint32_t>(pair)];
    text += (i == 0 ? "" : ", ") + json(both).dump();
  }
  return text + "]}\n}\n";
}

void check(const TrainOptions& options) {
  const auto least = static_cast<std::int64_t>(options.special_tokens.size()) + 256;
  if (options.vocab_size < least || options.vocab_size > kMaxVocabulary)
    fail<ConfigError>(
        fmt::format("tokenizer training: vocab_size must be in {}..{} ({} special tokens and 256 "
                    "bytes), got {}",
                    least, kMaxVocabulary, options.special_tokens.size(), options.vocab_size));
  if (options.min_frequency < 0)
    fail<ConfigError>(fmt::format("tokenizer training: min_frequency must be at least 0, got {}",
                                  options.min_frequency));
  std::vector<std::string> sorted = options.special_tokens;
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const auto& symbols = byte_symbols();
    if (sorted[i].empty() || !is_utf8(sorted[i]) || (i > 0 && sorted[i] == sorted[i - 1]) ||
        std::find(symbols.begin(), symbols.end(), sorted[i]) != symbols.end())
      fail<ConfigError>(fmt::format(
          "tokenizer training: special tokens must be UTF-8, not empty, different from each other "
          "and from the symbols of the byte alphabet, got \"{}\"",
          sorted[i]));
  }
}

}  // namespace

TokenizerStyle tokenizer_style(std::string_view name) {
  if (name == "deepseek") return TokenizerStyle::deepseek;
  if (name == "qwen2") return TokenizerStyle::qwen2;
  if (name == "gpt2") return TokenizerStyle::gpt2;
  fail<ConfigError>(
      fmt::format("tokenizer style: must be deepseek, qwen2 or gpt2, got \"{}\"", name));
}

std::vector<std::string> default_special_tokens() {
  return {"<｜begin▁of▁sentence｜>",
          "<｜end▁of▁sentence｜>",
          "<｜▁pad▁｜>",
          "<image>",
          "<|ref|>",
          "<|/ref|>",
          "<|det|>",
          "<|/det|>",
          "<|grounding|>",
          "<|User|>",
          "<|Assistant|>"};
}

struct TokenizerTrainer::Words {
  std::vector<NormalForm> normalizers;
  PreTokenizer pre_tokenizer{{}};
  PreTokenizer::Scratch scratch;
  StringMap<std::int64_t> counts;
};

TokenizerTrainer::TokenizerTrainer(TrainOptions options)
    : options_(std::move(options)), words_(std::make_unique<Words>()) {
  check(options_);
  std::vector<PreTokenizerStep> steps;
  for (const std::string& pattern : split_patterns(options_.style))
    steps.push_back({.pattern = Regex::compile(pattern)});
  if (steps.empty()) steps.push_back({.pattern = Regex::compile(kByteLevelPattern)});
  words_->pre_tokenizer = PreTokenizer(std::move(steps));
  if (options_.style == TokenizerStyle::qwen2) words_->normalizers = {NormalForm::nfc};
}

TokenizerTrainer::~TokenizerTrainer() = default;
TokenizerTrainer::TokenizerTrainer(TokenizerTrainer&&) noexcept = default;

void TokenizerTrainer::add(std::string_view text) {
  std::string normal = lossy_utf8(text);
  for (const NormalForm form : words_->normalizers) normal = normalize(normal, form);
  words_->pre_tokenizer.split(normal, words_->scratch);
  for (const std::string_view word : words_->scratch.pieces) {
    if (const auto known = words_->counts.find(word); known != words_->counts.end())
      ++known->second;
    else
      words_->counts.emplace(word, 1);
  }
}

Tokenizer TokenizerTrainer::train() const {
  Vocabulary vocabulary;
  for (const std::string& token : options_.special_tokens) vocabulary.add(token);
  std::vector<std::string> alphabet(byte_symbols().begin(), byte_symbols().end());
  std::sort(alphabet.begin(), alphabet.end());  // UTF-8 sorts as the characters do
  for (const std::string& symbol : alphabet) vocabulary.add(symbol);

  std::vector<std::vector<std::int32_t>> words;
  std::vector<std::int64_t> counts;
  for (const auto& [word, count] : words_->counts) {
    auto& ids = words.emplace_back();
    for (const char byte : word)
      ids.push_back(vocabulary.ids.find(byte_symbols()[static_cast<unsigned char>(byte)])->second);
    counts.push_back(count);
  }
  PairMerger merger(std::move(words), std::move(counts));
  PairMerger::Candidate best;
  while (static_cast<std::int64_t>(vocabulary.tokens.size()) < options_.vocab_size &&
         merger.pop(best) && best.count >= options_.min_frequency) {
    const std::string token = vocabulary.tokens[best.pair >> 32] +
                              vocabulary.tokens[static_cast<std::uint32_t>(best.pair)];
    const std::int32_t id = vocabulary.add(token);
    vocabulary.merges.push_back(best.pair);
    merger.merge(best, id);
  }
  return Tokenizer::from_json(tokenizer_json(vocabulary, options_), "trained tokenizer");
}

Tokenizer train_tokenizer(std::span<const std::string> texts, const TrainOptions& options) {
  TokenizerTrainer trainer(options);
  for (const std::string& text : texts) trainer.add(text);
  return trainer.train();
}

}  // namespace lectern
