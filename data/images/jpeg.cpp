#include "core/error.h"
#include "data/images/codecs.h"
#include "data/images/exif.h"

#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <array>
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace lectern {
namespace {

/// Scans that a progressive file may have: each walks the whole image, so thousands of empty ones
/// would keep a tiny file decoding for minutes. Real encoders write about ten.
constexpr int kMaxScans = 100;

/// libjpeg's error manager must come first: callbacks get a pointer to it and cast.
struct JpegErrors {
  jpeg_error_mgr manager{};
  std::jmp_buf jump{};
  std::array<char, JMSG_LENGTH_MAX> message{};
};

struct JpegProgress {
  jpeg_progress_mgr manager{};
};

[[noreturn]] void on_error(j_common_ptr info) {
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  (*info->err->format_message)(info, errors->message.data());
  std::longjmp(errors->jump, 1);
}

/// libjpeg fills in grey for what is missing and only warns; a page with grey in place of text must
/// not pass for a page.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  const int code = info->err->msg_code;
  if (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE)
    on_error(info);
}

void on_progress(j_common_ptr info) {
  const auto* decoder = reinterpret_cast<j_decompress_ptr>(info);
  if (decoder->input_scan_number <= kMaxScans) return;
  auto* errors = reinterpret_cast<JpegErrors*>(info->err);
  std::snprintf(errors->message.data(), errors->message.size(), "more than %d scans", kMaxScans);
  std::longjmp(errors->jump, 1);
}

/// Runs f(), which calls libjpeg and must hold no object with a destructor; false when it jumped.
template <typename F>
bool guarded(JpegErrors& errors, F&& f) {
  if (setjmp(errors.jump) != 0) return false;
  f();
  return true;
}

struct Decoder {
  JpegErrors errors;
  JpegProgress progress;
  jpeg_decompress_struct info{};
  Decoder() {
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_error;
    errors.manager.emit_message = on_message;
    progress.manager.progress_monitor = on_progress;
  }
  ~Decoder() { jpeg_destroy_decompress(&info); }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;
};

/// One row of C, M, Y, K to R, G, B: paper white, less each ink. `inverted` rows hold 255 - ink.
void ink_row_to_rgb(const std::uint8_t* from, std::int64_t width, bool inverted, std::uint8_t* to) {
  const int flip = inverted ? 0 : 255;
  for (std::int64_t x = 0; x < width; ++x) {
    const int paper_after_black = from[x * 4 + 3] ^ flip;
    for (int c = 0; c < 3; ++c)
      to[x * 3 + c] =
          static_cast<std::uint8_t>(((from[x * 4 + c] ^ flip) * paper_after_black + 127) / 255);
  }
}

/// Of the first APP1 segment with EXIF data; others hold XMP.
int jpeg_orientation(const jpeg_decompress_struct& info) {
  constexpr std::string_view kExif("Exif\0\0", 6);
  for (auto marker = info.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (marker->marker == JPEG_APP0 + 1 && data.starts_with(kExif))
      return exif_orientation({marker->data + kExif.size(), data.size() - kExif.size()});
  }
  return 1;
}

struct Encoder {
  JpegErrors errors;
  jpeg_compress_struct info{};
  unsigned char* bytes = nullptr;  // malloc'ed and grown by libjpeg
  unsigned long size = 0;
  Encoder() {
    info.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = on_error;
  }
  ~Encoder() {
    jpeg_destroy_compress(&info);
    std::free(bytes);
  }
  Encoder(const Encoder&) = delete;
  Encoder& operator=(const Encoder&) = delete;
};

}  // namespace

std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality) {
  if (quality < 1 || quality > 100)
    fail<ConfigError>(fmt::format("encode_jpeg: quality must be 1 .. 100, got {}", quality));
  if (image.empty() || image.width > JPEG_MAX_DIMENSION || image.height > JPEG_MAX_DIMENSION)
    fail<ShapeError>(fmt::format("encode_jpeg: sides must be 1 .. {}, got {} x {}",
                                 JPEG_MAX_DIMENSION, image.width, image.height));
  Encoder encoder;
  jpeg_compress_struct& info = encoder.info;
  if (!guarded(encoder.errors, [&] {
        jpeg_create_compress(&info);
        jpeg_mem_dest(&info, &encoder.bytes, &encoder.size);
        info.image_width = static_cast<JDIMENSION>(image.width);
        info.image_height = static_cast<JDIMENSION>(image.height);
        info.input_components = 3;
        info.in_color_space = JCS_RGB;
        jpeg_set_defaults(&info);
        jpeg_set_quality(&info, quality, TRUE);
        jpeg_start_compress(&info, TRUE);
        while (info.next_scanline < info.image_height) {
          JSAMPROW row = const_cast<std::uint8_t*>(image.row(info.next_scanline));
          jpeg_write_scanlines(&info, &row, 1);
        }
        jpeg_finish_compress(&info);
      }))
    fail<Error>(fmt::format("encode_jpeg: {}", encoder.errors.message.data()));
  return {encoder.bytes, encoder.bytes + encoder.size};
}

Image detail::decode_jpeg(std::span<const std::uint8_t> bytes, const std::string& name,
                          std::int64_t max_pixels) {
  Decoder decoder;
  jpeg_decompress_struct& info = decoder.info;
  const auto malformed = [&]() {
    fail<IoError>(fmt::format("{}: JPEG is malformed: {}", name, decoder.errors.message.data()));
  };
  if (!guarded(decoder.errors, [&] {
        jpeg_create_decompress(&info);
        info.progress = &decoder.progress.manager;
        jpeg_mem_src(&info, bytes.data(), bytes.size());
        jpeg_save_markers(&info, JPEG_APP0 + 1, 0xffff);
        jpeg_read_header(&info, TRUE);
      }))
    malformed();
  const int orientation = jpeg_orientation(info);  // libjpeg forgets its markers at the end
  if (info.arith_code)
    fail<IoError>(fmt::format("{}: JPEG: arithmetic coding is not supported", name));
  // At least one bit for each 8 x 8 block of the finest component: 512 pixels a byte.
  check_image_size(name, bytes.size(), info.image_width, info.image_height, max_pixels,
                   static_cast<double>(info.image_width) * info.image_height, 512);

  const bool ink = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = ink ? JCS_CMYK : JCS_RGB;
  if (!guarded(decoder.errors, [&] { jpeg_start_decompress(&info); })) malformed();
  const int channels = ink ? 4 : 3;
  if (info.output_components != channels)
    fail<IoError>(fmt::format("{}: JPEG: {} channels expected, got {}", name, channels,
                              info.output_components));

  Image image = make_image(info.output_width, info.output_height);
  std::vector<std::uint8_t> line(ink ? static_cast<std::size_t>(image.width) * 4 : 0);
  // Adobe's programs, which write nearly all CMYK JPEGs, store the inks inverted.
  const bool inverted = info.saw_Adobe_marker;
  if (!guarded(decoder.errors, [&] {
        while (info.output_scanline < info.output_height) {
          const std::int64_t y = info.output_scanline;
          JSAMPROW row = ink ? line.data() : image.row(y);
          jpeg_read_scanlines(&info, &row, 1);
          if (ink) ink_row_to_rgb(line.data(), image.width, inverted, image.row(y));
        }
        jpeg_finish_decompress(&info);
      }))
    malformed();
  return upright(std::move(image), orientation);
}

}  // namespace lectern
