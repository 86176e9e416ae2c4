#include "core/error.h"
#include "data/images/codecs.h"
#include "data/images/exif.h"

#include <spng.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string_view>
#include <utility>

namespace lectern {
namespace {

struct FreeContext {
  void operator()(spng_ctx* context) const { spng_ctx_free(context); }
};
using Context = std::unique_ptr<spng_ctx, FreeContext>;

/// Bytes of text and colour profiles, which nobody here reads, but libspng does: for one chunk and
/// for all of them.
constexpr std::size_t kMostOfAChunk = std::size_t{1} << 24, kMostOfChunks = std::size_t{1} << 26;

struct Source {
  std::span<const std::uint8_t> bytes;
  std::size_t position = 0;
  bool is_cut = false;
};

int read_from(spng_ctx*, void* from, void* to, std::size_t count) {
  auto* source = static_cast<Source*>(from);
  source->is_cut = source->is_cut || count > source->bytes.size() - source->position;
  if (source->is_cut) return SPNG_IO_EOF;
  std::memcpy(to, source->bytes.data() + source->position, count);
  source->position += count;
  return SPNG_OK;
}

constexpr std::string_view kExif = "eXIf";
constexpr std::size_t kSignature = 8, kAround = 12;  // length, type and checksum of a chunk

/// The next chunk of this type from `at` on, with what is around it; empty when there is none.
std::span<const std::uint8_t> find_chunk(std::span<const std::uint8_t> png, std::string_view type,
                                         std::size_t at = kSignature) {
  while (at <= png.size() && png.size() - at >= kAround) {
    const std::size_t length = std::size_t{png[at]} << 24 | std::size_t{png[at + 1]} << 16 |
                               std::size_t{png[at + 2]} << 8 | png[at + 3];
    if (length > png.size() - at - kAround) break;
    if (std::memcmp(&png[at + 4], type.data(), 4) == 0) return png.subspan(at, kAround + length);
    at += kAround + length;
  }
  return {};
}

int png_orientation(std::span<const std::uint8_t> png) {
  const auto chunk = find_chunk(png, kExif);
  return chunk.empty() ? 1 : exif_orientation(chunk.subspan(8, chunk.size() - kAround));
}

/// The PNG without empty EXIF chunks, which libspng refuses; `storage` holds it where it has some.
std::span<const std::uint8_t> without_empty_exif(std::span<const std::uint8_t> png,
                                                 std::vector<std::uint8_t>& storage) {
  for (std::size_t at = kSignature;;) {
    const auto chunk = find_chunk(png, kExif, at);
    if (chunk.empty()) return png;
    at = static_cast<std::size_t>(chunk.data() - png.data());
    if (chunk.size() > kAround) {
      at += chunk.size();
      continue;
    }
    if (storage.empty()) storage.assign(png.begin(), png.end());
    const auto begin = storage.begin() + static_cast<std::ptrdiff_t>(at);
    storage.erase(begin, begin + kAround);
    png = storage;
  }
}

/// A row of RGBA on white. 16-bit samples are scaled to 8 bits, to the nearest.
template <typename Sample>
void lay_on_white(const Sample* from, std::int64_t width, std::uint8_t* to) {
  const auto byte_of = [](Sample sample) {
    return sizeof(Sample) == 1 ? static_cast<int>(sample) : (sample * 255 + 32895) >> 16;
  };
  for (std::int64_t x = 0; x < width; ++x) {
    const int alpha = byte_of(from[x * 4 + 3]);
    for (int c = 0; c < 3; ++c)
      to[x * 3 + c] = static_cast<std::uint8_t>(
          (byte_of(from[x * 4 + c]) * alpha + 255 * (255 - alpha) + 127) / 255);
  }
}

bool is_grey(const Image& image) {
  for (std::size_t i = 0; i < image.pixels.size(); i += 3)
    if (image.pixels[i] != image.pixels[i + 1] || image.pixels[i] != image.pixels[i + 2])
      return false;
  return true;
}

/// Bytes of the unpacked rows, without those that name their filters.
double raw_bytes(const spng_ihdr& header) {
  constexpr std::array<std::int64_t, 7> kChannels = {1, 0, 3, 1, 2, 0, 4};  // by colour type
  const std::int64_t bits = header.width * kChannels[header.color_type] * header.bit_depth;
  const std::int64_t row_bytes = (bits + 7) / 8;
  return static_cast<double>(row_bytes) * header.height;
}

}  // namespace

Image detail::decode_png(std::span<const std::uint8_t> bytes, const std::string& name,
                         std::int64_t max_pixels) {
  const auto check = [&](int error) {
    if (error != SPNG_OK)
      fail<IoError>(fmt::format("{}: PNG is malformed: {}", name, spng_strerror(error)));
  };
  // Width and height are bytes 16 to 23 of every PNG: libspng calls large ones an overflow.
  const auto side = [&](std::size_t at) {
    return std::int64_t{bytes[at]} << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3];
  };
  if (bytes.size() >= 24)
    check_image_size(name, bytes.size(), side(16), side(20), max_pixels, 0, 1032);
  const Context context(spng_ctx_new(0));
  spng_ctx* png = context.get();
  if (png == nullptr) fail<IoError>(fmt::format("{}: PNG: out of memory", name));
  std::vector<std::uint8_t> storage;
  Source source{without_empty_exif(bytes, storage)};
  check(spng_set_png_stream(png, read_from, &source));
  check(spng_set_chunk_limits(png, kMostOfAChunk, kMostOfChunks));
  spng_ihdr header{};
  check(spng_get_ihdr(png, &header));
  // Deflate cannot pack better than 1032 to 1.
  check_image_size(name, bytes.size(), header.width, header.height, max_pixels, raw_bytes(header),
                   1032);

  spng_trns transparency{};
  const int found = spng_get_trns(png, &transparency);
  if (found != SPNG_ECHUNKAVAIL) check(found);
  const bool opaque = found == SPNG_ECHUNKAVAIL &&
                      header.color_type != SPNG_COLOR_TYPE_GRAYSCALE_ALPHA &&
                      header.color_type != SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
  // There is no RGB16, and RGB8 of 16 bits is the high byte, not the nearest.
  const bool deep = header.bit_depth == 16, direct = opaque && !deep;
  const int format = direct ? SPNG_FMT_RGB8 : deep ? SPNG_FMT_RGBA16 : SPNG_FMT_RGBA8;
  check(spng_decode_image(png, nullptr, 0, format, SPNG_DECODE_TRNS | SPNG_DECODE_PROGRESSIVE));
  Image image = make_image(header.width, header.height);
  const std::int64_t width = image.width;
  // Interlaced rows are refined pass by pass, so all of them stay in the decoder's layout.
  const bool interlaced = header.interlace_method != SPNG_INTERLACE_NONE;
  const std::size_t row_bytes = static_cast<std::size_t>(width) * (direct ? 3 : deep ? 8 : 4);
  std::vector<std::uint16_t> samples;
  if (!direct) samples.resize(row_bytes / 2 * (interlaced ? header.height : 1));
  for (int error = SPNG_OK; error != SPNG_EOI;) {
    spng_row_info row{};
    check(spng_get_row_info(png, &row));
    const std::int64_t y = row.row_num;
    std::uint16_t* wide = samples.data() + (interlaced ? y : 0) * row_bytes / 2;
    error = spng_decode_row(png, direct ? image.row(y) : static_cast<void*>(wide), row_bytes);
    if (error != SPNG_EOI) check(error);
    if (deep)
      lay_on_white(wide, width, image.row(y));
    else if (!direct)
      lay_on_white(reinterpret_cast<const std::uint8_t*>(wide), width, image.row(y));
  }
  check(spng_decode_chunks(png));
  if (source.is_cut) check(SPNG_EOF);  // libspng does without the last checksum
  return upright(std::move(image), png_orientation(bytes));
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
  const auto check = [](int error) {
    if (error != SPNG_OK) fail<IoError>(fmt::format("encode_png: {}", spng_strerror(error)));
  };
  const Context context(spng_ctx_new(SPNG_CTX_ENCODER));
  spng_ctx* png = context.get();
  if (png == nullptr) fail<IoError>("encode_png: out of memory");
  const bool grey = is_grey(image);
  spng_ihdr header{};
  header.width = static_cast<std::uint32_t>(image.width);
  header.height = static_cast<std::uint32_t>(image.height);
  header.bit_depth = 8;
  header.color_type = grey ? SPNG_COLOR_TYPE_GRAYSCALE : SPNG_COLOR_TYPE_TRUECOLOR;
  check(spng_set_ihdr(png, &header));
  check(spng_set_option(png, SPNG_ENCODE_TO_BUFFER, 1));
  check(spng_set_option(png, SPNG_IMG_COMPRESSION_LEVEL, std::clamp(compression, 1, 9)));
  // Flat paper with sharp glyphs: unfiltered rows pack about as well as filtered ones, and the
  // choice among five filters costs more than the packing.
  check(spng_set_option(png, SPNG_FILTER_CHOICE, SPNG_DISABLE_FILTERING));
  check(spng_encode_image(png, nullptr, 0, SPNG_FMT_PNG,
                          SPNG_ENCODE_PROGRESSIVE | SPNG_ENCODE_FINALIZE));
  std::vector<std::uint8_t> line(grey ? static_cast<std::size_t>(image.width) : 0);
  const std::size_t row_bytes = static_cast<std::size_t>(image.width) * (grey ? 1 : 3);
  for (std::int64_t y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.row(y);
    if (grey) {
      for (std::int64_t x = 0; x < image.width; ++x) line[static_cast<std::size_t>(x)] = row[x * 3];
      row = line.data();
    }
    const int error = spng_encode_row(png, row, row_bytes);
    if (error != SPNG_EOI) check(error);
  }
  std::size_t size = 0;
  int error = SPNG_OK;
  const std::unique_ptr<void, decltype(&std::free)> packed(spng_get_png_buffer(png, &size, &error),
                                                           &std::free);
  check(error);
  const auto* begin = static_cast<const std::uint8_t*>(packed.get());
  return {begin, begin + size};
}

}  // namespace lectern
