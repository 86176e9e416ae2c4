#include "core/profile.h"

#include "core/cpu/product_rate.h"
#include "tests/testing.h"

#include <chrono>
#include <thread>

namespace lectern {
namespace {

void wait_milliseconds(int count) { std::this_thread::sleep_for(std::chrono::milliseconds(count)); }

const ProfileEntry* find(const std::vector<ProfileEntry>& table, std::string_view name) {
  for (const ProfileEntry& entry : table)
    if (entry.name == name) return &entry;
  return nullptr;
}

TEST(Profile, OffUntilStarted) {
  EXPECT_FALSE(is_profiling());
  profile_mark("forward ", "nothing");
  { const ProfileProduct product("nothing", 1); }
  EXPECT_TRUE(stop_profile().marks.empty());
}

TEST(Profile, MarksShareOutAllOfTheTime) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  start_profile();
  EXPECT_TRUE(is_profiling());
  wait_milliseconds(20);
  profile_mark("forward ", "short");
  wait_milliseconds(60);
  profile_mark("forward ", "long");
  wait_milliseconds(20);
  profile_mark("forward ", "short");
  const ProfileTables tables = stop_profile();
  const double passed = std::chrono::duration<double>(Clock::now() - start).count();
  EXPECT_FALSE(is_profiling());
  ASSERT_EQ(tables.marks.size(), 2u);
  const ProfileEntry *brief = find(tables.marks, "forward short"),
                     *lengthy = find(tables.marks, "forward long");
  ASSERT_TRUE(brief != nullptr && lengthy != nullptr);
  EXPECT_EQ(brief->calls, 2);
  EXPECT_EQ(lengthy->calls, 1);
  EXPECT_GE(brief->seconds, 0.04);
  EXPECT_GE(lengthy->seconds, 0.06);
  EXPECT_LE(brief->seconds + lengthy->seconds, passed);
  EXPECT_TRUE(tables.marks[0].seconds >= tables.marks[1].seconds) << "most time first";
}

TEST(Profile, ProductsAddUp) {
  start_profile();
  for (int i = 0; i < 3; ++i) {
    const ProfileProduct product("product", 1e6);
    wait_milliseconds(2);
  }
  const ProfileTables tables = stop_profile();
  ASSERT_EQ(tables.products.size(), 1u);
  EXPECT_EQ(tables.products[0].name, "product");
  EXPECT_EQ(tables.products[0].calls, 3);
  EXPECT_EQ(tables.products[0].operations, 3e6);
  EXPECT_GE(tables.products[0].seconds, 0.006);
  EXPECT_TRUE(tables.marks.empty());
}

TEST(Profile, SpansWhereAskedFor) {
  EXPECT_EQ(profile_clock(), 0.0);
  start_profile(true);
  wait_milliseconds(2);
  {
    const ProfileProduct product("product", 1);
    wait_milliseconds(5);
  }
  profile_mark("forward ", "linear");
  const double clock = profile_clock();
  const std::vector<ProfileSpan> spans = stop_profile().spans;
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].name, "product");
  EXPECT_TRUE(spans[0].kind == ProfileSpan::Kind::product);
  EXPECT_EQ(spans[1].name, "forward linear");
  EXPECT_TRUE(spans[1].kind == ProfileSpan::Kind::mark);
  EXPECT_GE(spans[0].begin, 0.002);
  EXPECT_GE(spans[0].seconds, 0.005);
  EXPECT_EQ(spans[1].begin, 0.0);
  EXPECT_GE(spans[1].seconds, spans[0].begin + spans[0].seconds);
  EXPECT_LE(spans[1].seconds, clock);
  start_profile();
  profile_mark("", "mark");
  EXPECT_TRUE(stop_profile().spans.empty());
}

TEST(Profile, OfOneThread) {
  start_profile();
  std::thread([] {
    EXPECT_FALSE(is_profiling());
    profile_mark("", "other thread");
  }).join();
  EXPECT_TRUE(stop_profile().marks.empty());
}

TEST(ProductRate, IsARate) {
  EXPECT_GT(measured_product_rate(DType::f32, 64), 1e6);
  EXPECT_GE(measured_product_rate(DType::bf16, 64), 0.0);  // 0 without AVX-512
  EXPECT_TRUE(testing::throws_with([] { measured_product_rate(DType::f64); },
                                   {"measured_product_rate: dtype must be f32 or bf16, got f64"}));
}

}  // namespace
}  // namespace lectern
