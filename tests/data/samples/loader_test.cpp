#include "data/samples/loader.h"

#include "core/error.h"
#include "core/io/file.h"
#include "data/samples/cut.h"
#include "data/samples/text.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/view_tokens.h"
#include "tests/testing.h"

#include <cstring>
#include <set>

namespace lectern {
namespace {

using testing::TemporaryFolder;
using testing::test_tokenizer;
using testing::throws_with;

class Loading : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_shards(folder_.path(), 2, 4);
    samples_ = make_samples(1);
  }

  std::shared_ptr<const SampleSet> make_samples(int views) const {
    const auto shards = std::make_shared<const ShardSet>(folder_.path(), 1 << 16);
    CutOptions words, pages;
    words.shards = pages.shards = shards;
    words.level = Level::word;
    SampleOptions options;
    options.image_token = 300;
    options.views.clear();
    for (int i = 0; i < views; ++i) {
      ViewOptions view;
      view.global_size = 64 << i;
      view.tile_size = 64;
      testing::set_small_tokens(view);
      options.views.push_back(view);
    }
    return std::make_shared<const SampleSet>(
        std::vector<WeightedSource>{{make_cut_source(words, test_tokenizer()), 2},
                                    {make_cut_source(pages, test_tokenizer())},
                                    {make_text_source(pages, test_tokenizer())}},
        options);
  }

  static LoaderOptions rows(std::int64_t global, std::int64_t micro = 0) {
    LoaderOptions options;
    options.seed = 17;
    options.global_batch = global;
    options.micro_batch = micro;
    return options;
  }

  TemporaryFolder folder_;
  std::shared_ptr<const SampleSet> samples_;
};

std::string bytes_of(const Tensor& tensor) {
  if (!tensor.defined()) return "-";
  return tensor.describe() + std::string(static_cast<const char*>(tensor.raw()), tensor.bytes());
}

/// Everything that training sees.
std::string content(const LoadedBatch& batch) {
  std::string out = fmt::format("{} {} {}/{} {} {} {} {}\n", batch.step, batch.view,
                                batch.micro_batch, batch.micro_batches, batch.step_trained_tokens,
                                batch.step_samples, batch.samples, batch.trained_tokens);
  for (const Tensor& tensor : {batch.input_ids, batch.labels, batch.positions, batch.segment_start,
                               batch.pixel_values, batch.pixel_values_local})
    out += bytes_of(tensor);
  for (const std::string& key : batch.sample_keys) out += key;
  return out;
}

std::vector<std::string> contents(Loader& loader, int batches) {
  std::vector<std::string> out;
  for (int i = 0; i < batches; ++i) out.push_back(content(loader.next()));
  return out;
}

TEST_F(Loading, SameBatchesWhateverTheWorkers) {
  for (const std::int64_t pack : {0, 400}) {
    std::vector<std::string> want;
    for (const int workers : {0, 1, 2, 5}) {
      LoaderOptions options = rows(pack > 0 ? 3 : 6, 4);
      options.batch.pack_tokens = pack;
      options.workers = workers;
      options.ahead = workers == 2 ? 1 : 7;
      Loader loader(samples_, options);
      const std::vector<std::string> got = contents(loader, 12);
      if (want.empty()) want = got;
      EXPECT_EQ(got, want) << workers;
    }
  }
}

TEST_F(Loading, ResumesAnywhere) {
  for (const std::int64_t pack : {0, 400}) {
    LoaderOptions options = rows(pack > 0 ? 2 : 4, 2);
    options.batch.pack_tokens = pack;
    const auto samples = make_samples(2);
    Loader whole(samples, options);
    std::vector<LoaderState> states{whole.state()};
    std::vector<std::vector<std::string>> steps;
    for (int step = 0; step < 6; ++step) {
      steps.push_back(contents(whole, static_cast<int>(whole.micro_batches())));
      states.push_back(whole.state());
    }
    EXPECT_EQ(states[0], (LoaderState{}));
    EXPECT_EQ(states[6].step, 6u);
    if (pack == 0) {
      EXPECT_EQ(states[6].samples, 24u);
    }
    for (std::size_t step = 0; step < 6; ++step) {
      Loader resumed(samples, options, states[step]);
      EXPECT_EQ(contents(resumed, static_cast<int>(resumed.micro_batches())), steps[step]);
      EXPECT_EQ(resumed.state(), states[step + 1]);
    }
  }
}

TEST_F(Loading, StateMovesOnlyWithWholeSteps) {
  Loader loader(samples_, rows(4, 2));
  ASSERT_EQ(loader.micro_batches(), 2);
  loader.next();
  EXPECT_EQ(loader.state(), (LoaderState{0, 0}));
  loader.next();
  EXPECT_EQ(loader.state(), (LoaderState{4, 1}));
}

/// The rows of a step, over ranks and micro-batches, do not depend on how they are spread.
TEST_F(Loading, StepsDoNotDependOnRanks) {
  for (const std::int64_t pack : {0, 400}) {
    std::vector<std::multiset<std::string>> want;
    for (const int ranks : {1, 2, 3, 6}) {
      for (const std::int64_t micro : {0, 1, 2}) {
        LoaderOptions options = rows(6, micro);
        options.batch.pack_tokens = pack;
        options.ranks = ranks;
        std::vector<std::multiset<std::string>> got(3);
        std::vector<std::int64_t> trained(3), told(3);
        for (options.rank = 0; options.rank < ranks; ++options.rank) {
          Loader loader(samples_, options);
          for (std::size_t step = 0; step < 3; ++step)
            for (std::int64_t i = 0; i < loader.micro_batches(); ++i) {
              const LoadedBatch batch = loader.next();
              EXPECT_EQ(batch.step, step);
              EXPECT_EQ(batch.micro_batch, i);
              std::string pack_of;
              for (const std::string& key : batch.sample_keys) {
                pack_of += key + "\n";
                if (pack == 0) got[step].insert(key);
              }
              if (pack > 0) got[step].insert(pack_of);
              trained[step] += batch.trained_tokens;
              told[step] = batch.step_trained_tokens;
            }
        }
        if (want.empty()) want = got;
        EXPECT_EQ(got, want) << ranks << " " << micro;
        EXPECT_EQ(trained, told);
      }
    }
  }
}

/// The batches of one rank are those of many, and each rank has its share of them and of the work.
TEST_F(Loading, BatchesGoWholeToTheRankWithLeastWork) {
  LoaderOptions options = rows(8, 1);
  options.image_token_work = 0;
  options.ranks = 2;
  std::multiset<std::string> keys, all;
  std::vector<std::int64_t> tokens(2);
  double spread = 0;
  for (options.rank = 0; options.rank < 2; ++options.rank) {
    Loader loader(samples_, options);
    ASSERT_EQ(loader.micro_batches(), 4);
    for (int i = 0; i < 4; ++i) {
      const LoadedBatch batch = loader.next();
      ASSERT_EQ(batch.sample_keys.size(), 1u);
      keys.insert(batch.sample_keys[0]);
      tokens[static_cast<std::size_t>(options.rank)] += batch.input_ids.numel();
      spread = batch.step_work_spread;
    }
  }
  Loader again(samples_, rows(8, 1));
  for (int i = 0; i < 8; ++i) all.insert(again.next().sample_keys[0]);
  EXPECT_EQ(keys, all);
  const double mean = static_cast<double>(tokens[0] + tokens[1]) / 2;
  EXPECT_DOUBLE_EQ(spread, static_cast<double>(std::max(tokens[0], tokens[1])) / mean);
  // Contiguous halves of the step would be further apart than the longest sample allows for.
  std::int64_t longest = 0;
  Loader lengths(samples_, rows(8, 1));
  for (int i = 0; i < 8; ++i) longest = std::max(longest, lengths.next().input_ids.numel());
  EXPECT_LE(std::abs(tokens[0] - tokens[1]), longest);
}

TEST_F(Loading, PacksAreFullAndGreedy) {
  LoaderOptions options = rows(1);
  options.batch.pack_tokens = 400;
  Loader loader(samples_, options);
  const Sampler sampler(samples_->sampler_sources(), options.seed);
  std::uint64_t position = 0;
  for (int i = 0; i < 20; ++i) {
    const LoadedBatch batch = loader.next();
    std::int64_t expected = 0;
    std::size_t count = 0;
    while (expected + samples_->token_count(sampler.at(position)) <= 400) {
      expected += samples_->token_count(sampler.at(position));
      ASSERT_LT(count, batch.sample_keys.size());
      EXPECT_EQ(batch.sample_keys[count++], samples_->key(sampler.at(position++)));
    }
    EXPECT_EQ(batch.input_ids.dim(1), expected);
    EXPECT_EQ(batch.sample_keys.size(), count);
  }
}

TEST_F(Loading, ResolutionsTakeTurns) {
  const auto samples = make_samples(2);
  Loader loader(samples, rows(8));
  for (int step = 0; step < 4; ++step) {
    const LoadedBatch batch = loader.next();
    EXPECT_EQ(batch.view, step % 2);
    EXPECT_EQ(batch.pixel_values.dim(3), 64 << (step % 2));
  }
}

TEST_F(Loading, CachedImagesComeWithoutPixels) {
  LoaderOptions options = rows(8);
  Loader all(samples_, options);
  options.is_cached = [](const std::string& key) { return key.find("doc/0003") == 0; };
  Loader some(samples_, options);
  std::int64_t cached = 0;
  for (int step = 0; step < 8; ++step) {
    const LoadedBatch want = all.next(), got = some.next();
    EXPECT_EQ(bytes_of(got.input_ids), bytes_of(want.input_ids));
    EXPECT_EQ(got.num_local_patches, want.num_local_patches);
    std::int64_t kept = 0;
    for (std::size_t i = 0; i < got.image_keys.size(); ++i) {
      EXPECT_EQ(got.has_pixels[i], options.is_cached(got.image_keys[i]) ? 0 : 1);
      if (got.has_pixels[i] == 0) {
        ++cached;
        continue;
      }
      EXPECT_EQ(
          bytes_of(got.pixel_values.slice(0, kept, kept + 1).clone()),
          bytes_of(want.pixel_values
                       .slice(0, static_cast<std::int64_t>(i), static_cast<std::int64_t>(i) + 1)
                       .clone()));
      ++kept;
    }
  }
  EXPECT_GT(cached, 0);
}

TEST_F(Loading, ErrorsReachTheConsumerInOrder) {
  ShardPage broken = testing::shard_page(testing::synthetic_page("broken", 1));
  broken.picture.resize(40);
  const TemporaryFolder folder;
  ShardWriter writer;
  for (int i = 1; i < 4; ++i) writer.add(testing::shard_page(testing::synthetic_page("doc", i)));
  writer.add(broken);
  writer.write(folder.path() / "shard-00000.h5", testing::test_tokenizer_sha256());
  CutOptions source;
  source.shards = std::make_shared<const ShardSet>(folder.path());
  SampleOptions options = samples_->options();
  const auto samples = std::make_shared<const SampleSet>(
      std::vector<WeightedSource>{{make_cut_source(source, test_tokenizer())}}, options);
  for (const int workers : {0, 1, 3}) {
    LoaderOptions unshuffled = rows(1);
    unshuffled.shuffle = false;
    unshuffled.workers = workers;
    Loader loader(samples, unshuffled);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(loader.next().samples, 1);
    for (int i = 0; i < 2; ++i)
      EXPECT_TRUE(throws_with([&] { loader.next(); }, {"shard-00000.h5", "broken/0001"}));
    EXPECT_EQ(loader.state(), (LoaderState{3, 3}));
  }
}

TEST_F(Loading, EndsCleanlyWhileWorkersAreBusy) {
  for (int i = 0; i < 20; ++i) {
    LoaderOptions options = rows(4);
    options.workers = 3;
    options.ahead = 50;
    Loader loader(samples_, options);
    if (i % 2 == 0) loader.next();
  }
}

TEST_F(Loading, BadOptionsAreRefused) {
  const auto with = [&](auto change) {
    return [this, change] {
      LoaderOptions options = rows(4);
      change(options);
      Loader loader(samples_, options);
    };
  };
  using O = LoaderOptions;
  EXPECT_TRUE(throws_with(with([](O& o) { o.ranks = 3; }), {"multiple of 3 ranks, got 4"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.rank = 1; }), {"rank must be in 0 .. 0, got 1"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.global_batch = 0; }), {"global_batch", "got 0"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.workers = -1; }), {"workers", "got -1"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.ahead = 0; }), {"ahead", "got 0"}));
  EXPECT_TRUE(throws_with(with([](O& o) { o.batch.pack_tokens = 30; }),
                          {"pack_tokens must be at least the longest sample's", "got 30"}));
}

}  // namespace
}  // namespace lectern
