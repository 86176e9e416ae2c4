#include "data/pairs/key_set.h"

#include "core/io/files.h"

#include <charconv>

namespace lectern::detail {

PairKey key_of_hash(std::string_view sha256) {
  constexpr std::size_t kDigits = 16;
  PairKey out;
  std::from_chars(sha256.data(), sha256.data() + kDigits, out.high, 16);
  std::from_chars(sha256.data() + kDigits, sha256.data() + 2 * kDigits, out.low, 16);
  if (out == PairKey{}) out.low = 1;  // which stands for a free slot
  return out;
}

PairKey key_of_text(std::string_view text) { return key_of_hash(sha256_of(text)); }

/// The slot of the key, or the free one where it belongs. There is always a free one.
std::size_t KeySet::place_of(const PairKey& key) const {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = key.low & mask;
  while (!(slots_[at] == PairKey{}) && !(slots_[at] == key)) at = (at + 1) & mask;
  return at;
}

bool KeySet::contains(const PairKey& key) const {
  return !slots_.empty() && slots_[place_of(key)] == key;
}

bool KeySet::insert(const PairKey& key) {
  constexpr std::size_t kFirstSlots = 1024;
  if (4 * (count_ + 1) > 3 * slots_.size()) {
    std::vector<PairKey> old(slots_.empty() ? kFirstSlots : 2 * slots_.size());
    old.swap(slots_);
    for (const PairKey& each : old)
      if (!(each == PairKey{})) slots_[place_of(each)] = each;
  }
  const std::size_t at = place_of(key);
  if (slots_[at] == key) return false;
  slots_[at] = key;
  ++count_;
  return true;
}

}  // namespace lectern::detail
