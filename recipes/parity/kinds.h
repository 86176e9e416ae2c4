// The kinds of fixtures that `lectern parity` knows.
//
// A family's kinds are in recipes/parity/<family>*.cpp, which define
// `std::vector<ParityKind> lectern::<family>::parity_kinds()`.
#pragma once

#include "core/device.h"
#include "recipes/parity/parity.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace lectern {

struct ParityKind {
  std::string name;  ///< `kind` of case.json
  std::function<ParityReport(const std::filesystem::path& folder, Device device)> run;
};

const std::vector<ParityKind>& parity_kinds();

}  // namespace lectern
