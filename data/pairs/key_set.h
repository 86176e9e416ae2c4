// Keys of what was seen, sixteen bytes each and no more than twice as much memory. Private to this
// room.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace lectern::detail {

/// The first half of a SHA-256: two texts of one key are not met with.
struct PairKey {
  std::uint64_t high = 0, low = 0;
  bool operator==(const PairKey&) const = default;
};

/// The key of a text.
PairKey key_of_text(std::string_view text);
/// The key that a SHA-256 in hexadecimal begins with.
PairKey key_of_hash(std::string_view sha256);

/// A set with open addressing.
class KeySet {
 public:
  bool contains(const PairKey& key) const;
  /// False when it was in already.
  bool insert(const PairKey& key);

 private:
  std::size_t place_of(const PairKey& key) const;

  std::vector<PairKey> slots_;  // {0, 0}: free
  std::size_t count_ = 0;
};

}  // namespace lectern::detail
