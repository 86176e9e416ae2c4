#include "data/tokenizer/tokenizer.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/tokenizer/state.h"

namespace lectern {
namespace {

// Words repeat: most of a text is found in a table of this many words, each at most this long.
constexpr std::size_t kKnownWords = 1 << 16;
constexpr std::size_t kKnownWordBytes = 64;

}  // namespace

Tokenizer::State::Lease::Lease(const State& state) : state_(state) {
  {
    const std::lock_guard lock(state.pool_mutex);
    if (!state.pool.empty()) {
      workspace_ = std::move(state.pool.back());
      state.pool.pop_back();
    }
  }
  if (!workspace_) workspace_ = std::make_unique<Workspace>();
}

Tokenizer::State::Lease::~Lease() {
  const std::lock_guard lock(state_.pool_mutex);
  state_.pool.push_back(std::move(workspace_));
}

std::string Tokenizer::State::normalized(std::string_view text) const {
  std::string out(text);
  for (const NormalForm form : normalizers) out = normalize(out, form);
  return out;
}

void Tokenizer::State::encode_word(std::string_view word, Workspace& work,
                                   std::vector<std::int32_t>& ids) const {
  const bool short_enough = word.size() <= kKnownWordBytes;
  if (short_enough) {
    if (const auto known = work.known_words.find(word); known != work.known_words.end()) {
      const auto begin = work.known_ids.begin() + known->second.begin;
      ids.insert(ids.end(), begin, begin + known->second.count);
      return;
    }
  }
  work.word.clear();
  if (ignore_merges) {
    if (const auto whole = this->ids.find(to_byte_symbols(word)); whole != this->ids.end())
      work.word.push_back(whole->second);
  }
  if (work.word.empty()) {
    for (const char byte : word)
      if (const std::int32_t id = byte_ids[static_cast<unsigned char>(byte)]; id >= 0)
        work.word.push_back(id);
    merge_pairs(merges, work.word, work.merges);
  }
  ids.insert(ids.end(), work.word.begin(), work.word.end());
  if (!short_enough) return;
  if (work.known_words.size() >= kKnownWords) {
    work.known_words.clear();
    work.known_ids.clear();
  }
  const auto begin = static_cast<std::uint32_t>(work.known_ids.size());
  work.known_ids.insert(work.known_ids.end(), work.word.begin(), work.word.end());
  work.known_words.emplace(word,
                           Workspace::Ids{begin, static_cast<std::uint32_t>(work.word.size())});
}

void Tokenizer::State::encode_piece(std::string_view text, Workspace& work,
                                    std::vector<std::int32_t>& ids) const {
  pre_tokenizer.split(text, work.pieces);
  for (const std::string_view word : work.pieces.pieces) encode_word(word, work, ids);
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  return from_json(read_file(path), path.string());
}

void Tokenizer::save(const std::filesystem::path& path) const { write_file(path, state_->json); }

const std::string& Tokenizer::json() const { return state_->json; }

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = lossy_utf8(text);
  State::Lease work(*state_);
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special) ids = state_->template_before;
  std::vector<AddedTokenMatcher::Piece> raw_pieces, pieces;
  state_->raw_added.cut(text, raw_pieces);
  for (const auto& raw : raw_pieces) {
    if (raw.token != nullptr) {
      ids.push_back(raw.token->id);
      continue;
    }
    std::string normal;
    std::string_view ordinary = raw.text;
    if (!state_->normalizers.empty()) ordinary = normal = state_->normalized(raw.text);
    pieces.clear();
    state_->normalized_added.cut(ordinary, pieces);
    for (const auto& piece : pieces) {
      if (piece.token != nullptr)
        ids.push_back(piece.token->id);
      else
        state_->encode_piece(piece.text, *work, ids);
    }
  }
  if (add_special)
    ids.insert(ids.end(), state_->template_after.begin(), state_->template_after.end());
  return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= id_limit()) continue;
    const State::Token& token = state_->tokens[id];
    if (!(skip_special && token.special)) bytes += token.bytes;
  }
  return is_utf8(bytes) ? bytes : lossy_utf8(bytes);
}

std::vector<std::string> Tokenizer::pre_tokenize(std::string_view text) const {
  const std::string normal = state_->normalized(lossy_utf8(text));
  State::Lease work(*state_);
  state_->pre_tokenizer.split(normal, work->pieces);
  std::vector<std::string> pieces;
  for (const std::string_view piece : work->pieces.pieces) pieces.push_back(to_byte_symbols(piece));
  return pieces;
}

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(state_->ids.size()); }

std::int64_t Tokenizer::id_limit() const {
  return static_cast<std::int64_t>(state_->tokens.size());
}

std::optional<std::int32_t> Tokenizer::token_to_id(std::string_view token) const {
  const auto found = state_->ids.find(token);
  if (found == state_->ids.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string> Tokenizer::id_to_token(std::int32_t id) const {
  if (id < 0 || id >= id_limit() || !state_->tokens[id].present) return std::nullopt;
  return state_->tokens[id].text;
}

bool Tokenizer::is_special(std::int32_t id) const {
  return id >= 0 && id < id_limit() && state_->tokens[id].special;
}

}  // namespace lectern
