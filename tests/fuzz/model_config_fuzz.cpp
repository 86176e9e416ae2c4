// Any bytes as a config.json: a configuration that is accepted again as it is written, or one line
// of lectern::Error. Good seeds: config.json of the fixtures.
#include "core/error.h"
#include "core/io/file.h"
#include "core/notice.h"
#include "nn/families.h"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool quiet = (lectern::set_notice_sink({}), true);
  static_cast<void>(quiet);
  try {
    const auto json =
        lectern::parse_json({reinterpret_cast<const char*>(data), size}, "config.json");
    const auto config = lectern::parse_model_config(json, "config.json");
    const auto written = config->to_json();
    const auto again = lectern::parse_model_config(written, "written");
    if (again->to_json() != written) std::abort();
  } catch (const lectern::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
