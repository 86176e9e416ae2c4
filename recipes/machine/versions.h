// Which lectern this is, and which libraries it runs with.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace lectern {

inline constexpr const char* kVersion = "0.1.0";

/// Commit that the binary was configured from, "unknown" outside a git checkout.
std::string git_revision();

/// {"oneDNN": "2.6.3", "HDF5": ...}, as the libraries report themselves at run time.
nlohmann::json library_versions();

}  // namespace lectern
