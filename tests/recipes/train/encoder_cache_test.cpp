// The store of encoder output: bounded, keyed, and none the worse for being torn.
#include "recipes/train/encoder_cache.h"

#include "core/io/file.h"
#include "nn/parameter.h"
#include "recipes/train/trainer.h"
#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <algorithm>
#include <fstream>
#include <thread>

namespace lectern {
namespace {

using testing::set;
using testing::TinyData;

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
       {"0 -1 0 0 6 1 x\n", "8 4 0 0 6 1 x\n", "0 1048577 0 0 6 1 x\n", "0 4 0 0 0 1 x\n", "x\n",
        "\n", "0 4 0 0 6 1 \n", "0 99999999999999999999 0 0 6 1 x\n", "0 4 0 0 6 4294967296 x\n",
        "0 1000000 1000000 1000000 1000000 1 x\n"}) {
    fill();
    write_file(index(), line);
    EncoderCache cache(folder(), "one", kLarge);
    EXPECT_EQ(cache.entries(), 0) << line;
    cache.insert("a", features(1));
    EXPECT_TRUE(holds(cache, "a", features(1)));
  }
}

/// Bytes of a file become zeros, as a power cut leaves pages that had not reached the disk.
void empty_bytes(const std::filesystem::path& path, std::size_t begin, std::size_t count) {
  std::string bytes = read_file(path);
  std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(begin), count, '\0');
  write_file(path, bytes);
}

TEST_F(EncoderCacheTest, DamagedRowsAreForgottenAndComputedAgain) {
  fill();
  empty_bytes(data(), 4 * 24, 4 * 30);  // of "b c"
  {
    EncoderCache cache(folder(), "one", kLarge);
    EXPECT_TRUE(cache.contains("a"));
    EXPECT_FALSE(cache.contains("b c"));
    EXPECT_TRUE(cache.contains("d"));
    EXPECT_FALSE(cache.find("b c"));
    cache.insert("b c", features(2, 2));
    EXPECT_TRUE(holds(cache, "b c", features(2, 2)));
  }
  EncoderCache again(folder(), "one", kLarge);  // the new rows stand behind the damaged ones
  EXPECT_TRUE(again.contains("b c"));
  EXPECT_TRUE(holds(again, "b c", features(2, 2)));
  EXPECT_TRUE(holds(again, "d", features(3)));
}

TEST_F(EncoderCacheTest, AnIndexThatWasDamagedDoesNotMixKeysUp) {
  fill();
  std::string lines = read_file(index());
  lines[lines.find(" a\n") + 1] = 'z';  // another key for the first rows
  write_file(index(), lines);
  EncoderCache cache(folder(), "one", kLarge);
  EXPECT_FALSE(cache.contains("z"));
  EXPECT_FALSE(cache.contains("a"));
  EXPECT_TRUE(cache.contains("d"));
}

TEST_F(EncoderCacheTest, RowsThatAreDamagedInUseAreAnError) {
  fill();
  EncoderCache cache(folder(), "one", kLarge);
  ASSERT_TRUE(cache.contains("a"));
  std::fstream(data(), std::ios::in | std::ios::out | std::ios::binary).write("zeros", 5);
  EXPECT_TRUE(testing::throws_with([&] { cache.find("a"); },
                                   {"features.f32: the rows at 0 were damaged while in use"}));
}

TEST_F(EncoderCacheTest, OneAtATime) {
  const EncoderCache cache(folder(), "one", kLarge);
  EXPECT_TRUE(testing::throws_with([&] { EncoderCache(folder(), "one", kLarge); },
                                   {"encoder cache: ", "cache: is in use by process",
                                    "encoder_cache.dir may name another folder"}));
}

TEST_F(EncoderCacheTest, ACacheOfAnOlderFormIsEmptied) {
  fill();
  write_file(folder() / "encoder.txt", "one");
  EXPECT_EQ(EncoderCache(folder(), "one", kLarge).entries(), 0);
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

/// Stage 3 with pages, their tiles and the cache.
std::vector<std::string> cached_stage(std::vector<std::string> more = {}) {
  more.insert(more.end(), {"stage=3", "steps=8", "data.level=page", "view.crop=true"});
  return more;
}

/// What a set of shards says may change under the same names.
void write_shard_of(const std::filesystem::path& folder, const TinyData& data, int first_page) {
  std::filesystem::create_directories(folder);
  ShardWriter writer;
  for (int page = 1; page <= 4; ++page) {
    ShardPage record = shard_page(testing::synthetic_page("doc", first_page + page, 1, 2),
                                  testing::tiny_tokenizer());
    record.id = fmt::format("doc/{:04}", page);
    writer.add(record);
  }
  writer.write(folder / "shard-00000.h5", sha256_of_file(data.tokenizer()));
}

TEST(TrainCachedContent, KnowsDocumentsByContentAndNotByName) {
  const TinyData data;
  const auto shared = set("encoder_cache.dir", data.folder() / "cache");
  const auto shards = data.folder() / "replaced";
  const auto use = fmt::format("data.shards=[\"{}\"]", shards.string());
  write_shard_of(shards, data, 0);
  train(data.recipe("first", cached_stage({shared, use})), false);
  write_shard_of(shards, data, 4);  // the same ids and sizes, other pages
  train(data.recipe("second", cached_stage({shared, use})), false);
  train(data.recipe("second-off", cached_stage({"encoder_cache.enabled=false", use})), false);
  EXPECT_EQ(metrics_text(data, "second"), metrics_text(data, "second-off"));
  EXPECT_NE(metrics_text(data, "second"), metrics_text(data, "first"));
}

TEST(TrainCachedContent, DamagedRowsAreComputedAgain) {
  const TinyData data;
  train(data.recipe("off", cached_stage({"encoder_cache.enabled=false"})), false);
  train(data.recipe("on", cached_stage()), false);
  const auto cache = data.folder() / "on" / "encoder-cache";
  std::string rows = read_file(cache / "features.f32");
  std::fill_n(rows.begin() + static_cast<std::ptrdiff_t>(rows.size() / 3), rows.size() / 3, '\0');
  write_file(cache / "features.f32", rows);
  train(data.recipe("again", cached_stage({set("encoder_cache.dir", cache)})), false);
  EXPECT_EQ(metrics_text(data, "again"), metrics_text(data, "off"));
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
