#include "data/images/image.h"

#include "core/random.h"
#include "tests/data/images/random_image.h"
#include "tests/testing.h"

#include <jpeglib.h>
#include <zlib.h>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace lectern {
namespace {

using testing::random_image;
using testing::throws_with;
using Bytes = std::vector<std::uint8_t>;

/// A PNG chunk with the right length and checksum.
void append_chunk(Bytes& out, const char* type, const Bytes& data) {
  const auto number = [&](std::uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(value >> shift & 255);
  };
  number(static_cast<std::uint32_t>(data.size()));
  Bytes body(type, type + 4);
  body.insert(body.end(), data.begin(), data.end());
  out.insert(out.end(), body.begin(), body.end());
  number(static_cast<std::uint32_t>(crc32(0, body.data(), static_cast<uInt>(body.size()))));
}

/// A PNG built by hand from filtered rows: independent of encode_png.
Bytes make_png(std::uint32_t width, std::uint32_t height, int depth, int color, const Bytes& rows,
               const Bytes& palette = {}, const Bytes& transparency = {}, int interlace = 0,
               const std::vector<Bytes>& texts = {}) {
  Bytes out = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, header;
  for (const std::uint32_t side : {width, height})
    for (int shift = 24; shift >= 0; shift -= 8) header.push_back(side >> shift & 255);
  for (const int value : {depth, color, 0, 0, interlace}) header.push_back(value & 255);
  append_chunk(out, "IHDR", header);
  if (!palette.empty()) append_chunk(out, "PLTE", palette);
  if (!transparency.empty()) append_chunk(out, "tRNS", transparency);
  for (const Bytes& text : texts) append_chunk(out, "tEXt", text);
  uLongf size = compressBound(rows.size());
  Bytes packed(size);
  compress(packed.data(), &size, rows.data(), rows.size());
  packed.resize(size);
  append_chunk(out, "IDAT", packed);
  append_chunk(out, "IEND", {});
  return out;
}

/// libjpeg's own encoder; `space` and `channels` as in jpeglib.h.
Bytes make_jpeg(int width, int height, J_COLOR_SPACE space, int channels, const Bytes& pixels,
                bool progressive = false) {
  jpeg_compress_struct info{};
  jpeg_error_mgr errors{};
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&info, &data, &size);
  info.image_width = width;
  info.image_height = height;
  info.input_components = channels;
  info.in_color_space = space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 95, TRUE);
  if (progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  for (int y = 0; y < height; ++y) {
    auto* row = const_cast<std::uint8_t*>(pixels.data()) + y * width * channels;
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  jpeg_destroy_compress(&info);
  Bytes out(data, data + size);
  std::free(data);
  return out;
}

Bytes pixel(const Image& image, std::int64_t x, std::int64_t y) {
  return Bytes(image.row(y) + x * 3, image.row(y) + x * 3 + 3);
}

TEST(Image, PngRoundTrip) {
  for (const auto& [width, height] : {std::pair{1, 1}, {7, 5}, {64, 33}}) {
    const Image image = random_image(width, height, 1, 60.0f);
    for (const int compression : {1, 6, 9}) {
      const Image back = decode_image(encode_png(image, compression), "round trip");
      EXPECT_EQ(back.width, width);
      EXPECT_EQ(back.height, height);
      EXPECT_EQ(back.pixels, image.pixels);
    }
  }
}

TEST(Image, GreyIsStoredWithOneChannel) {
  Image image = random_image(32, 32, 2, 60.0f);
  for (std::size_t i = 0; i < image.pixels.size(); i += 3)
    image.pixels[i + 1] = image.pixels[i + 2] = image.pixels[i];
  const Bytes grey = encode_png(image);
  EXPECT_EQ(grey[25], 0);  // byte 25 of a PNG is its colour type
  EXPECT_EQ(decode_image(grey, "grey").pixels, image.pixels);
  image.pixels[100] ^= 1;
  const Bytes colour = encode_png(image);
  EXPECT_EQ(colour[25], 2);
  EXPECT_EQ(decode_image(colour, "colour").pixels, image.pixels);
}

TEST(Image, PngKinds) {
  // 16-bit grey keeps the high byte (rounded).
  const Image deep = decode_image(make_png(2, 1, 16, 0, {0, 0x80, 0x00, 0xff, 0xff}), "deep");
  EXPECT_EQ(pixel(deep, 0, 0), (Bytes{128, 128, 128}));
  EXPECT_EQ(pixel(deep, 1, 0), (Bytes{255, 255, 255}));
  const Image near = decode_image(make_png(1, 1, 16, 2, {0, 0, 0xff, 0x80, 0x90, 0, 0}), "near");
  EXPECT_EQ(pixel(near, 0, 0), (Bytes{1, 128, 0}));  // 255 / 257 is nearer to 1 than to 0
  // 1-bit grey.
  const Image bits = decode_image(make_png(3, 1, 1, 0, {0, 0b10100000}), "bits");
  EXPECT_EQ(pixel(bits, 0, 0), (Bytes{255, 255, 255}));
  EXPECT_EQ(pixel(bits, 1, 0), (Bytes{0, 0, 0}));
  // Palette; entry 1 is half transparent: 0.5 of (0, 100, 200) on white.
  const Image palette = decode_image(
      make_png(2, 1, 8, 3, {0, 0, 1}, {10, 20, 30, 0, 100, 200}, {255, 127}), "palette");
  EXPECT_EQ(pixel(palette, 0, 0), (Bytes{10, 20, 30}));
  EXPECT_EQ(pixel(palette, 1, 0), (Bytes{128, 178, 228}));
  // Grey with one transparent value.
  const Image keyed = decode_image(make_png(2, 1, 8, 0, {0, 7, 9}, {}, {0, 9}), "keyed");
  EXPECT_EQ(pixel(keyed, 0, 0), (Bytes{7, 7, 7}));
  EXPECT_EQ(pixel(keyed, 1, 0), (Bytes{255, 255, 255}));
  // RGBA and grey with alpha.
  const Image alpha = decode_image(make_png(2, 1, 8, 6, {0, 9, 8, 7, 255, 9, 8, 7, 0}), "alpha");
  EXPECT_EQ(pixel(alpha, 0, 0), (Bytes{9, 8, 7}));
  EXPECT_EQ(pixel(alpha, 1, 0), (Bytes{255, 255, 255}));
  const Image grey_alpha = decode_image(make_png(1, 1, 8, 4, {0, 0, 51}), "grey alpha");
  EXPECT_EQ(pixel(grey_alpha, 0, 0), (Bytes{204, 204, 204}));
}

TEST(Image, PngTextIsPassedOver) {
  Bytes text(3 << 20, 'x');
  text[1] = 0;  // ends the keyword
  const std::vector<Bytes> many(900, Bytes{'k', 0, 'v'}), long_one = {text};
  for (const std::vector<Bytes>& texts : {many, long_one})
    EXPECT_EQ(
        pixel(decode_image(make_png(1, 1, 8, 2, {0, 4, 5, 6}, {}, {}, 0, texts), "text"), 0, 0),
        (Bytes{4, 5, 6}));
  const std::vector<Bytes> flood(30, text);
  EXPECT_TRUE(throws_with(
      [&] {
        decode_image(make_png(1, 1, 8, 2, {0, 4, 5, 6}, {}, {}, 0, flood), "flood.png");
      },
      {"flood.png", "malformed"}));
}

TEST(Image, InterlacedPng) {
  // 3 x 3 RGBA in Adam7 order: pass 1 (0,0); 4 (2,0); 5 (0,2) (2,2); 6 (1,0) | (1,2); 7 row 1.
  const auto at = [](int x, int y) {
    return Bytes{static_cast<std::uint8_t>(x * 80), static_cast<std::uint8_t>(y * 80), 5, 255};
  };
  Bytes rows;
  const auto pass_row = [&](const std::vector<std::pair<int, int>>& points) {
    rows.push_back(0);
    for (const auto& [x, y] : points) {
      const Bytes value = at(x, y);
      rows.insert(rows.end(), value.begin(), value.end());
    }
  };
  pass_row({{0, 0}});
  pass_row({{2, 0}});          // pass 4: columns 2, 6; rows 0, 4 (passes 2 and 3 are empty)
  pass_row({{0, 2}, {2, 2}});  // pass 5: even columns, rows 2, 6
  pass_row({{1, 0}});          // pass 6: odd columns, even rows
  pass_row({{1, 2}});
  pass_row({{0, 1}, {1, 1}, {2, 1}});
  const Image image = decode_image(make_png(3, 3, 8, 6, rows, {}, {}, 1), "interlaced");
  for (int y = 0; y < 3; ++y)
    for (int x = 0; x < 3; ++x) {
      const Bytes want = at(x, y);
      EXPECT_EQ(pixel(image, x, y), (Bytes{want[0], want[1], want[2]})) << x << "," << y;
    }
}

TEST(Image, JpegKinds) {
  const int width = 24, height = 16;
  for (const bool progressive : {false, true}) {
    Bytes colour;
    for (int i = 0; i < width * height; ++i) colour.insert(colour.end(), {200, 40, 90});
    const Image rgb =
        decode_image(make_jpeg(width, height, JCS_RGB, 3, colour, progressive), "rgb");
    ASSERT_EQ(rgb.width, width);
    ASSERT_EQ(rgb.height, height);
    for (int c = 0; c < 3; ++c) EXPECT_NEAR(rgb.row(8)[33 + c], colour[c], 3);
    const Image grey = decode_image(
        make_jpeg(width, height, JCS_GRAYSCALE, 1, Bytes(width * height, 77), progressive), "grey");
    EXPECT_NEAR(grey.row(3)[7], 77, 2);
    EXPECT_EQ(grey.row(3)[6], grey.row(3)[8]);
  }
}

TEST(Image, CmykJpegIsInkOnWhite) {
  // libjpeg marks CMYK files as Adobe's: samples are 255 - ink. Cyan full, others none, no black.
  Bytes inks;
  for (int i = 0; i < 64; ++i) inks.insert(inks.end(), {0, 255, 255, 255});
  const Image cyan = decode_image(make_jpeg(8, 8, JCS_CMYK, 4, inks), "cyan");
  EXPECT_NEAR(cyan.row(4)[12], 0, 3);
  EXPECT_NEAR(cyan.row(4)[13], 255, 3);
  EXPECT_NEAR(cyan.row(4)[14], 255, 3);
  // Half black on nothing else is grey.
  for (std::size_t i = 0; i < inks.size(); i += 4) {
    inks[i] = 255;
    inks[i + 3] = 128;
  }
  EXPECT_NEAR(decode_image(make_jpeg(8, 8, JCS_CMYK, 4, inks), "grey").row(1)[4], 128, 3);
}

TEST(Image, EveryTruncationIsAnErrorNamingTheFile) {
  const Image image = random_image(24, 18, 3, 60.0f);
  const Bytes jpeg = make_jpeg(24, 18, JCS_RGB, 3, image.pixels);
  const Bytes progressive = make_jpeg(24, 18, JCS_RGB, 3, image.pixels, true);
  for (const Bytes& whole : {encode_png(image), jpeg, progressive}) {
    EXPECT_EQ(decode_image(whole, "whole").width, 24);
    for (std::size_t size = 0; size + 2 < whole.size(); ++size)
      ASSERT_TRUE(throws_with(
          [&] {
            decode_image({whole.data(), size}, "cut.img");
          },
          {"cut.img"}))
          << size << " of " << whole.size();
  }
}

TEST(Image, FlippedBytesNeverCrash) {
  const Image image = random_image(20, 20, 4, 60.0f);
  const Bytes jpeg = make_jpeg(20, 20, JCS_RGB, 3, image.pixels);
  const Bytes cmyk = make_jpeg(15, 20, JCS_CMYK, 4, image.pixels);
  const Bytes progressive = make_jpeg(20, 20, JCS_RGB, 3, image.pixels, true);
  for (const Bytes& whole : {encode_png(image), jpeg, cmyk, progressive})
    for (std::size_t at = 0; at < whole.size(); ++at)
      for (const std::uint8_t flip : {0x01, 0x80, 0xff}) {
        Bytes bytes = whole;
        bytes[at] ^= flip;
        try {
          const Image out = decode_image(bytes, "flipped", 1 << 20);
          EXPECT_EQ(out.pixels.size(), static_cast<std::size_t>(out.width * out.height * 3));
        } catch (const IoError&) {
        }
      }
}

TEST(Image, LyingSizesAreRefusedBeforeMemoryIsTaken) {
  const Bytes rows = {0, 1, 2, 3};
  EXPECT_TRUE(throws_with([&] { decode_image(make_png(16000, 16000, 8, 2, rows), "lie.png"); },
                          {"lie.png", "16000 x 16000", "bytes"}));
  EXPECT_TRUE(throws_with([&] { decode_image(make_png(2000000000, 2000000000, 8, 2, rows), "a"); },
                          {"at most", "2000000000"}));
  EXPECT_TRUE(
      throws_with([&] { decode_image(make_png(0, 5, 8, 2, rows), "empty.png"); }, {"empty.png"}));
  Bytes jpeg = make_jpeg(8, 8, JCS_GRAYSCALE, 1, Bytes(64, 9));
  for (std::size_t i = 0; i + 8 < jpeg.size(); ++i)
    if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0)  // start of frame: height at +5, width at +7
      jpeg[i + 5] = jpeg[i + 7] = 0x3f;
  EXPECT_TRUE(throws_with([&] { decode_image(jpeg, "lie.jpg"); }, {"lie.jpg", "16136 x 16136"}));
  const Bytes honest = encode_png(make_image(100, 100));
  EXPECT_EQ(decode_image(honest, "x", 10000).width, 100);
  EXPECT_TRUE(throws_with([&] { decode_image(honest, "x", 9999); }, {"at most 9999 pixels"}));
}

TEST(Image, NeitherPngNorJpeg) {
  EXPECT_TRUE(throws_with([] { decode_image({}, "zero.png"); }, {"zero.png", "0 bytes"}));
  const Bytes text = {'h', 'e', 'l', 'l', 'o', ' ', 't', 'h', 'e', 'r', 'e'};
  EXPECT_TRUE(throws_with([&] { decode_image(text, "a.png"); }, {"a.png", "PNG or JPEG"}));
}

TEST(Image, Files) {
  testing::TemporaryFolder folder;
  const Image image = random_image(9, 4, 5, 60.0f);
  write_png(image, folder.path() / "a.png");
  EXPECT_EQ(read_image(folder.path() / "a.png").pixels, image.pixels);
  EXPECT_TRUE(throws_with([&] { read_image(folder.path() / "b.png"); }, {"b.png"}));
  EXPECT_TRUE(throws_with([&] { read_image(folder.path()); }, {"regular file"}));
  EXPECT_TRUE(throws_with([&] { write_png(image, folder.path() / "no" / "a.png"); }, {"a.png"}));
  EXPECT_TRUE(throws_with([&] { write_png(Image{}, folder.path() / "a.png"); }, {"encode_png"}));
  // A failed write leaves the old file and nothing else.
  EXPECT_EQ(read_image(folder.path() / "a.png").pixels, image.pixels);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(Image, CropFillsWithWhite) {
  const Image image = random_image(6, 5, 6, 60.0f);
  const Image part = crop(image, -1, 2, 4, 5);
  EXPECT_EQ(part.width, 4);
  EXPECT_EQ(part.height, 5);
  for (int y = 0; y < 5; ++y)
    for (int x = 0; x < 4; ++x) {
      const bool inside = x >= 1 && y < 3;
      EXPECT_EQ(pixel(part, x, y), inside ? pixel(image, x - 1, y + 2) : Bytes(3, 255));
    }
  EXPECT_EQ(pixel(crop(image, 100, 100, 2, 2), 1, 1), Bytes(3, 255));
  EXPECT_TRUE(throws_with([&] { crop(image, 0, 0, -1, 2); }, {">= 0"}));
}

}  // namespace
}  // namespace lectern
