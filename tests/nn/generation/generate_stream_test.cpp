// Continuous batching: whoever shares the batch, a sequence gets the tokens that it gets alone; a
// free slot never waits while somebody is in line; the cache has no more rows than slots.
#include "core/ops/layout.h"
#include "nn/generation/running_batch.h"
#include "tests/nn/tiny_model.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

namespace lectern {
namespace {

using Tokens = std::vector<std::int32_t>;
using testing::throws_with;

constexpr std::int64_t kMost = 40;  // tokens a sequence

class GenerateStream : public ::testing::Test {
 protected:
  GenerateStream() : made_(testing::make_model(testing::tiny_model_config(), 1)), model_(*made_) {
    testing::fill_weights(model_, 21);
    args_.max_new_tokens = kMost;
  }

  /// No image token is ever produced: it would have no row to stand for.
  void SetUp() override {
    for (const auto& [name, tensor] : model_.store().state())
      if (name == "lm_head.weight")
        for (int i = 0; i < 8; ++i) tensor.data<float>()[23 * 8 + i] = 0;
  }

  /// Prompts of several lengths, with 2, 0 or no tiles, and some without a picture.
  std::vector<ModelInput> prompts(int count, bool with_tiles = true) const {
    std::vector<ModelInput> out;
    for (int i = 0; i < count; ++i) {
      const std::int64_t tiles = with_tiles && i % 3 == 0 ? 2 : 0;
      ModelInput prompt = testing::tiny_prompt(model_.config(), 1, tiles, 2 + i % 4,
                                               static_cast<std::uint64_t>(100 + i));
      if (i % 5 == 4) {
        prompt = {};
        prompt.input_ids = Tensor::full({1, 3}, 1 + i % 7, DType::i32);
      }
      out.push_back(std::move(prompt));
    }
    return out;
  }

  static PromptSource source(const std::vector<ModelInput>& prompts, std::size_t& asked) {
    return [&prompts, &asked]() -> std::optional<ModelInput> {
      EXPECT_LE(asked, prompts.size()) << "asked again after the end";
      if (asked++ >= prompts.size()) return std::nullopt;
      return prompts[asked - 1];
    };
  }

  std::vector<Tokens> alone(const std::vector<ModelInput>& prompts) const {
    std::vector<Tokens> out;
    for (const ModelInput& prompt : prompts) out.push_back(generate(model_, prompt, args_)[0]);
    return out;
  }

  std::vector<Tokens> stream(const std::vector<ModelInput>& prompts, std::int64_t slots,
                             GenerationStatistics* statistics = nullptr) const {
    std::vector<Tokens> out(prompts.size());
    std::set<std::size_t> ended;
    std::size_t asked = 0;
    const GenerationStatistics done = generate_stream(
        model_, source(prompts, asked), args_, slots, [&](std::size_t number, Tokens tokens) {
          EXPECT_TRUE(ended.insert(number).second) << number << " ended twice";
          out.at(number) = std::move(tokens);
        });
    EXPECT_EQ(ended.size(), prompts.size());
    if (statistics != nullptr) *statistics = done;
    return out;
  }

  /// Takes the token for the end that makes the sequences' lengths differ most.
  void choose_eos(const std::vector<ModelInput>& prompts) {
    const std::vector<Tokens> texts = alone(prompts);
    std::size_t most = 0;
    for (std::int32_t token = 0; token < 23; ++token) {
      std::set<std::ptrdiff_t> lengths;
      for (const Tokens& text : texts)
        lengths.insert(std::find(text.begin(), text.end(), token) - text.begin());
      if (lengths.size() <= most) continue;
      most = lengths.size();
      args_.eos = token;
    }
  }

  std::unique_ptr<OcrModel> made_;
  OcrModel& model_;
  GenerationArgs args_;
};

TEST_F(GenerateStream, EqualsReadingEachAlone) {
  const auto all = prompts(24);
  choose_eos(all);
  const std::vector<Tokens> want = alone(all);
  std::map<std::size_t, int> lengths;
  for (const Tokens& tokens : want) ++lengths[tokens.size()];
  ASSERT_GE(lengths.size(), 5u) << "sequences of very different lengths";
  ASSERT_LE(lengths.begin()->first, 4u);
  ASSERT_EQ(lengths.rbegin()->first, static_cast<std::size_t>(kMost));
  for (const std::int64_t slots : {1, 2, 3, 8, 64}) EXPECT_EQ(stream(all, slots), want) << slots;
  args_.guard = {.ngram = 2, .window = 100, .whitelist = {}};
  const std::vector<Tokens> guarded = alone(all);
  EXPECT_NE(guarded, want);
  EXPECT_EQ(stream(all, 3), guarded);
  EXPECT_EQ(stream({}, 3), std::vector<Tokens>{});
  args_.max_new_tokens = 1;
  EXPECT_EQ(stream(all, 3), alone(all)) << "all end with their prompt";
}

/// Decode steps of slots that are refilled at once, or only when all are free.
std::int64_t steps_of(std::vector<std::int64_t> lengths, std::int64_t slots, bool at_once) {
  std::reverse(lengths.begin(), lengths.end());
  std::vector<std::int64_t> running;
  std::int64_t steps = 0;
  while (!lengths.empty() || !running.empty()) {
    if (at_once || running.empty())
      while (static_cast<std::int64_t>(running.size()) < slots && !lengths.empty()) {
        if (lengths.back() > 0) running.push_back(lengths.back());
        lengths.pop_back();
      }
    if (running.empty()) continue;
    ++steps;
    for (std::int64_t& left : running) --left;
    running.erase(std::remove(running.begin(), running.end(), 0), running.end());
  }
  return steps;
}

/// The benefit, counted: prints decode steps times slots against the tokens that they made.
TEST_F(GenerateStream, NoSlotWaitsWhileSomebodyIsInLine) {
  const auto all = prompts(48, false);
  choose_eos(all);
  std::vector<std::int64_t> lengths;
  for (const Tokens& tokens : alone(all)) {
    const auto made = static_cast<std::int64_t>(tokens.size());
    lengths.push_back(std::min(made, kMost - 1));  // eos is made too, the first with the prompt
  }
  const std::int64_t sum = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  for (const std::int64_t slots : {1, 3, 8}) {
    GenerationStatistics done;
    stream(all, slots, &done);
    EXPECT_EQ(done.decoded_tokens, sum);
    EXPECT_EQ(done.decode_steps, steps_of(lengths, slots, true)) << slots;
    const std::int64_t in_groups = steps_of(lengths, slots, false);
    EXPECT_LE(done.decode_steps, slots > 1 ? in_groups - 1 : in_groups);
    fmt::print("{} tokens, {} slots: {} steps x slots; {} when all slots must be free first\n", sum,
               slots, done.decode_steps * slots, in_groups * slots);
  }
}

/// Tiles count: a prompt of two tiles takes three slots, alone when there are fewer.
TEST_F(GenerateStream, TilesTakeSlots) {
  const std::vector<ModelInput> heavy(4, testing::tiny_prompt(model_.config(), 1, 2, 4, 8));
  for (const auto& [slots, at_once] :
       std::map<std::int64_t, std::int64_t>{{1, 1}, {3, 1}, {5, 1}, {6, 2}, {12, 4}, {99, 4}}) {
    GenerationStatistics done;
    stream(heavy, slots, &done);
    EXPECT_EQ(done.decode_steps, 4 / at_once * (kMost - 1)) << slots;
  }
}

TEST_F(GenerateStream, TheCacheHasNoMoreRowsThanPlaces) {
  args_.max_new_tokens = 6;
  RunningBatch batch(model_, args_);
  const auto join = [&](std::int64_t text, const std::vector<std::size_t>& numbers) {
    Tensor ids = Tensor::full({static_cast<std::int64_t>(numbers.size()), text}, 3, DType::i32);
    batch.join(ids, model_.decoder().embed_tokens(ids), numbers);
  };
  join(4, {0, 1});
  batch.step();
  join(7, {2});
  EXPECT_EQ(batch.cache().batch(), 3);
  for (int i = 0; i < 4; ++i) batch.step();
  EXPECT_EQ(batch.size(), 1) << "two have their six tokens";
  const auto ended = batch.take_ended();
  ASSERT_EQ(ended.size(), 2u);
  EXPECT_EQ(ended[0].tokens.size(), 6u);
  EXPECT_EQ(ended[0].tokens, ended[1].tokens) << "the same prompt";
  EXPECT_EQ(batch.cache().batch(), 3) << "their places are free";
  join(5, {3});
  EXPECT_EQ(batch.cache().batch(), 3) << "one is taken";
  batch.step();
  EXPECT_EQ(batch.cache().batch(), 2) << "the other is given up; then number 2 ended";
  EXPECT_EQ(batch.take_ended().at(0).number, 2u);
  EXPECT_LE(batch.cache().reserved(), 256);
  while (batch.size() > 0) batch.step();
  ModelInput prompt;
  prompt.input_ids = Tensor::full({1, 5}, 3, DType::i32);
  EXPECT_EQ(batch.take_ended().at(0).tokens, generate(model_, prompt, args_)[0]);
}

/// What the cache of a sequence holds does not depend on the place that it has, to the bit; the
/// logits only to rounding, because the products choose their loops by the number of rows.
TEST_F(GenerateStream, TakeCopiesEveryBit) {
  const DecoderConfig& text = model_.config().decoder;
  const NoGrad off;
  ForwardContext context;
  const auto filled = [&](std::int64_t batch, std::int64_t tokens, std::uint64_t seed) {
    DecodingCache cache(text, batch, 300);
    model_.decoder().step(testing::random_tensor({batch, tokens, text.hidden_size}, seed), cache,
                          context);
    return cache;
  };
  DecodingCache cache = filled(2, 9, 1);
  const DecodingCache longer = filled(3, 270, 2);
  cache.take(longer, {2, 0}, {1, 2});
  EXPECT_EQ(cache.batch(), 3);
  EXPECT_EQ(cache.length(0), 9);
  EXPECT_EQ(cache.length(1), 270);
  EXPECT_EQ(cache.length(2), 270);
  const Tensor next = testing::random_tensor({3, 1, text.hidden_size}, 3);
  const Tensor got = model_.decoder().step(next, cache, context);
  DecodingCache first = filled(2, 9, 1), others = filled(3, 270, 2);
  const auto row = [](const Tensor& x, std::int64_t i) {
    return x.slice(0, i, i + 1).contiguous();
  };
  const Tensor want_first =
      model_.decoder().step(concat({row(next, 0), row(next, 1)}, 0), first, context);
  const Tensor want_others =
      model_.decoder().step(concat({row(next, 2), row(next, 0), row(next, 1)}, 0), others, context);
  EXPECT_TRUE(testing::near(row(got, 0), row(want_first, 0), 1e-6));
  EXPECT_TRUE(testing::near(row(got, 2), row(want_others, 0), 1e-6));
  EXPECT_TRUE(testing::near(row(got, 1), row(want_others, 2), 1e-6));
}

TEST_F(GenerateStream, Errors) {
  const auto all = prompts(2);
  std::size_t asked = 0;
  const OnEnded ignore = [](std::size_t, const Tokens&) {};
  EXPECT_TRUE(throws_with([&] { generate_stream(model_, source(all, asked), args_, 0, ignore); },
                          {"slots must be at least 1, got 0"}));
  const std::vector<ModelInput> two = {testing::tiny_prompt(model_.config(), 2, 0, 4, 1)};
  EXPECT_TRUE(throws_with([&] { generate_stream(model_, source(two, asked), args_, 1, ignore); },
                          {"must be one sequence with at most one picture", "2 pictures"}));
  EXPECT_TRUE(throws_with(
      [&] {
        generate_stream(
            model_, []() -> std::optional<ModelInput> { fail<IoError>("page.png: gone"); }, args_,
            1, ignore);
      },
      {"page.png: gone"}));
}

}  // namespace
}  // namespace lectern
