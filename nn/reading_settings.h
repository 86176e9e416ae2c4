// How a model was trained to be asked.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <string>

namespace lectern {

class Fields;

/// How a model was trained to be asked; kept under "lectern" in config.json so that reading,
/// scoring and going on with training need no flags.
struct ReadingSettings {
  /// What a page is read by: as a whole through its views, or in pieces of lines, each in a view of
  /// its own, for models whose view is too small for a page.
  bool by_pieces = false;              ///< `read_by` "page" or "pieces"
  std::int64_t piece_width = 112;      ///< pixels of the page at piece_dpi: longest run of words
  double piece_dpi = 100;              ///< dots per inch of the pages that pieces were cut from
  std::int64_t piece_margin = 4;       ///< white left of a piece
  std::int64_t piece_text_height = 0;  ///< pixels that pieces are scaled to; 0: as they are
  bool piece_at_top =
      false;  ///< `piece_at` "top" or "middle": where in the view's height pieces lie
  std::int64_t global_size = 1024;  ///< pixels a side of the padded view of the whole picture
  std::int64_t tile_size = 768;     ///< pixels a side of a local tile
  bool crop = true;                 ///< cut local tiles as the reference does
  std::string prompt = "<image>\nFree OCR.";
};

/// Reads the keys of "lectern" over what `out` has. Throws ConfigError.
void parse_reading(const Fields& in, ReadingSettings& out);
/// Writes them into that object.
void write_reading(const ReadingSettings& reading, nlohmann::json& out);

}  // namespace lectern
