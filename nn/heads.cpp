#include "nn/heads.h"

#include "core/error.h"

namespace lectern {

void check_heads(const std::string& where, std::int64_t hidden, std::int64_t heads,
                 std::int64_t kv_heads, const HeadNames& names) {
  if (hidden % heads != 0)
    fail<ConfigError>(fmt::format("{}.{}: must be a multiple of {} {}, got {}", where, names.width,
                                  names.heads, heads, hidden));
  if (heads % kv_heads != 0)
    fail<ConfigError>(fmt::format("{}.{}: must be a multiple of {} {}, got {}", where, names.heads,
                                  names.kv_heads, kv_heads, heads));
}

void check_even_head(const std::string& where, std::int64_t head_dim) {
  if (head_dim % 2 != 0)
    fail<ConfigError>(
        fmt::format("{}.head_dim: must be even (rotary pairs), got {}", where, head_dim));
}

}  // namespace lectern
