// "Did you mean": the name that another one was meant for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lectern {

/// Close enough that `found` was meant for `known`: two letters or a third of them may differ.
bool resembles(std::string_view found, std::string_view known);

/// The first of `names` that is nearest to `found`, empty when none resembles it.
std::string nearest_name(std::string_view found, const std::vector<std::string>& names);

}  // namespace lectern
