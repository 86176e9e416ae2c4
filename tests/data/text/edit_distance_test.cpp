#include "data/text/edit_distance.h"

#include "core/random.h"
#include "tests/testing.h"

#include <algorithm>
#include <string>
#include <vector>

namespace lectern {
namespace {

/// The textbook matrix.
std::int64_t naive_distance(const std::u32string& a, const std::u32string& b) {
  std::vector<std::vector<std::int64_t>> d(a.size() + 1, std::vector<std::int64_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i)
    for (std::size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = static_cast<std::int64_t>(i + j);
        continue;
      }
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
    }
  return d[a.size()][b.size()];
}

std::u32string random_text(Random& random, std::size_t length, std::uint64_t alphabet) {
  std::u32string out;
  for (std::size_t i = 0; i < length; ++i)
    out += static_cast<char32_t>(0x4e00 + random.below(alphabet));
  return out;
}

TEST(EditDistance, EqualsTheTextbookMatrix) {
  Random random(1, "distance");
  for (const std::size_t n : {0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 200})
    for (const std::size_t m : {0, 1, 5, 64, 100, 191, 192, 193})
      for (const std::uint64_t alphabet : {1, 2, 4, 50}) {
        const std::u32string a = random_text(random, n, alphabet);
        const std::u32string b = random_text(random, m, alphabet);
        ASSERT_EQ(edit_distance(a, b), naive_distance(a, b)) << n << " " << m << " " << alphabet;
        ASSERT_EQ(edit_distance(b, a), naive_distance(a, b));
      }
}

TEST(EditDistance, NearlyEqualTexts) {
  Random random(2, "near");
  for (int round = 0; round < 200; ++round) {
    const std::u32string a = random_text(random, 1 + random.below(300), 30);
    std::u32string b = a;
    for (int edit = 0; edit < 6 && !b.empty(); ++edit) {
      const auto at = random.below(b.size());
      if (edit % 3 == 0)
        b.erase(at, 1);
      else if (edit % 3 == 1)
        b.insert(at, 1, U'x');
      else
        b[at] = U'y';
    }
    ASSERT_EQ(edit_distance(a, b), naive_distance(a, b)) << round;
  }
}

TEST(EditDistance, KnownPairs) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
  EXPECT_EQ(edit_distance("", "abc"), 3);
  EXPECT_EQ(edit_distance("flaw", "lawn"), 2);
  EXPECT_EQ(edit_distance("\u4e2d\u6587", "\u4e2d\u570b"), 1);  // code points, not bytes
  EXPECT_EQ(edit_distance(std::string_view("same"), std::string_view("same")), 0);
}

}  // namespace
}  // namespace lectern
