// Recipes from outside: any bytes must give a recipe or one line of lectern::Error.
#include "core/error.h"
#include "recipes/recipe/recipe.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  // The first line is an override, the rest the file.
  const auto end = bytes.find('\n');
  const std::string override(bytes.substr(0, end));
  const std::string_view file = end == std::string_view::npos ? "" : bytes.substr(end + 1);
  try {
    const auto document = lectern::ConfigDocument::parse(file, "fuzz.toml", {override});
    const lectern::Recipe recipe = lectern::parse_recipe(document);
    // What was accepted must be accepted again, and mean the same.
    const auto again = lectern::ConfigDocument::parse(recipe.resolved, "resolved.toml");
    if (lectern::parse_recipe(again).resolved != recipe.resolved) std::abort();
  } catch (const lectern::Error& error) {
    if (std::string_view(error.what()).find('\n') != std::string_view::npos) std::abort();
  }
  return 0;
}
