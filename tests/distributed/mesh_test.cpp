#include "distributed/mesh.h"

#include "distributed/groups.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;

TEST(Mesh, ShapeIsWhatIsLeftForData) {
  const MeshShape shape = mesh_shape(32, 4, 2);
  EXPECT_EQ(shape.pp, 4);
  EXPECT_EQ(shape.dp, 8);
  EXPECT_EQ(shape.ep, 2);
  EXPECT_EQ(mesh_shape(1, 1, 1).dp, 1);
}

TEST(Mesh, SaysWhatWouldFit) {
  EXPECT_TRUE(throws_with([] { mesh_shape(6, 4, 1); },
                          {"mesh.pp must divide the number of ranks = 6, got 4",
                           "with 6 ranks it may be 1, 2, 3, 6", "start 8 ranks"}));
  EXPECT_TRUE(throws_with([] { mesh_shape(12, 2, 4); },
                          {"mesh.ep must divide the data-parallel ranks = 6", "got 4",
                           "it may be 1, 2, 3, 6", "start 16 ranks"}));
  EXPECT_TRUE(throws_with([] { mesh_shape(4, 0, 1); }, {"mesh.pp", "got 0"}));
  EXPECT_TRUE(throws_with([] { mesh_shape(4, 2, -1); }, {"mesh.ep", "got -1"}));
}

TEST(Mesh, OfOneRank) {
  const Mesh mesh(make_single_group(), 1, 1);
  EXPECT_EQ(mesh.stage(), 0);
  EXPECT_EQ(mesh.replica(), 0);
  for (const auto& group : {mesh.data(), mesh.pipeline(), mesh.experts(), mesh.expert_replicas()}) {
    ASSERT_NE(group, nullptr);
    EXPECT_EQ(group->size(), 1);
  }
}

}  // namespace
}  // namespace lectern
