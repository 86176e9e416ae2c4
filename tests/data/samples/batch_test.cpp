#include "data/samples/batch.h"

#include "core/error.h"
#include "data/images/views.h"
#include "tests/testing.h"

namespace lectern {
namespace {

using testing::throws_with;
using Row = std::vector<std::int32_t>;

constexpr std::int32_t kNo = kIgnoredLabel;

SampleOptions tokens() {
  SampleOptions options;
  options.begin_token = 90;
  options.end_token = 91;
  options.image_token = 99;
  return options;
}

/// An image of `tiles` tiles and `image_tokens` placeholders; none when 0.
Sample make_sample(const std::string& key, std::int64_t image_tokens, int tiles, Row prompt,
                   Row response, std::uint8_t grey) {
  Sample sample;
  sample.key = key;
  sample.image_tokens = image_tokens;
  sample.prompt_ids = std::move(prompt);
  sample.response_ids = std::move(response);
  if (image_tokens == 0) return sample;
  sample.global = make_image(4, 4, grey);
  sample.columns = tiles;
  sample.rows = tiles > 0 ? 1 : 0;
  for (int i = 0; i < tiles; ++i)
    sample.local.push_back(make_image(2, 2, static_cast<std::uint8_t>(grey + 1 + i)));
  return sample;
}

std::vector<Sample> three() {
  return {make_sample("a", 3, 2, {1, 2}, {10, 11, 12}, 100), make_sample("b", 0, 0, {}, {20}, 0),
          make_sample("c", 2, 0, {3}, {30, 31}, 50)};
}

Row values(const Tensor& tensor) {
  const auto* data = tensor.data<std::int32_t>();
  return {data, data + tensor.numel()};
}

TEST(Batch, PadsRowsOnTheRight) {
  const Batch batch = make_batch(three(), tokens(), {.pad_token = 7});
  ASSERT_EQ(batch.input_ids.shape(), (Shape{3, 10}));
  EXPECT_EQ(values(batch.input_ids), (Row{90, 99, 99, 99, 1,  2,  10, 11, 12, 91,  //
                                          90, 20, 91, 7,  7,  7,  7,  7,  7,  7,   //
                                          90, 99, 99, 3,  30, 31, 91, 7,  7,  7}));
  EXPECT_EQ(values(batch.labels), (Row{kNo, kNo, kNo, kNo, kNo, kNo, 10,  11,  12,  91,   //
                                       kNo, 20,  91,  kNo, kNo, kNo, kNo, kNo, kNo, kNo,  //
                                       kNo, kNo, kNo, kNo, 30,  31,  91,  kNo, kNo, kNo}));
  EXPECT_EQ(values(batch.positions), (Row{0, 1, 2, 3, 4, 5, 6, 7, 8, 9,  //
                                          0, 1, 2, 3, 4, 5, 6, 7, 8, 9,  //
                                          0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(values(batch.segment_start), Row(30, 0));
  EXPECT_EQ(batch.trained_tokens, 4 + 2 + 3);
  EXPECT_EQ(batch.samples, 3);
  EXPECT_EQ(batch.sample_keys, (std::vector<std::string>{"a", "b", "c"}));
}

TEST(Batch, PacksSamplesThatDoNotSeeEachOther) {
  const Batch batch = make_batch(three(), tokens(), {.pack_tokens = 20});
  ASSERT_EQ(batch.input_ids.shape(), (Shape{1, 20}));
  EXPECT_EQ(values(batch.input_ids), (Row{90, 99, 99, 99, 1,  2,  10, 11, 12, 91,  //
                                          90, 20, 91, 90, 99, 99, 3,  30, 31, 91}));
  EXPECT_EQ(values(batch.labels), (Row{kNo, kNo, kNo, kNo, kNo, kNo, 10,  11, 12, 91,  //
                                       kNo, 20,  91,  kNo, kNo, kNo, kNo, 30, 31, 91}));
  EXPECT_EQ(values(batch.positions),
            (Row{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(values(batch.segment_start),
            (Row{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 10, 10, 13, 13, 13, 13, 13, 13, 13}));
  EXPECT_EQ(batch.trained_tokens, 9);
  EXPECT_TRUE(throws_with([] { make_batch(three(), tokens(), {.pack_tokens = 19}); },
                          {"a pack must have at most 19 tokens, got 20"}));
}

TEST(Batch, PixelsComeInTheOrderOfPlaceholders) {
  const Batch batch = make_batch(three(), tokens(), {});
  ASSERT_EQ(batch.pixel_values.shape(), (Shape{2, 3, 4, 4}));
  ASSERT_EQ(batch.pixel_values_local.shape(), (Shape{2, 3, 2, 2}));
  EXPECT_EQ(batch.num_local_patches, (std::vector<int>{2, 0}));
  EXPECT_EQ(batch.has_pixels, (std::vector<std::uint8_t>{1, 1}));
  EXPECT_EQ(batch.image_keys, (std::vector<std::string>{"a", "c"}));
  const auto normal = [](int value) { return (static_cast<float>(value) / 255 - 0.5f) / 0.5f; };
  const auto* global = batch.pixel_values.data<float>();
  for (int i = 0; i < 48; ++i) {
    EXPECT_NEAR(global[i], normal(100), 1e-6);
    EXPECT_NEAR(global[48 + i], normal(50), 1e-6);
  }
  const auto* local = batch.pixel_values_local.data<float>();
  for (int i = 0; i < 12; ++i) {
    EXPECT_NEAR(local[i], normal(101), 1e-6);
    EXPECT_NEAR(local[12 + i], normal(102), 1e-6);
  }
}

TEST(Batch, ImagesWithoutPixelsKeepTheirPlaceholders) {
  std::vector<Sample> samples = three();
  samples[0].global = {};
  samples[0].local.clear();
  const Batch batch = make_batch(samples, tokens(), {});
  EXPECT_EQ(values(batch.input_ids), values(make_batch(three(), tokens(), {}).input_ids));
  EXPECT_EQ(batch.num_local_patches, (std::vector<int>{2, 0}));
  EXPECT_EQ(batch.has_pixels, (std::vector<std::uint8_t>{0, 1}));
  EXPECT_EQ(batch.pixel_values.shape(), (Shape{1, 3, 4, 4}));
  EXPECT_FALSE(batch.pixel_values_local.defined());
}

TEST(Batch, TextOnlyAndNoBeginToken) {
  SampleOptions options = tokens();
  options.begin_token = -1;
  const std::vector<Sample> samples{make_sample("t", 0, 0, {}, {5, 6}, 0)};
  const Batch batch = make_batch(samples, options, {});
  EXPECT_EQ(values(batch.input_ids), (Row{5, 6, 91}));
  EXPECT_EQ(values(batch.labels), (Row{5, 6, 91}));
  EXPECT_FALSE(batch.pixel_values.defined());
  EXPECT_TRUE(batch.num_local_patches.empty());
}

TEST(Batch, RefusesWhatCannotBeStacked) {
  std::vector<Sample> samples = three();
  samples[2].global = make_image(5, 5);
  EXPECT_TRUE(throws_with([&] { make_batch(samples, tokens(), {}); },
                          {"global views must all be 4 x 4, got 5 x 5"}));
  EXPECT_TRUE(throws_with([&] { make_batch({}, tokens(), {}); }, {"samples must not be empty"}));
}

}  // namespace
}  // namespace lectern
