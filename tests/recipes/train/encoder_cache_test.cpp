// The store of encoder output: bounded, keyed, and none the worse for being torn.
#include "recipes/train/encoder_cache.h"

#include "core/io/file.h"
#include "nn/parameter.h"
#include "tests/testing.h"

#include <thread>

namespace lectern {
namespace {

constexpr std::int64_t kLarge = 1 << 30;

CachedFeatures features(std::uint64_t seed, std::int64_t tiles = 0) {
  CachedFeatures out{testing::random_tensor({4, 6}, seed), {}};
  if (tiles > 0) out.local = testing::random_tensor({tiles, 3, 6}, seed + 100);
  return out;
}

::testing::AssertionResult holds(const EncoderCache& cache, const std::string& key,
                                 const CachedFeatures& want) {
  const auto got = cache.find(key);
  if (!got) return ::testing::AssertionFailure() << key << " is not there";
  if (got->local.defined() != want.local.defined())
    return ::testing::AssertionFailure() << key << ": local rows differ";
  if (const auto global = testing::near(got->global, want.global, 0); !global) return global;
  return want.local.defined() ? testing::near(got->local, want.local, 0)
                              : ::testing::AssertionSuccess();
}

class EncoderCacheTest : public ::testing::Test {
 protected:
  std::filesystem::path folder() const { return folder_.path() / "cache"; }
  std::filesystem::path index() const { return folder() / "index.txt"; }
  std::filesystem::path data() const { return folder() / "features.f32"; }
  /// Three entries: a, "b c" with tiles, d.
  void fill() const {
    EncoderCache cache(folder(), "one", kLarge);
    cache.insert("a", features(1));
    cache.insert("b c", features(2, 2));
    cache.insert("d", features(3));
  }
  testing::TemporaryFolder folder_;
};

TEST_F(EncoderCacheTest, KeepsWhatItWasGiven) {
  fill();
  EncoderCache cache(folder(), "one", kLarge);
  EXPECT_EQ(cache.entries(), 3);
  EXPECT_EQ(cache.bytes(), 4 * (24 + 24 + 36 + 24));
  EXPECT_TRUE(holds(cache, "a", features(1)));
  EXPECT_TRUE(holds(cache, "b c", features(2, 2)));
  EXPECT_TRUE(holds(cache, "d", features(3)));
  EXPECT_FALSE(cache.contains("b"));
  EXPECT_FALSE(cache.find("e"));
  cache.insert("a", features(9));  // the first one stays
  EXPECT_TRUE(holds(cache, "a", features(1)));
  cache.insert("two\nlines", features(9));  // would break the index: not kept
  EXPECT_EQ(cache.entries(), 3);
}

TEST_F(EncoderCacheTest, AnotherEncoderFindsNothing) {
  fill();
  EncoderCache cache(folder(), "two", kLarge);
  EXPECT_EQ(cache.entries(), 0);
  EXPECT_EQ(std::filesystem::file_size(data()), 0u);
  cache.insert("a", features(7));
  EXPECT_TRUE(holds(cache, "a", features(7)));
}

TEST_F(EncoderCacheTest, TornFilesLoseOnlyTheTail) {
  fill();
  const auto bytes = std::filesystem::file_size(data());
  std::filesystem::resize_file(data(), bytes - 1);
  {
    EncoderCache cache(folder(), "one", kLarge);
    EXPECT_EQ(cache.entries(), 2);
    EXPECT_TRUE(holds(cache, "b c", features(2, 2)));
    cache.insert("d", features(3));
    EXPECT_TRUE(holds(cache, "d", features(3)));
  }
  // A kill between data and index line, or within the line.
  const std::string lines = read_file(index());
  write_file(index(), lines.substr(0, lines.size() - 4));
  {
    EncoderCache cache(folder(), "one", kLarge);
    EXPECT_EQ(cache.entries(), 2);
    EXPECT_EQ(std::filesystem::file_size(data()), static_cast<std::uintmax_t>(cache.bytes()));
    cache.insert("d", features(3));
  }
  EXPECT_EQ(read_file(index()), lines);
  std::filesystem::remove(data());
  EXPECT_EQ(EncoderCache(folder(), "one", kLarge).entries(), 0);
}

TEST_F(EncoderCacheTest, HostileIndexLinesAreDropped) {
  for (const char* line :
       {"0 -1 0 0 6 x\n", "8 4 0 0 6 x\n", "0 1048577 0 0 6 x\n", "0 4 0 0 0 x\n", "x\n", "\n",
        "0 4 0 0 6 \n", "0 99999999999999999999 0 0 6 x\n",
        "0 1000000 1000000 1000000 1000000 x\n"}) {
    fill();
    write_file(index(), line);
    EncoderCache cache(folder(), "one", kLarge);
    EXPECT_EQ(cache.entries(), 0) << line;
    cache.insert("a", features(1));
    EXPECT_TRUE(holds(cache, "a", features(1)));
  }
}

TEST_F(EncoderCacheTest, StopsGrowingWhenFull) {
  EncoderCache cache(folder(), "one", 4 * 50);
  cache.insert("a", features(1));
  cache.insert("b", features(2));
  cache.insert("c", features(3));
  EXPECT_EQ(cache.entries(), 2);
  EXPECT_LE(std::filesystem::file_size(data()), 4u * 50);
  EXPECT_FALSE(cache.contains("c"));
  EXPECT_TRUE(holds(cache, "b", features(2)));
}

TEST_F(EncoderCacheTest, ThreadsMayAskWhileOneInserts) {
  EncoderCache cache(folder(), "one", kLarge);
  std::thread asking([&] {
    for (int i = 0; i < 200; ++i)
      if (cache.contains(std::to_string(i))) {
        EXPECT_TRUE(holds(cache, std::to_string(i), features(static_cast<std::uint64_t>(i))));
      }
  });
  for (int i = 0; i < 200; ++i)
    cache.insert(std::to_string(i), features(static_cast<std::uint64_t>(i)));
  asking.join();
  EXPECT_EQ(cache.entries(), 200);
}

TEST_F(EncoderCacheTest, AFolderThatCannotBeMadeIsNamed) {
  write_file(folder_.path() / "file", "x");
  EXPECT_TRUE(testing::throws_with(
      [&] { EncoderCache(folder_.path() / "file" / "cache", "one", kLarge); }, {"cache"}));
}

TEST(ParameterFingerprint, FollowsTheChosenValues) {
  ParameterStore store(1);
  const Variable a = store.add("a.x", {3}, Initialiser::normal(1));
  const Variable b = store.add("b.x", {3}, Initialiser::normal(1));
  const std::string before = parameter_fingerprint(store, {"a."});
  b.value().data<float>()[0] += 1;
  EXPECT_EQ(parameter_fingerprint(store, {"a."}), before);
  a.value().data<float>()[2] += 1e-6f;
  EXPECT_NE(parameter_fingerprint(store, {"a."}), before);
  EXPECT_NE(parameter_fingerprint(store, {"a."}), parameter_fingerprint(store, {"b."}));
}

}  // namespace
}  // namespace lectern
