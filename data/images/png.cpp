#include "core/error.h"
#include "data/images/codecs.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <exception>
#include <limits>

namespace lectern {
namespace {

/// What libpng's callbacks need; lives outside every frame that longjmp skips.
struct PngState {
  std::span<const std::uint8_t> input;
  std::size_t position = 0;
  std::vector<std::uint8_t>* output = nullptr;
  std::array<char, 160> message{};
};

void on_error(png_structp png, png_const_charp message) {
  auto* state = static_cast<PngState*>(png_get_error_ptr(png));
  std::snprintf(state->message.data(), state->message.size(), "%s", message);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, png_size_t count) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  if (count > state->input.size() - state->position) png_error(png, "file is truncated");
  std::memcpy(to, state->input.data() + state->position, count);
  state->position += count;
}

void on_write(png_structp png, png_bytep from, png_size_t count) {
  auto* state = static_cast<PngState*>(png_get_io_ptr(png));
  bool stored = false;
  try {
    state->output->insert(state->output->end(), from, from + count);
    stored = true;
  } catch (const std::exception&) {  // must not travel through libpng's C frames
  }
  if (!stored) png_error(png, "out of memory");
}

void on_flush(png_structp) {}

/// Runs f(), which calls libpng and must hold no object with a destructor; false when libpng
/// jumped out.
template <typename F>
bool guarded(png_structp png, F&& f) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  f();
  return true;
}

struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  explicit Reader(PngState* state) {
    png = png_create_read_struct(PNG_LIBPNG_VER_STRING, state, on_error, on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
};

struct Writer {
  png_structp png = nullptr;
  png_infop info = nullptr;
  explicit Writer(PngState* state) {
    png = png_create_write_struct(PNG_LIBPNG_VER_STRING, state, on_error, on_warning);
    if (png != nullptr) info = png_create_info_struct(png);
  }
  ~Writer() { png_destroy_write_struct(&png, &info); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
};

/// Lays a row of RGBA on white.
void blend_row(const std::uint8_t* from, std::int64_t width, std::uint8_t* to) {
  for (std::int64_t x = 0; x < width; ++x)
    for (int c = 0; c < 3; ++c) {
      const int alpha = from[x * 4 + 3];
      to[x * 3 + c] =
          static_cast<std::uint8_t>((from[x * 4 + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
}

bool is_grey(const Image& image) {
  for (std::size_t i = 0; i < image.pixels.size(); i += 3)
    if (image.pixels[i] != image.pixels[i + 1] || image.pixels[i] != image.pixels[i + 2])
      return false;
  return true;
}

}  // namespace

Image detail::decode_png(std::span<const std::uint8_t> bytes, const std::string& name,
                         std::int64_t max_pixels) {
  PngState state;
  state.input = bytes;
  const auto malformed = [&]() {
    fail<IoError>(fmt::format("{}: PNG is malformed: {}", name, state.message.data()));
  };
  Reader reader(&state);
  png_structp png = reader.png;
  png_infop info = reader.info;
  if (info == nullptr) fail<IoError>(fmt::format("{}: PNG: out of memory", name));
  if (!guarded(png, [&] {
        png_set_read_fn(png, &state, on_read);
        png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
        png_set_chunk_malloc_max(png, 1 << 20);
        png_set_chunk_cache_max(png, 64);
        png_read_info(png, info);
      }))
    malformed();
  const std::int64_t width = png_get_image_width(png, info);
  const std::int64_t height = png_get_image_height(png, info);
  const double raw = static_cast<double>(png_get_rowbytes(png, info)) * static_cast<double>(height);
  // Deflate cannot pack better than 1032 to 1.
  check_image_size(name, bytes.size(), width, height, max_pixels, raw, 1032);

  int passes = 1, channels = 0;
  if (!guarded(png, [&] {
        png_set_expand(png);
        png_set_scale_16(png);
        png_set_gray_to_rgb(png);
        passes = png_set_interlace_handling(png);
        png_read_update_info(png, info);
        channels = png_get_channels(png, info);
      }))
    malformed();
  if (channels != 3 && channels != 4)
    fail<IoError>(fmt::format("{}: PNG: 3 or 4 channels expected, got {}", name, channels));

  Image image = make_image(width, height);
  // Interlaced rows are refined pass by pass, so all of them stay in the decoder's layout.
  std::vector<std::uint8_t> rgba;
  const std::int64_t kept_rows = passes > 1 ? height : 1;
  if (channels == 4) rgba.resize(static_cast<std::size_t>(width * kept_rows * 4));
  if (!guarded(png, [&] {
        for (int pass = 0; pass < passes; ++pass)
          for (std::int64_t y = 0; y < height; ++y) {
            std::uint8_t* row =
                channels == 3 ? image.row(y) : rgba.data() + (passes > 1 ? y : 0) * width * 4;
            png_read_row(png, row, nullptr);
            if (channels == 4 && pass == passes - 1) blend_row(row, width, image.row(y));
          }
        png_read_end(png, nullptr);
      }))
    malformed();
  return image;
}

std::vector<std::uint8_t> encode_png(const Image& image, int compression) {
  constexpr std::int64_t kMax = std::numeric_limits<std::int32_t>::max();
  if (image.width <= 0 || image.height <= 0 || image.width > kMax || image.height > kMax ||
      image.pixels.size() !=
          static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3)
    fail<IoError>(
        fmt::format("encode_png: image must be [height, width, 3] and not empty, got "
                    "{} x {} with {} bytes",
                    image.width, image.height, image.pixels.size()));
  const bool grey = is_grey(image);
  std::vector<std::uint8_t> out, line(grey ? static_cast<std::size_t>(image.width) : 0);
  PngState state;
  state.output = &out;
  Writer writer(&state);
  png_structp png = writer.png;
  png_infop info = writer.info;
  if (info == nullptr) fail<IoError>("encode_png: out of memory");
  if (!guarded(png, [&] {
        png_set_write_fn(png, &state, on_write, on_flush);
        png_set_compression_level(png, std::clamp(compression, 1, 9));
        // Flat paper with sharp glyphs: unfiltered rows pack about as well as filtered ones, and
        // the choice among five filters costs more than the packing.
        png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
        png_set_IHDR(png, info, static_cast<png_uint_32>(image.width),
                     static_cast<png_uint_32>(image.height), 8,
                     grey ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                     PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
        png_write_info(png, info);
        for (std::int64_t y = 0; y < image.height; ++y) {
          const std::uint8_t* row = image.row(y);
          if (grey) {
            for (std::int64_t x = 0; x < image.width; ++x)
              line[static_cast<std::size_t>(x)] = row[x * 3];
            row = line.data();
          }
          png_write_row(png, row);
        }
        png_write_end(png, info);
      }))
    fail<IoError>(fmt::format("encode_png: {}", state.message.data()));
  return out;
}

}  // namespace lectern
