// The row of the table of families.
#include "nn/families.h"
#include "nn/ocr2/config.h"

#include <nlohmann/json.hpp>

namespace lectern::ocr2 {

Family family() {
  return {.name = "ocr2",
          .title = "DeepSeek-OCR 2",
          .released = [] { return std::make_unique<Ocr2Config>(); },
          .matches =
              [](const nlohmann::json& config) {
                const auto type = config.find("model_type");
                return type == config.end() || type->is_null() || *type == "deepseek_ocr2" ||
                       *type == "deepseek_vl_v2";
              },
          .parse = [](const nlohmann::json& config,
                      const std::string& name) -> std::unique_ptr<ModelConfig> {
            return std::make_unique<Ocr2Config>(parse_ocr2_config(config, name));
          }};
}

}  // namespace lectern::ocr2
