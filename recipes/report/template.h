// Pages from templates (mustache): the files of recipes/report/templates, which are compiled into
// the program.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace lectern::report {

/// The page that templates/<name> makes of `values`, an object. {{value}} is escaped, {{{value}}}
/// is HTML already, {{>file}} is another template; {{#value}} shows its text unless the value is
/// missing, false, "", or an empty list or object, and once for each item of a list. Numbers are
/// given as text: how many digits are shown is the caller's business. Throws Error when there is no
/// such template, or its tags do not match.
std::string render_template(const std::string& name, const nlohmann::json& values);

/// {"items": items}, or false when there are none: for what has a heading only when it is shown.
nlohmann::json with_heading(nlohmann::json items);

}  // namespace lectern::report
