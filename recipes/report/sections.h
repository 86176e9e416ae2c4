// The parts of the report, each a piece of HTML ("" when there is nothing to show); the reports of
// ablations, comparisons and evaluations take some of them.
#pragma once

#include "recipes/report/report.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lectern::report {

std::string headline(const ReportData& data);
std::string curves(const ReportData& data);
std::string heldout_table(const ReportData& data);
std::string history(const ReportData& data);
std::string samples(const ReportData& data);
std::string token_budget(const ReportData& data);
std::string exports(const ReportData& data);
std::string next_steps(const ReportData& data);
std::string limits(const ReportData& data);

/// The samples that are whole pages, or all others: each a picture beside truth and reading.
std::string cards(const std::vector<ReportSample>& samples, bool pages);

/// Truth and reading as HTML with what differs in <mark>: in the truth what was missed, in the
/// reading (class "bad") what is wrong there. Left unmarked: texts whose lengths multiply to over
/// four million, and long ones of which more than half is wrong.
std::pair<std::string, std::string> marked_difference(std::string_view truth,
                                                      std::string_view read);

/// "data:image/png;base64,..." of a PNG or JPEG file. Throws IoError.
std::string image_data(const std::filesystem::path& path);

}  // namespace lectern::report
