// Which GPU each rank of a host takes.
#include "distributed/local_device.h"

#include "distributed/groups.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;
using Seen = std::vector<std::vector<std::string>>;

TEST(LocalDevice, RanksThatSeeAllTakeOneEach) {
  const Seen seen = {{"a", "b", "c"}, {"a", "b", "c"}, {"a", "b", "c"}};
  for (std::size_t rank = 0; rank < 3; ++rank)
    EXPECT_EQ(device_of_rank(seen, rank, "node1"), static_cast<int>(rank));
}

TEST(LocalDevice, RanksThatALauncherShowsOneTakeThat) {
  const Seen seen = {{"b"}, {"a"}};
  EXPECT_EQ(device_of_rank(seen, 0, "node1"), 0);
  EXPECT_EQ(device_of_rank(seen, 1, "node1"), 0);
  // One sees what the other took, and one more.
  EXPECT_EQ(device_of_rank({{"a"}, {"a", "b"}}, 1, "node1"), 1);
}

TEST(LocalDevice, SaysWhenThereAreTooFew) {
  const Seen seen = {{"a", "b"}, {"a", "b"}, {"a", "b"}};
  EXPECT_EQ(device_of_rank(seen, 1, "node1"), 1);
  EXPECT_TRUE(throws_with([&] { device_of_rank(seen, 2, "node1"); },
                          {"every rank on cuda needs a GPU of its own, got 3 ranks on node1, which "
                           "see 2: start at most 2 there"}));
  EXPECT_TRUE(throws_with(
      [&] {
        device_of_rank({{}, {}}, 1, "node2");
      },
      {"got 2 ranks on node2, which see 0"}));
}

TEST(LocalDevice, ARankAloneTakesTheFirst) {
  EXPECT_EQ(assign_device(*make_single_group(), {"x", "y"}), 0);
  EXPECT_TRUE(throws_with([] { assign_device(*make_single_group(), {}); }, {"which see 0"}));
}

}  // namespace
}  // namespace lectern
