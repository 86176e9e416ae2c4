// A source that nobody has heard of goes through set, sampler and loader by the interface alone.
#include "data/samples/source.h"

#include "core/error.h"
#include "data/samples/loader.h"
#include "data/samples/sample.h"
#include "tests/data/synthetic_pages.h"
#include "tests/data/view_tokens.h"
#include "tests/testing.h"

#include <map>

namespace lectern {
namespace {

using testing::test_tokenizer;
using testing::throws_with;

/// Squares in as many greys as there are samples; sample i says i + 1 tokens.
class GreySource final : public SampleSource {
 public:
  explicit GreySource(std::int64_t count) : count_(count) {}

  std::string describe() const override { return "grey"; }
  std::int64_t count() const override { return count_; }
  SampleLengths lengths(std::int64_t index, const ViewOptions& view) const override {
    return {image_token_count(view, {}), 1, index + 1, {}};
  }
  std::string key(const SampleRequest& request) const override {
    return fmt::format("grey|{}|{}", request.draw.unit, request.views().global_size);
  }
  Sample make(const SampleRequest& request, bool pixels) const override {
    const std::int64_t index = request.draw.unit, size = request.views().global_size;
    Sample out;
    out.image_tokens = image_token_count(request.views(), {});
    out.prompt_ids = {7};
    out.response_ids.assign(static_cast<std::size_t>(index) + 1, static_cast<std::int32_t>(index));
    out.key = key(request);
    if (pixels) out.global = make_image(size, size, static_cast<std::uint8_t>(index));
    return out;
  }

 private:
  std::int64_t count_;
};

SampleOptions two_views() {
  SampleOptions options;
  options.views.resize(2);
  for (std::size_t i = 0; i < 2; ++i) {
    options.views[i].global_size = 32 << i;
    options.views[i].crop = false;
    testing::set_small_tokens(options.views[i]);
  }
  return options;
}

TEST(SampleSource, DefaultsAreThoseOfAListWithoutPages) {
  const GreySource source(9);
  const ViewOptions view = two_views().views[0];
  EXPECT_EQ(source.dropped(), 0);
  EXPECT_EQ(source.window(), 0);
  EXPECT_EQ(source.longest(view), image_token_count(view, {}) + 1 + 9);
  EXPECT_TRUE(throws_with([&] { source.whole_page(0); }, {"grey is no part of a page"}));
}

TEST(SampleSource, ASetAddsTheTokensThatAllSamplesHave) {
  const SampleSet set({{std::make_shared<const GreySource>(9), 3}}, two_views());
  EXPECT_EQ(set.units(0), 9);
  EXPECT_EQ(set.sampler_sources()[0].weight, 3);
  const Draw draw{0, 0, 4, 0};
  EXPECT_EQ(set.trained_count(draw), 5 + 1);
  EXPECT_EQ(set.token_count(draw), 1 + image_token_count(set.options().views[0], {}) + 1 + 5 + 1);
  EXPECT_EQ(set.token_count(draw, 1), 1 + image_token_count(set.options().views[1], {}) + 1 + 6);
  SampleOptions plain = two_views();
  plain.begin_token = -1;
  const SampleSet without({{std::make_shared<const GreySource>(9)}}, plain);
  EXPECT_EQ(without.token_count(draw), set.token_count(draw) - 1);
  EXPECT_EQ(without.longest(), set.longest() - 1);
  EXPECT_EQ(set.longest(), set.token_count(Draw{0, 0, 8, 0}));
  EXPECT_EQ(set.make(draw, 1).global.width, 64);
  EXPECT_EQ(set.key(draw, 1), "grey|4|64");
}

TEST(SampleSource, LoadersTakeAnySource) {
  const auto set = std::make_shared<const SampleSet>(
      std::vector<WeightedSource>{{std::make_shared<const GreySource>(9)},
                                  {std::make_shared<const GreySource>(3), 2}},
      two_views());
  for (const std::int64_t pack : {0, 40}) {
    LoaderOptions options;
    options.global_batch = 4;
    options.batch.pack_tokens = pack;
    options.workers = 2;
    Loader loader(set, options);
    for (int step = 0; step < 6; ++step) {
      std::int64_t trained = 0;
      for (std::int64_t i = 0; i < loader.micro_batches(); ++i) {
        const LoadedBatch batch = loader.next();
        trained += batch.trained_tokens;
        EXPECT_EQ(batch.pixel_values.dim(3), 32 << (step % 2));
        if (i + 1 == loader.micro_batches()) {
          EXPECT_EQ(trained, batch.step_trained_tokens);
        }
      }
    }
  }
}

}  // namespace
}  // namespace lectern
