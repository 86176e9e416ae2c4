// The machinery learns: eight crops of pages, drawn in a made-up script, are read back exactly
// after the three stages, by the training loop's own evaluation, and by a reader that knows nothing
// but the checkpoint.
#include "recipes/checkpoint/model_folder.h"
#include "recipes/evaluate/evaluate.h"
#include "recipes/train/trainer.h"
#include "recipes/train/training_data.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>
#include <set>

namespace lectern {
namespace {

using testing::TinyData;

const std::vector<std::string> kTexts = {"a bird sang", "old maps lie",  "nine red kites",
                                         "we read on",  "a cold sea",    "the last page",
                                         "ink and oil", "rain, at dawn."};

/// A letter is a pattern of 4 x 6 cells that its code chooses, a cell one pixel wide, two high.
constexpr std::int64_t kLetterWidth = 4, kColumns = 3, kRows = 6;

bool is_black(char letter, std::int64_t column, std::int64_t row) {
  if (letter == ' ') return false;
  std::uint32_t hash = static_cast<unsigned char>(letter) * 2654435761u;
  hash = (hash ^ (hash >> 15)) * 2246822519u;
  return ((hash >> (row * kColumns + column)) & 1u) != 0;
}

/// One page a text, with other texts' lines above and below it left white: one line each.
testing::SyntheticPage page_of(const std::string& text, std::int64_t number) {
  testing::SyntheticPage out;
  Page& page = out.page;
  page.document = "made-up";
  page.source = "made-up.pdf";
  page.number = number;
  page.dots_per_inch = 72;
  page.width = 100;
  page.height = 40;
  out.image = make_image(page.width, page.height);
  const std::int64_t left = 10 + number, top = 12 + number % 5;
  for (std::size_t i = 0; i < text.size(); ++i)
    for (std::int64_t y = 0; y < 2 * kRows; ++y)
      for (std::int64_t x = 0; x < kColumns; ++x)
        if (is_black(text[i], x, y / 2))
          for (int c = 0; c < 3; ++c)
            out.image.row(top +
                          y)[3 * (left + static_cast<std::int64_t>(i) * kLetterWidth + x) + c] = 0;
  const Box box{static_cast<double>(left), static_cast<double>(top),
                static_cast<double>(left + static_cast<std::int64_t>(text.size()) * kLetterWidth),
                static_cast<double>(top + 2 * kRows)};
  Line line;
  line.text = text;
  line.box = box;
  line.words.push_back({text, box});
  page.lines.push_back(line);
  page.text = text;
  return out;
}

class Memorise : public ::testing::Test {
 protected:
  Memorise() : data_(1) {
    nlohmann::json config = testing::tiny_config(16, 17);
    auto& sam = config["vision_config"]["sam_config"];
    sam["image_size"] = 64;
    sam["window_size"] = 4;
    config["lectern"]["global_size"] = 64;
    write_file(data_.config(), config.dump());
    std::filesystem::remove_all(data_.shards());
    std::filesystem::create_directories(data_.shards());
    ShardWriter writer;
    for (std::size_t i = 0; i < kTexts.size(); ++i)
      writer.add(testing::shard_page(page_of(kTexts[i], static_cast<std::int64_t>(i) + 1),
                                     testing::tiny_tokenizer()));
    writer.write(data_.shards() / "shard-00000.h5", sha256_of_file(data_.tokenizer()));
  }

  /// The recipe of a stage; each begins with the weights of the one before.
  Recipe stage(int number, std::int64_t steps, double rate) const {
    std::vector<std::string> overrides = {
        fmt::format("stage={}", number),
        fmt::format("steps={}", steps),
        fmt::format("optimizer.learning_rate={}", rate),
        fmt::format("data.validation=\"{}\"", data_.shards().string()),
        "data.level=line",
        "view.global_size=64",
        "optimizer.warmup_steps=10",
        "optimizer.weight_decay=0.0",
        "optimizer.betas=[0.9, 0.98]",
        "batch.global_size=8",
        "batch.micro_batch=8",
        "checkpoint.every=0",
        "evaluation.every=0",
        "evaluation.samples=8"};
    if (number > 1)
      overrides.push_back(
          fmt::format("model.init=\"{}/stage{}\"", data_.folder().string(), number - 1));
    return data_.recipe(fmt::format("stage{}", number), overrides);
  }

  TinyData data_;
};

TEST_F(Memorise, ThreeStagesReadEightCropsExactly) {
  // None of the stages could do it alone; each has to lower the loss that it was given.
  const TrainingSummary first = train(stage(1, 60, 4e-3), false);
  const TrainingSummary second = train(stage(2, 50, 3e-3), false);
  EXPECT_LT(second.loss_last, 0.5 * first.loss_last);
  const Recipe recipe = stage(3, 60, 2e-3);
  const TrainingSummary last = train(recipe, false);
  EXPECT_LT(last.loss_last, 0.5 * second.loss_last);
  EXPECT_LT(last.loss_last, 0.1);

  const LoadedModel loaded = load_model_folder(last.checkpoint);
  EvaluationArgs args;
  args.reader.max_new_tokens = 24;
  const auto samples = validation_samples(recipe, loaded.model->config(), loaded.tokenizer);
  const EvaluationResult result = evaluate(*loaded.model, loaded.tokenizer, *samples, args);
  ASSERT_EQ(result.samples.size(), kTexts.size());
  std::set<std::string> texts;
  for (const ReadSample& sample : result.samples) {
    EXPECT_EQ(sample.read, sample.truth);
    texts.insert(sample.read);
  }
  EXPECT_EQ(texts, std::set<std::string>(kTexts.begin(), kTexts.end()));
  EXPECT_EQ(result.scores.exact, 8);
  EXPECT_EQ(result.scores.cer, 0.0);

  // It reads the pictures and not only eight sentences: with two pictures swapped, so are the
  // texts.
  Reader reader(*loaded.model, loaded.tokenizer, args.reader);
  const std::vector<ImageViews> swapped = {{result.samples[1].picture, {}, {}},
                                           {result.samples[0].picture, {}, {}}};
  EXPECT_EQ(reader.read_views(swapped),
            (std::vector<std::string>{result.samples[1].truth, result.samples[0].truth}));
}

}  // namespace
}  // namespace lectern
