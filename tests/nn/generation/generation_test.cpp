// Greedy decoding: the cache changes nothing, a batch changes nothing, and the repetition guard is
// the one of the official scripts.
#include "nn/generation/generation.h"

#include "core/io/safetensors.h"
#include "nn/weights.h"
#include "tests/nn/tiny_model.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace lectern {
namespace {

using Tokens = std::vector<std::int32_t>;

/// Logits of the last position, by the training path: the whole sequence at once, no cache.
Tensor last_logits(const OcrModel& model, const ModelInput& input) {
  const NoGrad off;
  ForwardContext context;
  const Variable hidden = model.decoder().forward(model.embed(input, model.encode(input, context)),
                                                  causal_layout(input), context);
  const std::int64_t length = hidden.dim(1), width = hidden.dim(2);
  return model.decoder()
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
Tokens slow_greedy(const OcrModel& model, ModelInput input, std::int64_t count,
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
  Generation() : made_(testing::make_model(testing::tiny_model_config(), 1)), model_(*made_) {
    testing::fill_weights(model_, 21);
  }

  /// No image token is ever produced: it would have no row to stand for.
  void SetUp() override {
    for (const auto& [name, tensor] : model_.store().state())
      if (name == "lm_head.weight")
        for (int i = 0; i < 8; ++i) tensor.data<float>()[23 * 8 + i] = 0;
  }

  std::unique_ptr<OcrModel> made_;
  OcrModel& model_;
};

TEST_F(Generation, TheCacheEqualsRecomputingEverything) {
  for (const std::int64_t tiles : {0, 2}) {
    const ModelInput prompt = testing::tiny_prompt(model_.config(), 1, tiles, 4, 30);
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
  ModelInput prompt = testing::tiny_prompt(model_.config(), 1, 2, 6, 31);
  const NoGrad off;
  ForwardContext context;
  const Tensor rows = model_.embed(prompt, model_.encode(prompt, context)).value();
  const std::int64_t length = rows.dim(1);
  DecodingCache cache(model_.config().decoder, 1, length);
  // The image in one go, then two tokens, then the rest one at a time.
  std::int64_t at = 0;
  for (const std::int64_t count : {length - 6, std::int64_t{2}, std::int64_t{1}, std::int64_t{1},
                                   std::int64_t{1}, std::int64_t{1}}) {
    const Tensor logits =
        model_.decoder().step(rows.slice(1, at, at + count).contiguous(), cache, context);
    at += count;
    EXPECT_EQ(cache.length(0), at);
    ModelInput part = prompt;
    part.input_ids = prompt.input_ids.slice(1, 0, at).contiguous();
    EXPECT_TRUE(testing::near(logits, last_logits(model_, part), 1e-5)) << at;
  }
  EXPECT_TRUE(testing::throws_with(
      [&] { model_.decoder().step(rows.slice(1, 0, 1).contiguous(), cache, context); },
      {"step: the cache holds", "are needed"}));
}

TEST_F(Generation, ABatchEqualsItsSequencesAlone) {
  const ModelInput batch = testing::tiny_prompt(model_.config(), 3, 2, 4, 32);
  GenerationArgs args;
  args.max_new_tokens = 10;
  const auto together = generate(model_, batch, args);
  // A token that ends one sequence early and not the others.
  GenerationArgs ending = args;
  ending.eos = together[0][4];
  const auto ended = generate(model_, batch, ending);
  for (std::int64_t i = 0; i < 3; ++i) {
    ModelInput one;
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
  const ModelInput prompt = testing::tiny_prompt(model_.config(), 2, 2, 3, 33);
  const NoGrad off;
  ForwardContext context;
  const MediaRows features = model_.encode(prompt, context);
  ModelInput blind = prompt;
  blind.pixel_values = blind.pixel_values_local = Tensor();
  GenerationArgs args;
  args.max_new_tokens = 6;
  std::vector<std::int64_t> steps;
  EXPECT_EQ(generate(model_, blind, args, &features, [&](std::int64_t n) { steps.push_back(n); }),
            generate(model_, prompt, args));
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 2, 3, 4, 5, 6}));
}

TEST_F(Generation, TheCacheGrowsInBlocks) {
  const DecoderConfig& text = model_.config().decoder;
  DecodingCache cache(text, 2, 600);
  EXPECT_EQ(cache.reserved(), 0) << "nothing before it is needed";
  ForwardContext context;
  const Tensor rows = testing::random_tensor({2, 300, text.hidden_size}, 5);
  Tensor last;
  std::int64_t at = 0;
  for (const auto& [count, reserved] : std::vector<std::pair<std::int64_t, std::int64_t>>{
           {250, 256}, {6, 256}, {1, 512}, {43, 512}}) {
    last = model_.decoder().step(rows.slice(1, at, at + count).contiguous(), cache, context);
    at += count;
    EXPECT_EQ(cache.reserved(), reserved) << at;
  }
  DecodingCache whole(text, 2, 300);
  EXPECT_TRUE(testing::near(last, model_.decoder().step(rows, whole, context), 1e-5));
  EXPECT_EQ(whole.reserved(), 300) << "never more than it may hold";
  // Dropping a sequence changes nothing for the one that stays.
  const Tensor more = testing::random_tensor({2, 1, text.hidden_size}, 6);
  const Tensor both = model_.decoder().step(more, cache, context);
  whole = DecodingCache(text, 2, 301);
  model_.decoder().step(rows, whole, context);
  whole.keep({1});
  EXPECT_EQ(whole.batch(), 1);
  EXPECT_TRUE(testing::near(model_.decoder().step(more.slice(0, 1, 2).contiguous(), whole, context),
                            both.slice(0, 1, 2).contiguous(), 1e-5));
}

TEST_F(Generation, Statistics) {
  const ModelInput prompt = testing::tiny_prompt(model_.config(), 2, 0, 4, 36);
  GenerationStatistics done, sum;
  EXPECT_EQ(done.tokens_per_second(), 0);
  GenerationArgs args;
  args.max_new_tokens = 5;
  generate(model_, prompt, args, nullptr, {}, &done);
  EXPECT_EQ(done.prompt_tokens, prompt.input_ids.numel());
  EXPECT_EQ(done.decoded_tokens, 2 * 4) << "the first token of each comes with the prompt";
  EXPECT_GT(done.encode, 0);
  EXPECT_GT(done.prefill, 0);
  EXPECT_NEAR(done.tokens_per_second() * done.decode, 8, 1e-9);
  sum.add(done);
  sum.add(done);
  EXPECT_EQ(sum.decoded_tokens, 16);
}

/// bf16 weights, activations and cache against f32 with the same weights: logits within 2 % of the
/// largest (8 bits of mantissa through two layers), greedy tokens the same where the best logit
/// leads by more than that.
TEST_F(Generation, BFloat16IsCloseToSingle) {
  testing::TemporaryFolder folder;
  auto state = model_.store().file_order_state();
  for (auto& [name, tensor] : state) tensor = tensor.to(DType::bf16);
  save_safetensors(folder.path() / "model.safetensors", state);
  const auto half_owner =
      testing::make_model(model_.config(), 0, DType::bf16, ParameterValues::absent);
  OcrModel& half = *half_owner;
  const auto full_owner =
      testing::make_model(model_.config(), 0, DType::f32, ParameterValues::absent);
  OcrModel& full = *full_owner;
  load_weights(half, folder.path());
  load_weights(full, folder.path());
  const ModelInput prompt = testing::tiny_prompt(model_.config(), 2, 2, 6, 37);
  const NoGrad off;
  ForwardContext context;
  DecodingCache half_cache(model_.config().decoder, 2, 60, DType::bf16);
  DecodingCache full_cache(model_.config().decoder, 2, 60);
  Tensor half_rows = half.embed(prompt, half.encode(prompt, context)).value();
  Tensor full_rows = full.embed(prompt, full.encode(prompt, context)).value();
  int certain = 0;
  for (int step = 0; step < 12; ++step) {
    const Tensor got = half.decoder().step(half_rows, half_cache, context);
    const Tensor want = full.decoder().step(full_rows, full_cache, context);
    EXPECT_TRUE(testing::near(got, want, 2e-2)) << step;
    Tensor next = Tensor::empty({2, 1}, DType::i32);
    for (std::int64_t b = 0; b < 2; ++b) {
      const Tensor row = want.slice(0, b, b + 1).contiguous();
      const std::int64_t best = argmax(row);
      const std::int64_t second = argmax(row, {static_cast<std::int32_t>(best)});
      const float* logits = row.data<float>();
      if (logits[best] - logits[second] > 0.04F * std::max(1.0F, std::abs(logits[best]))) {
        EXPECT_EQ(argmax(got.slice(0, b, b + 1).contiguous()), best) << step;
        ++certain;
      }
      next.data<std::int32_t>()[b] = static_cast<std::int32_t>(best);
    }
    half_rows = half.decoder().embed_tokens(next);
    full_rows = full.decoder().embed_tokens(next);
  }
  EXPECT_GT(certain, 6) << "too few clear winners: choose other weights";
}

TEST_F(Generation, TheGuardInTheLoop) {
  const ModelInput prompt = testing::tiny_prompt(model_.config(), 1, 0, 4, 34);
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

/// The official processor takes the last n - 1 tokens as input_ids[-(n - 1):], which for n = 1 is
/// the whole text: no n-gram ever matches, and nothing is banned.
TEST(RepetitionGuard, OneGramsAreNotBannedAsInTheOfficialCode) {
  for (const Tokens& tokens : {Tokens{}, Tokens{5}, Tokens{5, 5, 5}, Tokens{1, 2, 3}}) {
    EXPECT_TRUE(banned_tokens({.ngram = 1, .window = 90, .whitelist = {}}, tokens).empty());
    // Its loop, for this one length of n-gram.
    std::set<std::int32_t> official;
    for (std::size_t i = 0; i < tokens.size(); ++i)
      if (Tokens{} == tokens) official.insert(tokens[i]);
    EXPECT_TRUE(official.empty());
  }
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
