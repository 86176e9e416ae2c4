// Greedy decoding: the cache changes nothing, a batch changes nothing, and the repetition guard is
// the one of the official scripts.
#include "nn/ocr2/generation.h"

#include "tests/nn/tiny_model.h"

#include <algorithm>
#include <set>

namespace lectern {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Logits of the last position, by the training path: the whole sequence at once, no cache.
Tensor last_logits(const Ocr2Model& model, const Ocr2Input& input) {
  const NoGrad off;
  ForwardContext context;
  const Variable hidden =
      model.decode(model.embed(input, model.encode(input, context)), input, context);
  const std::int64_t length = hidden.dim(1), width = hidden.dim(2);
  return model
      .logits(Variable(hidden.value().slice(1, length - 1, length).contiguous().view({-1, width})))
      .value();
}

std::int64_t argmax(const Tensor& logits, const std::set<std::int32_t>& banned = {}) {
  std::int64_t best = -1;
  for (std::int64_t i = 0; i < logits.numel(); ++i)
    if (!banned.contains(static_cast<std::int32_t>(i)) &&
        (best < 0 || logits.data<float>()[i] > logits.data<float>()[best]))
      best = i;
  return best;
}

/// The official processor, word for word in its meaning: nothing below ngram tokens; among the
/// n-grams that begin in the last `window` tokens, those that agree with the last n - 1 tokens ban
/// their last one; the whitelist is taken out.
std::set<std::int32_t> official_ban(const Tokens& tokens, std::int64_t ngram, std::int64_t window,
                                    const std::set<std::int32_t>& whitelist) {
  std::set<std::int32_t> out;
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (length < ngram) return out;
  const Tokens tail(tokens.end() - (ngram - 1), tokens.end());
  for (std::int64_t i = std::max<std::int64_t>(0, length - window); i < length - ngram + 1; ++i) {
    const Tokens gram(tokens.begin() + i, tokens.begin() + i + ngram);
    if (Tokens(gram.begin(), gram.end() - 1) == tail) out.insert(gram.back());
  }
  for (const std::int32_t kept : whitelist) out.erase(kept);
  return out;
}

/// `count` greedy tokens, recomputing the whole sequence for each of them.
Tokens slow_greedy(const Ocr2Model& model, Ocr2Input input, std::int64_t count,
                   const RepetitionGuard& guard = {}) {
  Tokens all(input.input_ids.data<std::int32_t>(),
             input.input_ids.data<std::int32_t>() + input.input_ids.numel());
  const std::size_t prompt = all.size();
  for (std::int64_t i = 0; i < count; ++i) {
    std::set<std::int32_t> banned;
    if (guard.ngram > 0)
      banned = official_ban(all, guard.ngram, guard.window,
                            {guard.whitelist.begin(), guard.whitelist.end()});
    all.push_back(static_cast<std::int32_t>(argmax(last_logits(model, input), banned)));
    Tensor longer = Tensor::empty({1, static_cast<std::int64_t>(all.size())}, DType::i32);
    std::copy(all.begin(), all.end(), longer.data<std::int32_t>());
    input.input_ids = longer;
  }
  return {all.begin() + static_cast<std::ptrdiff_t>(prompt), all.end()};
}

/// A model whose greedy text does not get stuck, so that the comparisons mean something.
class Generation : public ::testing::Test {
 protected:
  Generation() : model_(testing::tiny_model_config(), 1) { testing::fill_weights(model_, 21); }

  /// No image token is ever produced: it would have no row to stand for.
  void SetUp() override {
    for (const auto& [name, tensor] : model_.store().state())
      if (name == "lm_head.weight")
        for (int i = 0; i < 8; ++i) tensor.data<float>()[23 * 8 + i] = 0;
  }

  Ocr2Model model_;
};

TEST_F(Generation, TheCacheEqualsRecomputingEverything) {
  for (const std::int64_t tiles : {0, 2}) {
    const Ocr2Input prompt = testing::tiny_prompt(model_.config(), 1, tiles, 4, 30);
    GenerationArgs args;
    args.max_new_tokens = 12;
    const auto tokens = generate(model_, prompt, args);
    ASSERT_EQ(tokens.size(), 1u);
    EXPECT_EQ(tokens[0], slow_greedy(model_, prompt, 12)) << tiles << " tiles";
    EXPECT_GT(std::set<std::int32_t>(tokens[0].begin(), tokens[0].end()).size(), 1u)
        << "one token over and over proves little: choose other weights";
  }
}

TEST_F(Generation, LogitsOfEachCachedStepEqualTheFullSequence) {
  Ocr2Input prompt = testing::tiny_prompt(model_.config(), 1, 2, 6, 31);
  const NoGrad off;
  ForwardContext context;
  const Tensor rows = model_.embed(prompt, model_.encode(prompt, context)).value();
  const std::int64_t length = rows.dim(1);
  DecodingCache cache(model_.config().text, 1, length);
  // The image in one go, then two tokens, then the rest one at a time.
  std::int64_t at = 0;
  for (const std::int64_t count : {length - 6, std::int64_t{2}, std::int64_t{1}, std::int64_t{1},
                                   std::int64_t{1}, std::int64_t{1}}) {
    const Tensor logits = model_.step(rows.slice(1, at, at + count).contiguous(), cache, context);
    at += count;
    EXPECT_EQ(cache.length(0), at);
    Ocr2Input part = prompt;
    part.input_ids = prompt.input_ids.slice(1, 0, at).contiguous();
    EXPECT_TRUE(testing::near(logits, last_logits(model_, part), 1e-5)) << at;
  }
  EXPECT_TRUE(
      testing::throws_with([&] { model_.step(rows.slice(1, 0, 1).contiguous(), cache, context); },
                           {"step: the cache holds", "are needed"}));
}

TEST_F(Generation, ABatchEqualsItsSequencesAlone) {
  const Ocr2Input batch = testing::tiny_prompt(model_.config(), 3, 2, 4, 32);
  GenerationArgs args;
  args.max_new_tokens = 10;
  const auto together = generate(model_, batch, args);
  // A token that ends one sequence early and not the others.
  GenerationArgs ending = args;
  ending.eos = together[0][4];
  const auto ended = generate(model_, batch, ending);
  for (std::int64_t i = 0; i < 3; ++i) {
    Ocr2Input one;
    one.input_ids = batch.input_ids.slice(0, i, i + 1).contiguous();
    one.pixel_values = batch.pixel_values.slice(0, i, i + 1).contiguous();
    one.pixel_values_local = batch.pixel_values_local.slice(0, 2 * i, 2 * i + 2).contiguous();
    one.num_local_patches = {2};
    const auto at = static_cast<std::size_t>(i);
    EXPECT_EQ(generate(model_, one, args)[0], together[at]);
    Tokens want = together[at];
    want.erase(std::find(want.begin(), want.end(), *ending.eos), want.end());
    EXPECT_EQ(ended[at], want);
    EXPECT_EQ(generate(model_, one, ending)[0], want);
  }
  EXPECT_LT(ended[0].size(), 5u);
}

TEST_F(Generation, FeaturesMayBeGivenInsteadOfPixels) {
  const Ocr2Input prompt = testing::tiny_prompt(model_.config(), 2, 2, 3, 33);
  const NoGrad off;
  ForwardContext context;
  const VisualFeatures features = model_.encode(prompt, context);
  Ocr2Input blind = prompt;
  blind.pixel_values = blind.pixel_values_local = Tensor();
  GenerationArgs args;
  args.max_new_tokens = 6;
  std::vector<std::int64_t> steps;
  EXPECT_EQ(generate(model_, blind, args, &features, [&](std::int64_t n) { steps.push_back(n); }),
            generate(model_, prompt, args));
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST_F(Generation, TheGuardInTheLoop) {
  const Ocr2Input prompt = testing::tiny_prompt(model_.config(), 1, 0, 4, 34);
  GenerationArgs args;
  args.max_new_tokens = 24;
  const auto free = generate(model_, prompt, args)[0];
  args.guard = {.ngram = 2, .window = 100, .whitelist = {}};
  const auto guarded = generate(model_, prompt, args)[0];
  EXPECT_EQ(guarded, slow_greedy(model_, prompt, 24, args.guard));
  EXPECT_NE(guarded, free);
  std::set<std::pair<std::int32_t, std::int32_t>> pairs;
  for (std::size_t i = 0; i + 1 < guarded.size(); ++i)
    EXPECT_TRUE(pairs.insert({guarded[i], guarded[i + 1]}).second) << "a pair came twice";
}

TEST(RepetitionGuard, EqualsTheOfficialRule) {
  Random random(5, "guard");
  int banned_something = 0;
  for (int trial = 0; trial < 400; ++trial) {
    Tokens tokens;
    const auto length = random.below(40);
    for (std::uint64_t i = 0; i < length; ++i)
      tokens.push_back(static_cast<std::int32_t>(random.below(3)));
    const RepetitionGuard guard{.ngram = static_cast<std::int64_t>(2 + random.below(4)),
                                .window = static_cast<std::int64_t>(1 + random.below(45)),
                                .whitelist = trial % 3 == 0 ? Tokens{1} : Tokens{}};
    const Tokens got = banned_tokens(guard, tokens);
    const auto want = official_ban(tokens, guard.ngram, guard.window,
                                   {guard.whitelist.begin(), guard.whitelist.end()});
    EXPECT_EQ(std::set<std::int32_t>(got.begin(), got.end()), want) << trial;
    banned_something += want.empty() ? 0 : 1;
  }
  EXPECT_GT(banned_something, 100);
}

TEST(RepetitionGuard, ByHand) {
  const Tokens tokens = {1, 2, 3, 9, 1, 2, 4, 9, 1, 2};
  const auto banned = [&](const RepetitionGuard& guard) {
    Tokens out = banned_tokens(guard, tokens);
    std::sort(out.begin(), out.end());
    return out;
  };
  EXPECT_EQ(banned({3, 90, {}}), (Tokens{3, 4}));
  EXPECT_EQ(banned({3, 6, {}}), (Tokens{4}));
  EXPECT_EQ(banned({3, 5, {}}), (Tokens{}));
  EXPECT_EQ(banned({3, 90, {3}}), (Tokens{4}));
  EXPECT_EQ(banned({0, 90, {}}), (Tokens{}));
  EXPECT_EQ(banned({11, 90, {}}), (Tokens{}));
}

}  // namespace
}  // namespace lectern
