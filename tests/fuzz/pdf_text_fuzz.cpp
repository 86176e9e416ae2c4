// Any bytes in place of pdftotext's output: pages or an IoError; text of kept pages is UTF-8.
#include "core/error.h"
#include "data/pages/pdf_text.h"
#include "data/pages/quality.h"
#include "data/text/utf8.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (lectern::Page& page : lectern::parse_bbox_layout(text, 100, "fuzz")) {
      lectern::fit_to_image(page, 850, 1100);
      if (lectern::reason_to_drop(page).empty() && !lectern::is_utf8(page.text)) std::abort();
    }
  } catch (const lectern::IoError&) {
  }
  return 0;
}
