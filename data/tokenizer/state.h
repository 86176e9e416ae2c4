// What a Tokenizer holds: tables that reading a tokenizer.json fills (json.cpp) and that
// encoding and decoding use (tokenizer.cpp). Private to this room.
#pragma once

#include "data/text/utf8.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/byte_pair.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer.h"

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace lectern {

/// Lets an unordered_map of strings be searched with a string_view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
template <typename Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

struct Tokenizer::State {
  struct Token {
    std::string text;   // as the file writes it
    std::string bytes;  // what it decodes to
    bool present = false;
    bool special = false;
  };
  /// Working memory of one encode() at a time.
  struct Workspace {
    struct Ids {
      std::uint32_t begin, count;
    };
    PreTokenizer::Scratch pieces;
    MergeScratch merges;
    std::vector<std::int32_t> word;
    StringMap<Ids> known_words;
    std::vector<std::int32_t> known_ids;
  };
  /// Takes a workspace from the pool, gives it back at the end of the scope.
  class Lease {
   public:
    explicit Lease(const State& state);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Workspace* operator->() { return workspace_.get(); }
    Workspace& operator*() { return *workspace_; }

   private:
    const State& state_;
    std::unique_ptr<Workspace> workspace_;
  };

  std::string normalized(std::string_view text) const;
  void encode_piece(std::string_view text, Workspace& work, std::vector<std::int32_t>& ids) const;
  void encode_word(std::string_view word, Workspace& work, std::vector<std::int32_t>& ids) const;

  std::string json;
  std::vector<NormalForm> normalizers;
  PreTokenizer pre_tokenizer{{}};
  MergeTable merges;
  std::array<std::int32_t, 256> byte_ids{};  // -1: no symbol, dropped
  bool ignore_merges = false;
  StringMap<std::int32_t> ids;
  std::vector<Token> tokens;  // by id
  AddedTokenMatcher raw_added, normalized_added;
  std::vector<std::int32_t> template_before, template_after;

  mutable std::mutex pool_mutex;
  mutable std::vector<std::unique_ptr<Workspace>> pool;
};

}  // namespace lectern
