// What the samples of a report need: pictures as text, differences made visible.
#include "core/error.h"
#include "core/io/file.h"
#include "data/text/utf8.h"
#include "recipes/report/plot.h"
#include "recipes/report/sections.h"

#include <algorithm>
#include <cstdint>

namespace lectern::report {
namespace {

constexpr std::size_t kMaxImageBytes = std::size_t{8} << 20;
constexpr std::size_t kMaxCells = 4'000'000;

std::string base64(std::string_view bytes) {
  static constexpr char kAlphabet[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (std::size_t j = 0; j < 4; ++j)
      out += i + j <= bytes.size() ? kAlphabet[group >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

/// HTML of `text` with the characters that `marked` names in runs of <mark>.
std::string with_marks(std::u32string_view text, const std::vector<bool>& marked,
                       std::string_view open) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i + 1;
    while (end < text.size() && marked[end] == marked[i]) ++end;
    const std::string run = escape_html(to_utf8(text.substr(i, end - i)));
    out += marked[i] ? std::string(open) + run + "</mark>" : run;
    i = end;
  }
  return out;
}

}  // namespace

std::pair<std::string, std::string> marked_difference(std::string_view truth,
                                                      std::string_view read) {
  const std::u32string t = code_points(truth), r = code_points(read);
  const std::size_t n = t.size(), m = r.size(), width = m + 1;
  if ((n + 1) * (m + 1) > kMaxCells) return {escape_html(truth), escape_html(read)};
  // Whole matrix, since the way back through it is wanted.
  std::vector<std::uint32_t> cost((n + 1) * width);
  for (std::size_t i = 0; i <= n; ++i)
    for (std::size_t j = 0; j <= m; ++j) {
      std::uint32_t& cell = cost[i * width + j];
      if (i == 0 || j == 0)
        cell = static_cast<std::uint32_t>(i + j);
      else
        cell = std::min({cost[(i - 1) * width + j] + 1, cost[i * width + j - 1] + 1,
                         cost[(i - 1) * width + j - 1] + (t[i - 1] != r[j - 1])});
    }
  std::vector<bool> missed(n, false), wrong(m, false);
  // Where most is wrong, what happens to agree means nothing.
  if (n > 80 && cost.back() * 2 > std::max(n, m)) return {escape_html(truth), escape_html(read)};
  for (std::size_t i = n, j = m; i > 0 || j > 0;) {
    const std::uint32_t here = cost[i * width + j];
    if (i > 0 && j > 0 && here == cost[(i - 1) * width + j - 1] + (t[i - 1] != r[j - 1])) {
      --i;
      --j;
      missed[i] = wrong[j] = t[i] != r[j];
    } else if (i > 0 && here == cost[(i - 1) * width + j] + 1) {
      missed[--i] = true;
    } else {
      wrong[--j] = true;
    }
  }
  return {with_marks(t, missed, "<mark>"), with_marks(r, wrong, "<mark class=\"bad\">")};
}

std::string image_data(const std::filesystem::path& path) {
  const std::string bytes = read_file(path, kMaxImageBytes);
  const std::string_view start(bytes);
  const bool png = start.starts_with("\x89PNG\r\n\x1a\n"), jpeg = start.starts_with("\xff\xd8\xff");
  if (!png && !jpeg) fail<IoError>(path.string() + ": must be a PNG or JPEG picture");
  return fmt::format("data:image/{};base64,{}", png ? "png" : "jpeg", base64(bytes));
}

}  // namespace lectern::report
