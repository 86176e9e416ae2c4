// Checks of attention sizes that every configuration shares.
#pragma once

#include <cstdint>
#include <string>

namespace lectern {

/// What a file calls the sizes that check_heads() compares.
struct HeadNames {
  const char* width = "hidden_size";
  const char* heads = "num_attention_heads";
  const char* kv_heads = "num_key_value_heads";
};

/// Throws ConfigError unless the heads divide the width and the key-value heads the heads.
void check_heads(const std::string& where, std::int64_t hidden, std::int64_t heads,
                 std::int64_t kv_heads, const HeadNames& names = {});
/// Throws ConfigError for an odd head size: rotary positions turn pairs.
void check_even_head(const std::string& where, std::int64_t head_dim);

}  // namespace lectern
