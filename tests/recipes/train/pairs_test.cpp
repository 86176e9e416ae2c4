// Pairs of somebody's own, written as format-2 shards through the writer's API, train.
#include "data/shards/pair.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/tiny_run.h"

namespace lectern {
namespace {

using testing::throws_with;
using testing::tiny_tokenizer;
using testing::TinyData;

/// Three pictures that are asked differently, and two texts.
void write_pairs(const TinyData& data) {
  ShardWriter writer;
  for (int i = 0; i < 5; ++i) {
    Pair pair;
    pair.id = fmt::format("mine/{}", i);
    pair.document = "mine";
    if (i < 3) pair.picture = encode_png(testing::synthetic_page("mine", i + 1, 1, 2).image);
    pair.prompt = i < 3 ? fmt::format("<image>p{}", i) : "w";
    pair.answer = fmt::format("w{}w{}", i, i);
    writer.add(pair_record(pair, tiny_tokenizer()));
  }
  std::filesystem::create_directories(data.folder() / "pairs");
  writer.write(data.folder() / "pairs" / "shard-00000.h5", sha256_of_file(data.tokenizer()));
}

Recipe pairs_recipe(const TinyData& data, const std::string& run, const std::string& more = "",
                    const std::vector<std::string>& overrides = {}) {
  std::string text = read_file(data.recipe_file(run));
  const std::string shards = fmt::format("shards = [\"{}/shards\"]\n", data.folder().string());
  text.erase(text.find(shards), shards.size());
  text += fmt::format("[[data.sources]]\nkind = \"pairs\"\nshards = \"{}/pairs\"\n{}",
                      data.folder().string(), more);
  const auto path = data.folder() / (run + ".toml");
  write_file(path, text);
  return load_recipe(path, overrides);
}

TEST(TrainPairs, AnswersOfOnesOwnPicturesAreLearnt) {
  const TinyData data;
  write_pairs(data);
  const Recipe recipe = pairs_recipe(data, "run", "", {"steps=60", "checkpoint.every=0"});
  EXPECT_EQ(recipe.data.sources[0].name, "pairs 1");
  const TrainingSummary summary = train(recipe, false);
  EXPECT_LT(summary.loss_last, 0.5 * summary.loss_first);
}

TEST(TrainPairs, AFolderOfThemNeedsNoOtherSettingAndIsReadWithItsOwnPrompts) {
  const TinyData data;
  // One picture, two questions: whoever asks anything else can give one answer at most.
  ShardWriter writer;
  for (int i = 0; i < 2; ++i)
    writer.add(pair_record({.id = fmt::format("mine/{}", i),
                            .document = "mine",
                            .source = "",
                            .picture = encode_png(testing::synthetic_page("mine", 1, 1, 2).image),
                            .prompt = fmt::format("<image>p{}", i),
                            .answer = fmt::format("w{}", i),
                            .boxes = {}},
                           tiny_tokenizer()));
  const std::string folder = (data.folder() / "pairs").string();
  std::filesystem::create_directories(folder);
  writer.write(folder + "/shard-00000.h5", sha256_of_file(data.tokenizer()));
  const Recipe recipe = data.recipe(
      "run", {"steps=120", "checkpoint.every=0", fmt::format("data.shards=[\"{}\"]", folder),
              fmt::format("data.validation=\"{}\"", folder)});
  const TrainingSummary summary = train(recipe, false);
  const LoadedModel loaded = load_model_folder(summary.checkpoint);
  const auto samples = validation_samples(recipe, loaded.model->config(), loaded.tokenizer);
  EvaluationArgs args;
  args.reader.max_new_tokens = 8;
  const EvaluationResult result = evaluate(*loaded.model, loaded.tokenizer, *samples, args);
  ASSERT_EQ(result.samples.size(), 2u);
  for (const ReadSample& sample : result.samples) EXPECT_EQ(sample.read, sample.truth);
}

TEST(TrainPairs, MixWithOtherSourcesAndPack) {
  const TinyData data;
  write_pairs(data);
  const std::string more = fmt::format(
      "weight = 2\n[[data.sources]]\nkind = \"shards\"\nlevel = \"word\"\nshards = \"{0}/shards\"\n"
      "[[data.sources]]\nkind = \"text\"\nshards = \"{0}/pairs\"\nname = \"only text\"\n",
      data.folder().string());
  const Recipe recipe = pairs_recipe(data, "run", more, {"data.pack_tokens=120"});
  const testing::AnyConfig config = parse_model_config(testing::tiny_config(), "config");
  const auto samples = training_samples(recipe, config, tiny_tokenizer());
  ASSERT_EQ(samples->sampler_sources().size(), 3u);
  EXPECT_EQ(samples->units(0), 5);
  EXPECT_EQ(samples->sampler_sources()[0].weight, 2);
  EXPECT_EQ(samples->units(2), 5);
  EXPECT_EQ(train(recipe, false).steps, 4);
}

TEST(TrainPairs, TheEncoderCacheChangesNothing) {
  const TinyData data;
  write_pairs(data);
  const auto last = [&](bool cache) {
    const std::string run = cache ? "cached" : "plain";
    const Recipe recipe =
        pairs_recipe(data, run, "",
                     {"stage=3", "steps=6", fmt::format("encoder_cache.enabled={}", cache),
                      "encoder_cache.max_bytes=1000000"});
    return train(recipe, false).loss_last;
  };
  EXPECT_EQ(last(true), last(false));
}

TEST(TrainPairs, WhatCannotBeIsRefused) {
  const TinyData data;
  write_pairs(data);
  EXPECT_TRUE(throws_with([&] { pairs_recipe(data, "run", "level = \"word\"\n"); },
                          {"unknown key `level` in [data.sources[0]]"}));
  EXPECT_TRUE(throws_with([&] { pairs_recipe(data, "run", "", {"data.sources.0.kind=pair"}); },
                          {"data.sources[0].kind must be one of", "did you mean \"pairs\"?"}));
  const Recipe gone = pairs_recipe(data, "run", "", {"data.sources.0.shards=/nowhere"});
  EXPECT_TRUE(throws_with([&] { train(gone, false); }, {"/nowhere: cannot be listed"}));
}

}  // namespace
}  // namespace lectern
