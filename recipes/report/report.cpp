#include "recipes/report/report.h"

#include "recipes/report/plot.h"
#include "recipes/report/sections.h"
#include "recipes/report/style.h"

#include <fmt/format.h>

namespace lectern {

std::string render_report(const ReportData& data) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
      escape_html(data.title), kReportStyle);
  out += report::headline(data);
  out += report::heldout_table(data);
  out += report::curves(data);
  out += report::history(data);
  out += report::samples(data);
  out += report::token_budget(data);
  out += report::exports(data);
  out += report::limits(data);
  out += report::next_steps(data);
  out +=
      "<footer>Written by <code>lectern report</code>. This file is complete in itself: it loads "
      "nothing.</footer>\n</main>\n</body>\n</html>\n";
  return out;
}

}  // namespace lectern
