#include "recipes/recipe/differences.h"

#include <gtest/gtest.h>

namespace lectern {
namespace {

std::string text_of(const std::vector<ChangedSetting>& changes) {
  std::string out;
  for (const ChangedSetting& each : changes)
    out += each.key + ": " + each.before + " -> " + each.now + "\n";
  return out;
}

TEST(ChangedSettings, NamesKeysByTheirTables) {
  const char* before =
      "steps = 6\nname = \"a = b\"\n\n[optimizer]\nlearning_rate = 0.001\nold = 1\n"
      "\n[[data.sources]]\nweight = 1.0\n\n[[data.sources]]\nweight = 2.0\n";
  EXPECT_EQ(text_of(changed_settings(before, before)), "");
  const char* now =
      "steps = 9\nname = \"a = c\"\n\n[optimizer]\nlearning_rate = 0.5\n"
      "\n[[data.sources]]\nweight = 1.0\n\n[[data.sources]]\nweight = 3.0\nnew = true\n";
  EXPECT_EQ(text_of(changed_settings(before, now)),
            "steps: 6 -> 9\n"
            "name: \"a = b\" -> \"a = c\"\n"
            "optimizer.learning_rate: 0.001 -> 0.5\n"
            "data.sources[1].weight: 2.0 -> 3.0\n"
            "data.sources[1].new: (none) -> true\n"
            "optimizer.old: 1 -> (none)\n");
  EXPECT_EQ(text_of(changed_settings("", "a = 1")), "a: (none) -> 1\n");
}

}  // namespace
}  // namespace lectern
