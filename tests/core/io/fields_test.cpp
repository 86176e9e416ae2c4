#include "core/io/fields.h"

#include "tests/testing.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;
using Names = std::vector<std::string>;

TEST(Fields, KnowWhatNobodyAskedFor) {
  const json root = json::parse(R"({"a": 1, "b": "x", "none": null, "c": true, "d": [1], "e": 2,
      "object": {"in": 1, "other": 2}, "list": [{"x": 1, "y": 2}]})");
  Fields in(root, "f.json");
  EXPECT_EQ(in.unread(), Names{}) << "nothing is kept without watch()";
  in.watch();
  EXPECT_EQ(in.unread(), (Names{"a", "b", "c", "d", "e", "list", "object"}));
  in.size("a", 0);
  in.text("b", "");
  in.boolean("c", false);
  in.sizes("d", {}, 0);
  in.only("e", 2);
  EXPECT_EQ(in.unread(), (Names{"list", "object"}));
  const Fields object = in.object("object");
  EXPECT_EQ(object.unread(), (Names{"in", "other"}));
  EXPECT_TRUE(object.has("other"));
  EXPECT_EQ(object.unread(), Names{"in"});
  const std::vector<Fields> list = in.objects("list");
  ASSERT_EQ(list.size(), 1u);
  list[0].raw("x");
  EXPECT_EQ(list[0].unread(), Names{"y"});
  EXPECT_EQ(in.unread(), Names{});
  const Fields copy = in;
  copy.size("missing", 3);
  EXPECT_EQ(copy.unread(), Names{});
}

}  // namespace
}  // namespace lectern
