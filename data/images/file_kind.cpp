#include "data/images/file_kind.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace lectern {
namespace {

using std::string_view_literals::operator""sv;

constexpr std::string_view kPng = "\x89PNG\r\n\x1a\n"sv, kJpeg = "\xff\xd8\xff"sv, kPdf = "%PDF-"sv;

struct Signature {
  std::size_t at;
  std::string_view bytes;
  const char* name;
};

/// What people hand to a reader of pages, longer signatures before shorter ones.
constexpr Signature kSignatures[] = {
    {0, kPng, "a PNG image"},
    {0, kJpeg, "a JPEG image"},
    {0, "GIF8"sv, "a GIF image"},
    {0, "II*\0"sv, "a TIFF image"},
    {0, "MM\0*"sv, "a TIFF image"},
    {8, "WEBP"sv, "a WebP image"},
    {4, "ftypheic"sv, "a HEIC image"},
    {4, "ftypheix"sv, "a HEIC image"},
    {4, "ftypmif1"sv, "a HEIF image"},
    {4, "ftypavif"sv, "an AVIF image"},
    {0, "\0\0\0\x0cjP  "sv, "a JPEG 2000 image"},
    {0, "\xff\x4f\xff\x51"sv, "a JPEG 2000 image"},
    {0, "\xff\x0a"sv, "a JPEG XL image"},
    {0, "\0\0\0\x0cJXL "sv, "a JPEG XL image"},
    {0, "AT&TFORM"sv, "a DjVu file"},
    {0, "8BPS"sv, "a Photoshop file"},
    {0, "BM"sv, "a BMP image"},
    {0, "%!PS"sv, "a PostScript file"},
    {0, "{\\rtf"sv, "an RTF document"},
    {0, "\xd0\xcf\x11\xe0"sv, "an old Office document"},
    {0, "PK\x03\x04"sv, "a ZIP archive or Office document"},
    {0, "\x1f\x8b"sv, "a gzip file"},
    {0, "\x89HDF\r\n\x1a\n"sv, "an HDF5 file"},
};

bool is_text(std::string_view bytes) {
  return std::none_of(bytes.begin(), bytes.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == 127 || (byte < 32 && c != '\n' && c != '\r' && c != '\t' && c != '\f');
  });
}

std::string_view as_text(std::span<const std::uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kFileKindBytes)};
}

}  // namespace

FileKind file_kind(std::span<const std::uint8_t> beginning) {
  const std::string_view bytes = as_text(beginning);
  if (bytes.starts_with(kPng)) return FileKind::png;
  if (bytes.starts_with(kJpeg)) return FileKind::jpeg;
  // A picture or archive may hold a PDF, but not at its start.
  for (const Signature& known : kSignatures)
    if (bytes.size() >= known.at && bytes.substr(known.at).starts_with(known.bytes))
      return FileKind::other;
  return bytes.find(kPdf) != std::string_view::npos ? FileKind::pdf : FileKind::other;
}

std::string describe_file_kind(std::span<const std::uint8_t> beginning) {
  const std::string_view bytes = as_text(beginning);
  if (bytes.empty()) return "an empty file";
  if (file_kind(beginning) == FileKind::pdf) return "a PDF";
  for (const Signature& known : kSignatures)
    if (bytes.size() >= known.at && bytes.substr(known.at).starts_with(known.bytes))
      return known.name;
  if (bytes.find("<html"sv) != std::string_view::npos ||
      bytes.find("<HTML"sv) != std::string_view::npos)
    return "an HTML page";
  if (bytes.find("<svg"sv) != std::string_view::npos) return "an SVG drawing";
  if (is_text(bytes)) return "text";
  std::string out = "bytes that begin with";
  for (const char c : bytes.substr(0, 4))
    out += fmt::format(" {:02x}", static_cast<unsigned char>(c));
  return out;
}

}  // namespace lectern
