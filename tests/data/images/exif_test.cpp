// Pictures whose EXIF data say which way up they are.
#include "data/images/exif.h"

#include "core/error.h"
#include "data/images/file_kind.h"
#include "tests/data/images/random_image.h"
#include "tests/testing.h"

#include <jpeglib.h>
#include <zlib.h>

#include <cstdlib>
#include <string>

namespace lectern {
namespace {

using testing::random_image;
using testing::throws_with;
using Bytes = std::vector<std::uint8_t>;

void put(Bytes& out, std::uint32_t value, int bytes, bool big) {
  for (int i = 0; i < bytes; ++i)
    out.push_back(static_cast<std::uint8_t>(value >> 8 * (big ? bytes - 1 - i : i)));
}

/// A TIFF header and a directory of two entries, the second of which is the orientation.
Bytes exif(std::uint32_t orientation, bool big, std::uint32_t type = 3, std::uint32_t count = 1) {
  Bytes out = big ? Bytes{'M', 'M'} : Bytes{'I', 'I'};
  put(out, 42, 2, big);
  put(out, 8, 4, big);
  put(out, 2, 2, big);
  for (const auto& [tag, kind, values] : {std::tuple{0x0100u, 4u, 1u}, {0x0112u, type, count}}) {
    put(out, tag, 2, big);
    put(out, kind, 2, big);
    put(out, values, 4, big);
    const int size = kind == 1 ? 1 : kind == 3 ? 2 : 4;
    put(out, tag == 0x0112 ? orientation : 777, size, big);
    put(out, 0, 4 - size, big);
  }
  put(out, 0, 4, big);
  return out;
}

Bytes with_segment(Bytes jpeg, const std::string& head, const Bytes& data) {
  Bytes segment = {0xff, 0xe1};
  put(segment, static_cast<std::uint32_t>(2 + head.size() + data.size()), 2, true);
  segment.insert(segment.end(), head.begin(), head.end());
  segment.insert(segment.end(), data.begin(), data.end());
  jpeg.insert(jpeg.begin() + 2, segment.begin(), segment.end());
  return jpeg;
}

Bytes exif_jpeg(const Bytes& jpeg, const Bytes& data) {
  return with_segment(jpeg, std::string("Exif\0\0", 6), data);
}

/// `at_end`: behind the pixels, where PNG allows it too.
Bytes exif_png(Bytes png, const Bytes& data, bool at_end = false) {
  Bytes chunk;
  put(chunk, static_cast<std::uint32_t>(data.size()), 4, true);
  for (const char c : std::string("eXIf")) chunk.push_back(static_cast<std::uint8_t>(c));
  chunk.insert(chunk.end(), data.begin(), data.end());
  put(chunk,
      static_cast<std::uint32_t>(
          crc32(0, chunk.data() + 4, static_cast<unsigned>(chunk.size() - 4))),
      4, true);
  const std::size_t at = at_end ? png.size() - 12 : 33;
  png.insert(png.begin() + static_cast<std::ptrdiff_t>(at), chunk.begin(), chunk.end());
  return png;
}

/// What is seen of stored pixels, as the standard words it: where row 0 and column 0 lie.
Image seen(const Image& stored, int orientation) {
  const std::int64_t w = stored.width, h = stored.height;
  const bool turned = orientation >= 5;
  Image out = turned ? make_image(h, w) : make_image(w, h);
  for (std::int64_t y = 0; y < h; ++y)
    for (std::int64_t x = 0; x < w; ++x) {
      std::int64_t across = 0, down = 0;
      switch (orientation) {
        case 1:
          across = x, down = y;
          break;  // top, left
        case 2:
          across = w - 1 - x, down = y;
          break;  // top, right
        case 3:
          across = w - 1 - x, down = h - 1 - y;
          break;  // bottom, right
        case 4:
          across = x, down = h - 1 - y;
          break;  // bottom, left
        case 5:
          across = y, down = x;
          break;  // left, top
        case 6:
          across = h - 1 - y, down = x;
          break;  // right, top
        case 7:
          across = h - 1 - y, down = w - 1 - x;
          break;  // right, bottom
        default:
          across = y, down = w - 1 - x;
          break;  // left, bottom
      }
      for (int c = 0; c < 3; ++c) out.row(down)[across * 3 + c] = stored.row(y)[x * 3 + c];
    }
  return out;
}

TEST(Exif, EightOrientationsOfBothFormatsInBothByteOrders) {
  for (const auto& [width, height] : {std::pair{7, 4}, {1, 5}, {4, 1}, {1, 1}}) {
    const Image stored = random_image(width, height, 3, 60.0f);
    const Bytes png = encode_png(stored), jpeg = encode_jpeg(stored, 90);
    const Image jpeg_pixels = decode_image(jpeg, "plain.jpg");
    for (int orientation = 1; orientation <= 8; ++orientation)
      for (const bool big : {false, true}) {
        const Bytes data = exif(static_cast<std::uint32_t>(orientation), big);
        const Image want = seen(stored, orientation);
        for (const bool at_end : {false, true}) {
          const Image got = decode_image(exif_png(png, data, at_end), "turned.png");
          EXPECT_EQ(got.width, want.width);
          EXPECT_EQ(got.height, want.height);
          EXPECT_EQ(got.pixels, want.pixels) << orientation;
        }
        const Image got = decode_image(exif_jpeg(jpeg, data), "turned.jpg");
        EXPECT_EQ(got.width, want.width);
        EXPECT_EQ(got.pixels, seen(jpeg_pixels, orientation).pixels) << orientation;
      }
  }
}

TEST(Exif, PagesOfInkAndOtherSegmentsBefore) {
  // CMYK, a left half of black ink; XMP, which is an APP1 segment too, comes first.
  Bytes inks;
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 16; ++x)
      inks.insert(inks.end(), {255, 255, 255, static_cast<std::uint8_t>(x < 8 ? 0 : 255)});
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &bytes, &size);
  info.image_width = 16;
  info.image_height = 8;
  info.input_components = 4;
  info.in_color_space = JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < 8; ++y) {
    JSAMPROW row = inks.data() + y * 16 * 4;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  const Bytes plain(bytes, bytes + size);
  std::free(bytes);
  Bytes turned = exif_jpeg(plain, exif(8, true));
  turned = with_segment(turned, std::string("http://ns.adobe.com/xap/1.0/\0", 29), exif(2, true));
  const Image got = decode_image(turned, "cmyk.jpg");
  ASSERT_EQ(got.width, 8);
  ASSERT_EQ(got.height, 16);
  EXPECT_GT(got.row(2)[9], 200);  // the stored row runs upwards
  EXPECT_LT(got.row(13)[9], 50);
}

TEST(Exif, OnlyAnOrientationTurns) {
  EXPECT_EQ(exif_orientation(exif(6, false)), 6);
  EXPECT_EQ(exif_orientation(exif(6, true, 4)), 6);  // LONG and BYTE, as some write it
  EXPECT_EQ(exif_orientation(exif(6, false, 1)), 6);
  for (const Bytes& data :
       {Bytes{}, exif(0, false), exif(9, true), exif(0x10006, true, 4), exif(6, true, 2),
        exif(6, true, 12), exif(6, true, 3, 2), exif(6, true, 3, 0)})
    EXPECT_EQ(exif_orientation(data), 1);
  Bytes other = exif(6, true);
  other[3] = 43;  // BigTIFF, which EXIF is not
  EXPECT_EQ(exif_orientation(other), 1);
  other = exif(6, true);
  other[1] = 'I';
  EXPECT_EQ(exif_orientation(other), 1);
}

/// Cut off or with wrong bytes, at every place: the picture is there, one way up or another.
TEST(Exif, DamageIsNoReasonToRefuse) {
  const Image stored = random_image(5, 3, 4, 60.0f);
  const Bytes png = encode_png(stored), jpeg = encode_jpeg(stored, 90);
  const auto check = [&](const Bytes& data, const std::string& what) {
    const int orientation = exif_orientation(data);
    ASSERT_GE(orientation, 1) << what;
    ASSERT_LE(orientation, 8) << what;
    const std::int64_t width = orientation >= 5 ? 3 : 5;
    ASSERT_EQ(decode_image(exif_png(png, data), "damaged.png").width, width) << what;
    ASSERT_EQ(decode_image(exif_png(png, data, true), "damaged.png").width, width) << what;
    ASSERT_EQ(decode_image(exif_jpeg(jpeg, data), "damaged.jpg").width, width) << what;
  };
  for (const bool big : {false, true}) {
    const Bytes whole = exif(6, big);
    for (std::size_t size = 0; size <= whole.size(); ++size) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      check(cut, "cut at " + std::to_string(size));
      // The entry's value must be there whole.
      EXPECT_EQ(exif_orientation(cut), size >= 34 ? 6 : 1) << size;
    }
    for (std::size_t at = 0; at < whole.size(); ++at)
      for (int value = 0; value < 256; ++value) {
        Bytes flipped = whole;
        flipped[at] = static_cast<std::uint8_t>(value);
        check(flipped, std::to_string(value) + " at " + std::to_string(at));
      }
  }
}

TEST(FileKind, ByContent) {
  const auto bytes = [](const std::string& text) { return Bytes(text.begin(), text.end()); };
  const Image image = make_image(2, 2);
  EXPECT_EQ(file_kind(encode_png(image)), FileKind::png);
  EXPECT_EQ(file_kind(encode_jpeg(image, 90)), FileKind::jpeg);
  EXPECT_EQ(file_kind(bytes("%PDF-1.4\n")), FileKind::pdf);
  EXPECT_EQ(file_kind(bytes(std::string(1019, '\n') + "%PDF-1.4")), FileKind::pdf);
  EXPECT_EQ(file_kind(bytes(std::string(1020, '\n') + "%PDF-1.4")), FileKind::other);
  EXPECT_EQ(file_kind(bytes("GIF89a and %PDF-1.4")), FileKind::other);
  EXPECT_EQ(file_kind({}), FileKind::other);
  for (const auto& [content, name] : {std::pair<std::string, std::string>{"", "an empty file"},
                                      {"GIF89a", "a GIF image"},
                                      {std::string("II*\0\1", 5), "a TIFF image"},
                                      {"RIFF1234WEBPVP8", "a WebP image"},
                                      {std::string("\0\0\0\x18", 4) + "ftypheic", "a HEIC image"},
                                      {"%PDF-1.7", "a PDF"},
                                      {"PK\x03\x04", "a ZIP archive or Office document"},
                                      {"<!DOCTYPE html><html>", "an HTML page"},
                                      {"no picture\n", "text"},
                                      {"\x01\x02\x03", "bytes that begin with 01 02 03"}})
    EXPECT_EQ(describe_file_kind(bytes(content)), name);
  EXPECT_TRUE(throws_with([&] { decode_image(bytes("%PDF-1.7 and more"), "a.png"); },
                          {"a.png: must be a PNG or JPEG image, got a PDF (17 bytes)"}));
}

}  // namespace
}  // namespace lectern
