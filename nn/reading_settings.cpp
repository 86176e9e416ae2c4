#include "nn/reading_settings.h"

#include "core/io/fields.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {

void parse_reading(const Fields& in, ReadingSettings& out) {
  out.global_size = in.size("global_size", out.global_size, 1, 1 << 16);
  out.tile_size = in.size("tile_size", out.tile_size, 1, 1 << 16);
  out.crop = in.boolean("crop", out.crop);
  out.prompt = in.text("prompt", out.prompt);
  out.by_pieces = in.choice("read_by", "page", {"page", "pieces"}) == "pieces";
  out.piece_width = in.size("piece_width", out.piece_width, 1, 1 << 16);
  out.piece_dpi = in.number("piece_dpi", out.piece_dpi, 18, 1200);
  out.piece_margin = in.size("piece_margin", std::min(out.piece_margin, (out.global_size - 1) / 2),
                             0, (out.global_size - 1) / 2);
  out.piece_text_height = in.size("piece_text_height", out.piece_text_height, 0, 1024);
  out.piece_at_top = in.choice("piece_at", "middle", {"middle", "top"}) == "top";
}

void write_reading(const ReadingSettings& reading, nlohmann::json& out) {
  out["global_size"] = reading.global_size;
  out["tile_size"] = reading.tile_size;
  out["crop"] = reading.crop;
  out["prompt"] = reading.prompt;
  if (!reading.by_pieces) return;
  out["read_by"] = "pieces";
  out["piece_width"] = reading.piece_width;
  out["piece_dpi"] = reading.piece_dpi;
  out["piece_margin"] = reading.piece_margin;
  out["piece_text_height"] = reading.piece_text_height;
  out["piece_at"] = reading.piece_at_top ? "top" : "middle";
}

}  // namespace lectern
