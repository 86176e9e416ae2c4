#include "nn/language/decoding_cache.h"

#include <algorithm>
#include <utility>

namespace lectern {

DecodingCache::DecodingCache(const DecoderConfig& config, std::int64_t batch, std::int64_t capacity,
                             DType dtype, Device device)
    : capacity_(capacity), lengths_(static_cast<std::size_t>(batch), 0) {
  const Shape shape{batch, 0, config.num_key_value_heads * config.head_dim};
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i)
    layers_.push_back({Tensor::empty(shape, dtype, device), Tensor::empty(shape, dtype, device)});
}

std::int64_t DecodingCache::longest() const {
  return lengths_.empty() ? 0 : *std::max_element(lengths_.begin(), lengths_.end());
}

void DecodingCache::reserve(std::int64_t tokens) {
  constexpr std::int64_t kBlock = 256;
  if (tokens > reserved())
    resize(batch(), std::min(capacity_, (tokens + kBlock - 1) / kBlock * kBlock));
}

void DecodingCache::resize(std::int64_t sequences, std::int64_t tokens) {
  const std::int64_t used = longest();
  const auto grow = [&](Tensor& rows) {
    const Tensor larger =
        Tensor::empty({sequences, tokens, rows.dim(2)}, rows.dtype(), rows.device());
    larger.slice(0, 0, batch()).slice(1, 0, used).copy_from(rows.slice(1, 0, used));
    rows = larger;
  };
  for (LayerCache& layer : layers_) {
    grow(layer.keys);
    grow(layer.values);
  }
  lengths_.resize(static_cast<std::size_t>(sequences), 0);
}

void DecodingCache::take(const DecodingCache& other, const std::vector<std::int64_t>& rows,
                         const std::vector<std::int64_t>& places) {
  capacity_ = std::max(capacity_, other.capacity_);
  std::int64_t sequences = batch(), tokens = 0;
  for (const std::int64_t row : rows) tokens = std::max(tokens, other.length(row));
  for (const std::int64_t place : places) sequences = std::max(sequences, place + 1);
  reserve(tokens);
  if (sequences > batch()) resize(sequences, reserved());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t used = other.length(rows[i]);
    const auto copy = [&](const Tensor& to, const Tensor& from) {
      to.slice(0, places[i], places[i] + 1)
          .slice(1, 0, used)
          .copy_from(from.slice(0, rows[i], rows[i] + 1).slice(1, 0, used));
    };
    for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
      copy(layers_[layer].keys, other.layers_[layer].keys);
      copy(layers_[layer].values, other.layers_[layer].values);
    }
    lengths_[static_cast<std::size_t>(places[i])] = used;
  }
}

void DecodingCache::keep(const std::vector<std::int64_t>& sequences) {
  const auto gather = [&](Tensor& rows) {
    const auto count = static_cast<std::int64_t>(sequences.size());
    const Tensor kept =
        Tensor::empty({count, rows.dim(1), rows.dim(2)}, rows.dtype(), rows.device());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t from = sequences[static_cast<std::size_t>(i)];
      const std::int64_t used = length(from);
      kept.slice(0, i, i + 1)
          .slice(1, 0, used)
          .copy_from(rows.slice(0, from, from + 1).slice(1, 0, used));
    }
    rows = kept;
  };
  for (LayerCache& layer : layers_) {
    gather(layer.keys);
    gather(layer.values);
  }
  std::vector<std::int64_t> lengths;
  for (const std::int64_t from : sequences) lengths.push_back(length(from));
  lengths_ = std::move(lengths);
}

}  // namespace lectern
