// Tiny PDF files made in memory, for tests that need to know exactly what stands where.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace lectern::testing {

struct PdfPage {
  std::string content;               // operators of the page's content stream
  std::string extra = {};            // more entries of the page dictionary
  double width = 612, height = 792;  // media box, points
};

/// "text" set in Helvetica with its baseline starting at (x, y), points from the lower left corner.
inline std::string pdf_text(const std::string& text, double x, double y, double size = 12) {
  return fmt::format("BT /F1 {} Tf {} {} Td ({}) Tj ET\n", size, x, y, text);
}

/// Lines of words, enough text to pass the quality rules.
inline std::string pdf_paragraph(const std::string& title, int lines = 5) {
  std::string out = pdf_text(title, 72, 720, 18);
  for (int i = 0; i < lines; ++i)
    out += pdf_text(fmt::format("line {} of a paragraph with some words", i + 1), 72, 690 - 14 * i);
  return out;
}

/// A PDF 1.4 file with a correct cross-reference table; `info` is what stands in its information
/// dictionary.
inline std::string make_pdf(const std::vector<PdfPage>& pages, const std::string& info = "") {
  std::vector<std::string> objects = {"<< /Type /Catalog /Pages 2 0 R >>", "",
                                      "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"};
  std::string kids;
  for (const PdfPage& page : pages) {
    const std::size_t number = objects.size() + 1;
    kids += fmt::format("{} 0 R ", number);
    objects.push_back(
        fmt::format("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {} {}] /Contents {} 0 R {} "
                    "/Resources << /Font << /F1 3 0 R >> >> >>",
                    page.width, page.height, number + 1, page.extra));
    objects.push_back(
        fmt::format("<< /Length {} >>\nstream\n{}\nendstream", page.content.size(), page.content));
  }
  objects.push_back("<< " + info + " >>");
  objects[1] = fmt::format("<< /Type /Pages /Count {} /Kids [{}] >>", pages.size(), kids);
  std::string out = "%PDF-1.4\n", table;
  for (std::size_t i = 0; i < objects.size(); ++i) {
    table += fmt::format("{:010} 00000 n \n", out.size());
    out += fmt::format("{} 0 obj\n{}\nendobj\n", i + 1, objects[i]);
  }
  const std::size_t start = out.size();
  return out + fmt::format(
                   "xref\n0 {}\n0000000000 65535 f \n{}trailer\n<< /Size {} /Root 1 0 R "
                   "/Info {} 0 R >>\nstartxref\n{}\n%%EOF\n",
                   objects.size() + 1, table, objects.size() + 1, objects.size(), start);
}

inline std::filesystem::path write_bytes(const std::filesystem::path& path,
                                         const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
  return path;
}

}  // namespace lectern::testing
