// The whole tiny model with hyper-connections: gradients of every parameter, generation with a
// cache, the start of training near the plain residual, names, recomputation, statistics.
#include "nn/blocks/residual.h"

#include "core/allocator.h"
#include "core/random.h"
#include "nn/families.h"
#include "nn/generation/generation.h"
#include "nn/model.h"
#include "tests/nn/tiny_model.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <cstdlib>
#include <set>

namespace lectern {
namespace {

using testing::near;

testing::AnyConfig config_of(const ResidualConfig& residual) {
  testing::AnyConfig config = testing::tiny_model_config();
  config->residual = residual;
  return config;
}

ModelInput tiny_input(const ModelConfig& config) {
  constexpr std::int64_t kTiles = 1, kText = 4;
  ModelInput input = testing::tiny_prompt(config, 1, kTiles, kText, 5);
  input.labels = Tensor::full(input.input_ids.shape(), -100, DType::i32);
  const std::int64_t length = input.input_ids.dim(1);
  for (std::int64_t i = length - kText; i < length; ++i)
    input.labels.data<std::int32_t>()[i] = input.input_ids.data<std::int32_t>()[i];
  return input;
}

double loss_of(const OcrModel& model, const ModelInput& input) {
  const NoGrad off;
  ForwardContext context;
  return model.loss(input, context).loss_sum.value().item();
}

/// Every kind, convention and merge, with n streams.
std::vector<ResidualConfig> kinds(std::int64_t n) {
  std::vector<ResidualConfig> out;
  for (const auto convention :
       {StreamConvention::paper, StreamConvention::megatron, StreamConvention::deepseek_v4})
    out.push_back({.kind = ResidualKind::mhc, .streams = n, .convention = convention});
  out.push_back({.kind = ResidualKind::hc, .streams = n, .merge = StreamMerge::mean});
  if (n <= 4) out.push_back({.kind = ResidualKind::mhc, .streams = n, .exact = true});
  return out;
}

std::string describe(const ResidualConfig& config) {
  return fmt::format("{} n {} {} exact {} ", name_of(config.kind), config.streams,
                     name_of(config.convention), config.exact);
}

/// Directional derivative along every trainable parameter that is part of the residual or near it.
void check_gradients_of(const ResidualConfig& residual, const ForwardContext& like) {
  const testing::AnyConfig config = config_of(residual);
  const auto model_owner = testing::make_model(config, 3, DType::f64);
  OcrModel& model = *model_owner;
  for (const Parameter& parameter : model.store().parameters())  // away from zeros and ones
    Random(9, parameter.name).fill_normal(parameter.variable.value(), 0.1, 0.3);
  const ModelInput input = tiny_input(config);
  ForwardContext context;
  context.recompute_blocks = like.recompute_blocks;
  context.stream_interval = like.stream_interval;
  model.loss(input, context).loss_sum.backward();
  for (const Parameter& parameter : model.store().parameters()) {
    // model_gradient_test.cpp checks the rest of the model.
    if (parameter.name.find("hc") == std::string::npos &&
        parameter.name.find("layernorm") == std::string::npos &&
        parameter.name.find("view_seperator") == std::string::npos)
      continue;
    const Tensor& value = parameter.variable.value();
    ASSERT_TRUE(parameter.variable.grad().defined()) << parameter.name;
    const Tensor saved = value.clone();
    Tensor direction = Tensor::empty(value.shape(), DType::f64);
    Random(11, parameter.name).fill_normal(direction, 0, 1);
    const double step = 1e-6;
    const auto loss_at = [&](double by) {
      for (std::int64_t i = 0; i < value.numel(); ++i)
        value.data<double>()[i] = saved.data<double>()[i] + by * direction.data<double>()[i];
      value.mark_modified();
      return loss_of(model, input);
    };
    const double numeric = (loss_at(step) - loss_at(-step)) / (2 * step);
    loss_at(0);
    const Tensor grad = parameter.variable.grad().contiguous();
    double analytic = 0;
    for (std::int64_t i = 0; i < value.numel(); ++i)
      analytic += grad.data<double>()[i] * direction.data<double>()[i];
    // The noise of central differences, as in model_gradient_test.cpp.
    EXPECT_NEAR(numeric, analytic, 2e-5 * std::max(1.0, std::abs(analytic)))
        << describe(residual) << parameter.name;
  }
}

/// Every kind with the papers' four streams; other numbers, whose kernels tests/ops compares one by
/// one, with two kinds unless the long tests are asked for.
TEST(Residual, GradientsOfEveryKindAndNumberOfStreams) {
  const bool all = std::getenv("LECTERN_LONG") != nullptr;
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const ResidualConfig& residual : kinds(n)) {
      const bool is_short = residual.kind == ResidualKind::hc ||
                            (residual.convention == StreamConvention::paper && !residual.exact);
      if (all || n == 4 || (is_short && (n < 4 || n == 8))) check_gradients_of(residual, {});
    }
}

TEST(Residual, GradientsWithRecomputation) {
  ForwardContext context;
  context.recompute_blocks = true;
  context.stream_interval = 2;
  for (const ResidualConfig& residual : kinds(3)) check_gradients_of(residual, context);
}

TEST(Residual, RecomputationChangesNoBit) {
  for (const ResidualConfig& residual : kinds(4)) {
    const testing::AnyConfig config = config_of(residual);
    const ModelInput input = tiny_input(config);
    const auto gradients = [&](bool blocks, std::int64_t interval) {
      const auto model_owner = testing::make_model(config, 3);
      OcrModel& model = *model_owner;
      testing::fill_weights(model, 4);
      ForwardContext context;
      context.recompute_blocks = blocks;
      context.stream_interval = interval;
      model.loss(input, context).loss_sum.backward();
      return model.store().gradients();
    };
    const auto want = gradients(false, 0);
    for (const auto& [blocks, interval] : {std::pair{false, 1}, {false, 2}, {true, 0}, {true, 2}}) {
      const auto got = gradients(blocks, interval);
      for (std::size_t i = 0; i < want.size(); ++i)
        EXPECT_TRUE(near(got[i].second, want[i].second, 0)) << describe(residual) << want[i].first;
    }
  }
}

/// n = 1 and identity mappings: the plain model, bit for bit, loss and every gradient.
TEST(Residual, OneStreamWithIdentityMappingsIsPlain) {
  const auto plain_owner = testing::make_model(config_of({}), 3);
  OcrModel& plain = *plain_owner;
  const ModelInput input = tiny_input(plain.config());
  ForwardContext context;
  const Variable want = plain.loss(input, context).loss_sum;
  want.backward();
  for (const auto convention :
       {StreamConvention::paper, StreamConvention::megatron, StreamConvention::deepseek_v4}) {
    const auto model_owner = testing::make_model(config_of({.kind = ResidualKind::mhc,
                                                            .streams = 1,
                                                            .convention = convention,
                                                            .merge = StreamMerge::mean,
                                                            .h_pre = false,
                                                            .h_post = false,
                                                            .h_res = false}),
                                                 3);
    OcrModel& model = *model_owner;
    const Variable got = model.loss(input, context).loss_sum;
    EXPECT_EQ(got.value().item(), want.value().item());
    got.backward();
    const auto want_gradients = plain.store().gradients();
    std::size_t compared = 0;
    for (const auto& [name, gradient] : model.store().gradients())
      for (const auto& [plain_name, plain_gradient] : want_gradients)
        if (name == plain_name) {
          EXPECT_TRUE(near(gradient, plain_gradient, 0)) << name;
          ++compared;
        }
    EXPECT_EQ(compared, want_gradients.size());
  }
}

/// Fresh mappings change the loss of a fresh model only a little.
TEST(Residual, TrainingStartsNearPlain) {
  const auto plain_owner = testing::make_model(config_of({}), 3);
  const OcrModel& plain = *plain_owner;
  const ModelInput input = tiny_input(plain.config());
  const double want = loss_of(plain, input);
  for (const std::int64_t n : {1, 2, 4, 8})
    for (ResidualConfig residual : kinds(n)) {
      // HC reads one stream in full, mHC's gates sum to 1: both read the plain residual.
      residual.merge = StreamMerge::mean;
      const double got = loss_of(*testing::make_model(config_of(residual), 3), input);
      EXPECT_NEAR(got, want, 0.02 * want) << describe(residual);
    }
}

TEST(Residual, ParametersHaveTheNamesOfDeepseekV4) {
  const auto model_owner = testing::make_model(config_of({.kind = ResidualKind::mhc}), 3);
  const OcrModel& model = *model_owner;
  std::set<std::string> names;
  for (const auto& [name, tensor] : model.store().state()) names.insert(name);
  for (const char* name :
       {"model.layers.1.attn_hc.fn", "model.layers.1.attn_hc.base", "model.layers.0.ffn_hc.scale",
        "model.hc_head.hc_fn", "model.hc_head.hc_base", "model.hc_head.hc_scale",
        "model.qwen2_model.model.model.layers.0.attn_hc.fn",
        "model.qwen2_model.model.model.hc_head.hc_fn"})
    EXPECT_TRUE(names.contains(name)) << name;
}

TEST(Residual, OnlyTheStackThatIsNamed) {
  for (const bool encoder : {true, false}) {
    const testing::AnyConfig config =
        config_of({.kind = ResidualKind::mhc, .in_encoder = encoder, .in_decoder = !encoder});
    const auto model_owner = testing::make_model(config, 3);
    const OcrModel& model = *model_owner;
    for (const auto& [name, tensor] : model.store().state())
      if (name.find("hc") != std::string::npos) {
        EXPECT_EQ(name.starts_with("model.qwen2_model."), encoder) << name;
      }
    EXPECT_EQ(config->parameter_count(), static_cast<double>(model.store().parameter_count()));
  }
}

TEST(Residual, CountEqualsTheParametersOfAModel) {
  for (std::int64_t n = 1; n <= 8; ++n)
    for (const ResidualConfig& residual : kinds(n)) {
      const testing::AnyConfig config = config_of(residual);
      EXPECT_EQ(config->parameter_count(),
                static_cast<double>(testing::make_model(config, 0)->store().parameter_count()))
          << describe(residual);
    }
}

TEST(Residual, CachedGenerationEqualsTheFullSequence) {
  for (const std::int64_t n : {1, 4})
    for (const ResidualConfig& residual : kinds(n)) {
      const auto model_owner = testing::make_model(config_of(residual), 1);
      OcrModel& model = *model_owner;
      testing::fill_weights(model, 21);
      for (const auto& [name, tensor] : model.store().state())
        if (name == "lm_head.weight") tensor.slice(0, 23, 24).fill(0);  // never an image token
      ModelInput input = testing::tiny_prompt(model.config(), 1, 1, 3, 7);
      GenerationArgs args;
      args.max_new_tokens = 6;
      const auto tokens = generate(model, input, args).at(0);
      for (const std::int32_t token : tokens) {
        const NoGrad off;
        ForwardContext context;
        const Variable hidden = model.decoder().forward(
            model.embed(input, model.encode(input, context)), causal_layout(input), context);
        const std::int64_t length = hidden.dim(1);
        const Tensor logits = model.decoder()
                                  .logits(Variable(hidden.value()
                                                       .slice(1, length - 1, length)
                                                       .contiguous()
                                                       .view({1, hidden.dim(2)})))
                                  .value();
        const float* row = logits.data<float>();
        EXPECT_EQ(std::max_element(row, row + logits.numel()) - row, token) << describe(residual);
        Tensor longer = Tensor::empty({1, length + 1}, DType::i32);
        std::copy_n(input.input_ids.data<std::int32_t>(), length, longer.data<std::int32_t>());
        longer.data<std::int32_t>()[length] = token;
        input.input_ids = longer;
      }
    }
}

TEST(Residual, ConfigRoundTrips) {
  const ResidualConfig residual{.kind = ResidualKind::mhc,
                                .streams = 3,
                                .convention = StreamConvention::megatron,
                                .iterations = 7,
                                .exact = true,
                                .merge = StreamMerge::mean,
                                .h_post = false,
                                .in_encoder = false};
  for (const ResidualConfig& one :
       {residual, ResidualConfig{}, ResidualConfig{.kind = ResidualKind::hc}}) {
    const testing::AnyConfig config = config_of(one);
    EXPECT_EQ(parse_model_config(config->to_json(), "config.json")->residual, one);
  }
}

TEST(Residual, WrongSettingsAreNamed) {
  const auto refused = [](const char* key, const nlohmann::json& value) {
    nlohmann::json json = config_of({.kind = ResidualKind::mhc})->to_json();
    json["lectern"][key] = value;
    if (std::string(key) == "exact_h_res") json["lectern"]["streams"] = 5;
    std::string message;
    try {
      parse_model_config(json, "config.json");
    } catch (const ConfigError& error) {
      message = error.what();
    }
    return message;
  };
  for (const auto& [key, value, part] :
       {std::tuple{"residual", nlohmann::json("sum"),
                   "config.json.lectern.residual: must be one of"},
        {"convention", "v4",
         "lectern.convention: must be one of [\"paper\",\"megatron\",\"deepseek-v4\"], got \"v4\""},
        {"streams", 9, "lectern.streams: must be an integer from 1 to 8, got 9"},
        {"streams", 0, "lectern.streams: must be an integer from 1 to 8, got 0"},
        {"exact_h_res", true, "lectern.streams: must be an integer from 1 to 4, got 5"},
        {"sinkhorn_iterations", 0, "lectern.sinkhorn_iterations: must be an integer from 1"},
        {"merge", "sum", "lectern.merge: must be one of"},
        {"residual_in", "sam", "lectern.residual_in: must be one of"},
        {"h_res", 1, "lectern.h_res: must be true or false"}})
    EXPECT_NE(refused(key, value).find(part), std::string::npos) << refused(key, value);
}

/// Weights of one convention, carried over to another, mean the same model once Sinkhorn has
/// converged.
TEST(Residual, ConventionsConvert) {
  using enum StreamConvention;
  const auto model_of = [](StreamConvention convention) {
    return config_of({.kind = ResidualKind::mhc, .convention = convention, .iterations = 200});
  };
  const auto source_owner = testing::make_model(model_of(paper), 3, DType::f64);
  OcrModel& source = *source_owner;
  for (const Parameter& parameter : source.store().parameters())  // mappings far from symmetric
    Random(9, parameter.name)
        .fill_normal(parameter.variable.value(), 0.1, parameter.name.ends_with(".base") ? 2 : 0.3);
  const ModelInput input = tiny_input(source.config());
  const double want = loss_of(source, input);
  for (const StreamConvention to : {megatron, deepseek_v4}) {
    const auto other_owner = testing::make_model(model_of(to), 4, DType::f64);
    OcrModel& other = *other_owner;
    const auto copy = [&] {
      for (std::size_t i = 0; i < source.store().parameters().size(); ++i)
        other.store().parameters()[i].variable.value().copy_from(
            source.store().parameters()[i].variable.value());
    };
    copy();
    const double unconverted = std::abs(loss_of(other, input) - want);
    convert_convention(other.store(), paper, to);
    const double converted = std::abs(loss_of(other, input) - want);
    // What remains are the epsilons of 1e-6 that the conventions put in different places.
    EXPECT_LT(converted, 1e-5 * want) << name_of(to);
    if (to == deepseek_v4) {
      EXPECT_GT(unconverted, 30 * converted);
    }
    convert_convention(other.store(), to, paper);
    for (std::size_t i = 0; i < source.store().parameters().size(); ++i)
      EXPECT_TRUE(near(other.store().parameters()[i].variable.value(),
                       source.store().parameters()[i].variable.value(), 0));
  }
}

// ---- statistics

TEST(StreamStatistics, ByHand) {
  // Two sub-layers, two tokens. Token 0: swap then identity; token 1: doubling rows.
  const Tensor first = Tensor::from<double>({0, 1, 1, 0, 2, 0, 1, 1}, {2, 2, 2});
  const Tensor second = Tensor::from<double>({1, 0, 0, 1, 1, 1, 0, 1}, {2, 2, 2});
  const StreamStatistics out = stream_statistics("decoder", {first, second});
  // Token 1: [[1,1],[0,1]] [[2,0],[1,1]] = [[3,1],[1,1]]: rows 4 and 2, columns 4 and 2.
  EXPECT_EQ(out.tokens, 2);
  EXPECT_DOUBLE_EQ(out.gain_forward, (1.0 + 4.0) / 2);
  EXPECT_DOUBLE_EQ(out.gain_backward, (1.0 + 4.0) / 2);
  EXPECT_DOUBLE_EQ(out.gain_forward_min, 1.0);
  EXPECT_DOUBLE_EQ(out.gain_backward_min, 1.0);
  EXPECT_DOUBLE_EQ(out.deviation, 2.0);  // the column sum 3 of token 1's first mix
  // Rows with a half each have entropy 1, one-hot rows 0: token 1 has 1 of 2 rows in each mix.
  EXPECT_DOUBLE_EQ(out.entropy, (0.0 + 0.5) / 2);
}

TEST(StreamStatistics, CombinedByTokens) {
  StreamStatistics a, b;
  a.tokens = 1;
  a.gain_forward = 1;
  a.gain_forward_min = 0.5;
  a.deviation = 3;
  b.tokens = 3;
  b.gain_forward = 5;
  b.gain_forward_min = 0.7;
  const StreamStatistics out = combined(a, b);
  EXPECT_DOUBLE_EQ(out.gain_forward, 4);
  EXPECT_DOUBLE_EQ(out.gain_forward_min, 0.5);
  EXPECT_DOUBLE_EQ(out.deviation, 3);
  EXPECT_EQ(combined({}, b).tokens, 3);
}

/// mHC keeps the composite map doubly stochastic; HC with large mappings does not.
TEST(StreamStatistics, OfAModel) {
  const auto statistics = [](ResidualConfig residual) {
    const auto model_owner = testing::make_model(config_of(residual), 3);
    OcrModel& model = *model_owner;
    testing::fill_weights(model, 4);
    ForwardContext context;
    context.want_stream_statistics = true;
    model.loss(tiny_input(model.config()), context);
    return context.stream_statistics;
  };
  const auto mhc = statistics({.kind = ResidualKind::mhc});
  ASSERT_EQ(mhc.size(), 3u);  // encoder: global and local views; decoder
  EXPECT_EQ(mhc[0].stack, "encoder");
  EXPECT_EQ(mhc[2].stack, "decoder");
  for (const StreamStatistics& stack : mhc) {
    EXPECT_NEAR(stack.gain_forward, 1, 1e-2);
    EXPECT_NEAR(stack.gain_backward, 1, 1e-2);
    EXPECT_LT(stack.deviation, 1e-2);
    EXPECT_GT(stack.entropy, 0.1);
  }
  EXPECT_GT(statistics({.kind = ResidualKind::hc}).back().deviation, 0.1);
  EXPECT_TRUE(statistics({}).empty());
}

// ---- recomputation

TEST(StreamInterval, ThePapersFormula) {
  // sqrt(4 * 24 / 6) = 4 sub-layers, 2 blocks.
  EXPECT_EQ(stream_interval(4, 12, 12), 2);
  EXPECT_EQ(stream_interval(4, 12, 6), 2);
  EXPECT_EQ(stream_interval(4, 12, 1), 1);
  // sqrt(4 * 96 / 6) = 8 sub-layers, 4 blocks; a stage of 6 blocks has no 4: 3 is nearest.
  EXPECT_EQ(stream_interval(4, 48, 48), 4);
  EXPECT_EQ(stream_interval(4, 48, 6), 3);
}

/// The prediction against the allocator's own count, activations of a decoder only: streams kept,
/// rebuilt in segments, and not there at all.
TEST(StreamMemory, PredictionIsTheMeasuredPeak) {
  testing::AnyConfig config = testing::tiny_model_config();
  config->decoder.hidden_size = 256;
  config->decoder.intermediate_size = 32;
  config->decoder.head_dim = 8;
  config->decoder.num_hidden_layers = 8;
  config->decoder.layer_is_sparse.assign(8, false);
  constexpr std::int64_t kTokens = 512;
  const auto peak = [&](const ResidualConfig& residual, std::int64_t interval) {
    config->residual = residual;
    const auto model_owner = testing::make_model(config, 1);
    OcrModel& model = *model_owner;
    const Variable x(testing::random_tensor({1, kTokens, 256}, 2), true);
    ModelInput input;
    ForwardContext context;
    context.recompute_blocks = true;  // so that what is measured is the residual's own
    context.stream_interval = interval;
    const auto pass = [&] {
      const Variable out = model.decoder().forward(x, causal_layout(input), context);
      out.backward(Tensor::full(out.shape(), 1e-3));
      model.store().clear_gradients();
    };
    pass();
    reset_peak_memory();
    const double before = static_cast<double>(memory_statistics().current_bytes);
    pass();
    return static_cast<double>(memory_statistics().peak_bytes) - before;
  };
  const ResidualConfig mhc{.kind = ResidualKind::mhc, .in_encoder = false};
  const double plain = peak({}, 0);
  for (const std::int64_t interval : {0, 1, 2, 4, 8}) {
    const double measured = peak(mhc, interval) - plain;
    const double predicted = stream_memory(mhc, 8, interval, kTokens, 256);
    EXPECT_NEAR(measured, predicted, 0.1 * predicted) << "interval " << interval;
  }
}

}  // namespace
}  // namespace lectern
