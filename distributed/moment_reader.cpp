#include "distributed/moment_reader.h"

#include "core/error.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

namespace lectern {
namespace {

/// "name[16:48]" -> 16, 48 and the length of "name"; nothing for any other text.
struct Range {
  std::int64_t begin = 0, end = 0;
  std::size_t name_length = 0;
};
std::optional<Range> range_of(std::string_view text) {
  const auto bracket = text.rfind('[');
  if (!text.ends_with(']') || bracket == std::string_view::npos) return {};
  Range out;
  out.name_length = bracket;
  const char* const last = text.data() + text.size() - 1;
  const auto first = std::from_chars(text.data() + bracket + 1, last, out.begin);
  if (first.ec != std::errc() || first.ptr == last || *first.ptr != ':') return {};
  const auto second = std::from_chars(first.ptr + 1, last, out.end);
  if (second.ec != std::errc() || second.ptr != last || out.begin < 0 || out.end <= out.begin)
    return {};
  return out;
}

}  // namespace

MomentReader::MomentReader(const SafetensorsFolder& files) : files_(files) {
  for (const std::string& stored : files.names()) {
    const std::string_view name = stored;
    const auto dot = name.rfind('.');
    if (dot == std::string_view::npos) continue;
    const std::string_view kind = name.substr(dot), owner = name.substr(0, dot);
    if (kind != ".exp_avg" && kind != ".exp_avg_sq") continue;
    const std::int64_t elements = files.shape_of(stored).numel();
    const auto range = range_of(owner);
    if (range && range->end - range->begin != elements)
      fail<IoError>(fmt::format("checkpoint: {} must have {} elements as its name says, got {}",
                                stored, range->end - range->begin, elements));
    const std::string_view parameter = range ? owner.substr(0, range->name_length) : owner;
    pieces_[std::string(parameter) + std::string(kind)].push_back(
        {stored, range ? range->begin : 0, range ? range->end : elements});
  }
  for (auto& [moment, pieces] : pieces_)
    std::sort(pieces.begin(), pieces.end(),
              [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
}

Tensor MomentReader::read(const std::string& moment, std::int64_t begin, std::int64_t end) const {
  const Tensor out = Tensor::empty({end - begin});
  std::int64_t at = begin;
  const auto found = pieces_.find(moment);
  if (found != pieces_.end()) {
    for (const Piece& piece : found->second) {
      if (piece.end <= at || piece.begin > at || at >= end) continue;
      const std::int64_t until = std::min(piece.end, end);
      const Tensor stored = files_.get(piece.stored);
      check_dtype(stored, DType::f32, "checkpoint", piece.stored);
      out.slice(0, at - begin, until - begin)
          .copy_from(stored.view({-1}).slice(0, at - piece.begin, until - piece.begin));
      at = until;
    }
  }
  if (at < end)
    fail<IoError>(
        fmt::format("checkpoint: optimizer-*.safetensors must have elements {} to {} of "
                    "{}, got none from {} on",
                    begin, end, moment, at));
  return out;
}

}  // namespace lectern
