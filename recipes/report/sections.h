// What the pages of several reports have in common. Private to this room.
#pragma once

#include "recipes/report/report.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lectern::report {

/// "12.3 %" of 0.123.
std::string percent(double fraction);

/// Values of words.html and pages.html: each sample a picture beside truth and reading; false when
/// there are none. Throws IoError as image_data().
nlohmann::json cards(const std::vector<ReportSample>& samples);

/// Truth and reading as HTML with what differs in <mark>: in the truth what was missed, in the
/// reading (class "bad") what is wrong there. Left unmarked: texts whose lengths multiply to over
/// four million, and long ones of which more than half is wrong.
std::pair<std::string, std::string> marked_difference(std::string_view truth,
                                                      std::string_view read);

/// "data:image/png;base64,..." of a PNG or JPEG file. Throws IoError.
std::string image_data(const std::filesystem::path& path);

}  // namespace lectern::report
