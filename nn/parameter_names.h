// Reading the names that checkpoints give parameters.
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace lectern {

/// 7 of "model.layers.7.mlp..." after the prefix "model.layers.".
inline std::optional<std::int64_t> layer_after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

}  // namespace lectern
