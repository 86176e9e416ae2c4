#include "recipes/parity/ocr2_preprocess.h"

#include "core/error.h"
#include "core/io/file.h"
#include "core/io/safetensors.h"
#include "data/images/views.h"
#include "nn/ocr2/config.h"
#include "recipes/read/reader.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>

namespace lectern {
namespace {

ParityRow make_row(std::string what, double difference, double bound, std::string note = "") {
  return {std::move(what), difference, bound, difference <= bound, std::move(note)};
}

/// Cases of grids.json whose grid or token count differs; the first one is named in the note.
ParityRow compare_grids(const std::filesystem::path& path) {
  const nlohmann::json cases = parse_json(read_file(path), path.string());
  const ViewOptions options = view_options(Ocr2Config());
  int wrong = 0;
  std::string note;
  if (!cases.is_array() || cases.empty())
    fail<IoError>(fmt::format("{}: must be a non-empty array", path.string()));
  for (const auto& item : cases) {
    if (!item.is_array() || item.size() != 5 ||
        !std::all_of(item.begin(), item.end(),
                     [](const auto& number) { return number.is_number_integer(); }))
      fail<IoError>(
          fmt::format("{}: each case must be 5 integers, got {}", path.string(), item.dump()));
    const ViewGrid grid =
        choose_grid(item[0].get<std::int64_t>(), item[1].get<std::int64_t>(), options);
    const std::int64_t tokens = image_token_count(options, grid);
    if (item[2] == grid.columns && item[3] == grid.rows && item[4] == tokens) continue;
    if (wrong++ == 0)
      note =
          fmt::format("{}: got {} x {}, {} tokens", item.dump(), grid.columns, grid.rows, tokens);
  }
  if (note.empty()) note = fmt::format("{} grids", cases.size());
  return make_row("grids.json, cases that differ", wrong, 0, note);
}

Image image_from(const Tensor& tensor, const std::string& what) {
  if (tensor.dtype() != DType::u8 || tensor.ndim() != 3 || tensor.dim(2) != 3 ||
      tensor.numel() == 0)
    fail<IoError>(
        fmt::format("{}: must be [height, width, 3] u8, got {}", what, tensor.describe()));
  Image image = make_image(tensor.dim(1), tensor.dim(0));
  std::memcpy(image.pixels.data(), tensor.raw(), image.pixels.size());
  return image;
}

void check_views(const Tensor& tensor, const std::string& what) {
  if (tensor.dtype() != DType::u8 || tensor.ndim() != 4 || tensor.dim(1) != 3 ||
      tensor.dim(2) != tensor.dim(3) || tensor.numel() == 0)
    fail<IoError>(
        fmt::format("{}: must be [n, 3, size, size] u8, got {}", what, tensor.describe()));
}

/// Largest difference in 8-bit steps; the whole range when the number of views differs.
ParityRow compare_views(const std::string& what, const std::vector<Image>& got, const Tensor& want,
                        double bound) {
  if (want.dim(0) != static_cast<std::int64_t>(got.size()))
    return make_row(what, 255, bound,
                    fmt::format("got {} views, want {}", got.size(), want.dim(0)));
  int largest = 0;
  std::int64_t differing = 0;
  const std::int64_t pixels = want.dim(2) * want.dim(3);
  const std::uint8_t* reference = want.data<std::uint8_t>();
  for (const Image& view : got) {
    for (std::int64_t c = 0; c < 3; ++c)
      for (std::int64_t i = 0; i < pixels; ++i, ++reference) {
        const int difference = std::abs(view.pixels[i * 3 + c] - *reference);
        largest = std::max(largest, difference);
        differing += difference != 0;
      }
  }
  return make_row(
      what, largest, bound,
      differing == 0 ? "equal" : fmt::format("{} of {} values differ", differing, want.numel()));
}

/// Names x with x + ending in the file.
std::vector<std::string> stems(const SafetensorsFile& file, const std::string& ending) {
  std::vector<std::string> out;
  for (const std::string& name : file.names())
    if (name.size() > ending.size() && name.ends_with(ending))
      out.push_back(name.substr(0, name.size() - ending.size()));
  return out;
}

/// Side of the local tiles: all images of a folder went through one processor, and those too small
/// for tiles do not show it themselves.
std::optional<std::int64_t> tile_size_of(const SafetensorsFile& file) {
  const std::vector<std::string> tiled = stems(file, ".local");
  if (tiled.empty()) return std::nullopt;
  const Tensor tensor = file.get(tiled.front() + ".local");
  check_views(tensor, file.path().string() + ": " + tiled.front() + ".local");
  return tensor.dim(2);
}

}  // namespace

ParityReport parity_preprocess(const std::filesystem::path& folder) {
  ParityReport report;
  report.rows.push_back(compare_grids(folder / "grids.json"));
  const SafetensorsFile file = SafetensorsFile::open(folder / "pixels.safetensors");
  const std::string where = file.path().string() + ": ";
  const std::optional<std::int64_t> tile = tile_size_of(file);
  const std::vector<std::string> cases = stems(file, ".global");
  if (cases.empty()) fail<IoError>(where + "must have tensors <name>.<backend>.global, got none");
  for (const std::string& name : cases) {  // "wide.pil"
    const std::size_t dot = name.rfind('.');
    const std::string image_name = name.substr(0, dot) + ".image";
    const Image image = image_from(file.get(image_name), where + image_name);
    const Tensor global = file.get(name + ".global");
    check_views(global, where + name + ".global");
    ViewOptions options;
    options.global_size = global.dim(2);
    options.crop = tile.has_value();
    if (tile) options.tile_size = *tile;
    const ImageViews views = make_views(image, options);
    const double bound = dot != std::string::npos && name.substr(dot) == ".pil" ? 0 : 1;
    report.rows.push_back(compare_views(name + ".global", {views.global}, global, bound));
    if (file.contains(name + ".local")) {
      const Tensor local = file.get(name + ".local");
      check_views(local, where + name + ".local");
      report.rows.push_back(compare_views(name + ".local", views.local, local, bound));
    } else if (!views.local.empty()) {
      report.rows.push_back(make_row(name + ".local", 255, bound,
                                     fmt::format("got {} tiles, want none", views.local.size())));
    }
  }
  return report;
}

}  // namespace lectern
