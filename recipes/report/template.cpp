#include "recipes/report/template.h"

#include "core/error.h"
#include "data/text/utf8.h"
#include "recipes/report/plot.h"
#include "recipes/report/template_files.h"

#include <kainjow/mustache.hpp>
#include <nlohmann/json.hpp>

namespace lectern::report {
namespace {

namespace mustache = kainjow::mustache;

mustache::data data_of(const nlohmann::json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_array()) {
    mustache::data out = mustache::data::type::list;
    for (const nlohmann::json& item : value) out.push_back(data_of(item));
    return out;
  }
  if (value.is_object() && !value.empty()) {
    mustache::data out = mustache::data::type::object;
    for (const auto& [name, member] : value.items()) out.set(name, data_of(member));
    return out;
  }
  if (value.is_string() && !value.get_ref<const std::string&>().empty())
    return lossy_utf8(value.get_ref<const std::string&>());  // names of files need not be UTF-8
  return value.is_number() ? mustache::data(value.dump()) : mustache::data(false);
}

}  // namespace

std::string render_template(const std::string& name, const nlohmann::json& values) {
  mustache::data data = data_of(values);
  const char* found = nullptr;
  for (const TemplateFile& file : kTemplateFiles) {
    data.set(std::string(file.name), mustache::data(std::string(file.text)));
    if (file.name == name) found = file.text;
  }
  if (found == nullptr) fail<Error>(fmt::format("report: there is no template {}", name));
  mustache::mustache page{std::string(found)};
  page.set_custom_escape([](const std::string& text) { return escape_html(text); });
  std::string out = page.render(data);
  if (!page.is_valid())
    fail<Error>(fmt::format("report: template {}: {}", name, page.error_message()));
  return out;
}

nlohmann::json with_heading(nlohmann::json items) {
  if (items.empty()) return false;
  return {{"items", std::move(items)}};
}

}  // namespace lectern::report
