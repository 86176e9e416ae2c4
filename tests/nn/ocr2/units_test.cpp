// The model cut into units: the same values and gradients, bit for bit, as in one piece.

#include "nn/ocr2/model.h"
#include "tests/nn/ocr2/tiny_ocr2.h"
#include "tests/testing.h"

#include <cstring>
#include <map>
#include <set>

namespace lectern {
namespace {

/// With more than one block in both stacks.
Ocr2Config config_of(ResidualKind kind) {
  Ocr2Config config = testing::tiny_ocr2_config();
  config.encoder.num_hidden_layers = 2;
  config.residual.kind = kind;
  return config;
}

ModelInput labelled_input(const Ocr2Config& config, std::int64_t tiles) {
  constexpr std::int64_t kText = 5;
  ModelInput input = testing::tiny_prompt(config, 1, tiles, kText, 5);
  input.labels = Tensor::full(input.input_ids.shape(), -100, DType::i32);
  const std::int64_t length = input.input_ids.dim(1);
  for (std::int64_t i = length - kText; i < length; ++i)
    input.labels.data<std::int32_t>()[i] = input.input_ids.data<std::int32_t>()[i];
  return input;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

struct UnitsResult {
  double loss = 0;
  std::map<std::string, Tensor> gradients;
};

void collect(const Ocr2Model& model, UnitsResult& into) {
  for (const Parameter& parameter : model.store().parameters())
    if (parameter.variable.grad().defined()) {
      EXPECT_TRUE(into.gradients.emplace(parameter.name, parameter.variable.grad()).second)
          << parameter.name << " is in two pieces";
    }
}

UnitsResult whole(const Ocr2Config& config, const ModelInput& input) {
  const Ocr2Model model(config, 3);
  ForwardContext context;
  const ModelLoss loss = model.loss(input, context);
  loss.loss_sum.backward();
  UnitsResult out{loss.loss_sum.value().item(), {}};
  collect(model, out);
  return out;
}

/// A leaf with the same value, as another process would receive it.
Streams received(const Streams& x) {
  if (!x.graph.defined()) return {};
  return Streams(Variable(x.value.clone(), x.graph.requires_grad()));
}

/// Backward of what was sent, all in one pass as in one model.
void send_back(const Activation& sent, const Activation& leaves) {
  std::vector<Variable> roots;
  std::vector<Tensor> gradients;
  const auto add = [&](const Streams& x, const Streams& leaf) {
    if (!x.graph.defined() || !x.graph.requires_grad()) return;
    roots.push_back(x.graph);
    gradients.push_back(leaf.graph.grad().clone());
  };
  add(sent.global, leaves.global);
  add(sent.local, leaves.local);
  add(sent.hidden, leaves.hidden);
  record("cut", Tensor::zeros({}), roots, [&](const Tensor&) { return gradients; }).backward();
}

/// Two models, each with the parameters of its own units.
UnitsResult cut_at(const Ocr2Config& config, const ModelInput& input, std::int64_t cut,
                   std::int64_t stream_interval = 0) {
  const UnitRange all{0, config.unit_count()};
  const Ocr2Model first(config, 3, DType::f32, ParameterValues::initialised,
                        ModelPlacement{.units = {{0, cut}}});
  const Ocr2Model second(config, 3, DType::f32, ParameterValues::initialised,
                         ModelPlacement{.units = {{cut, all.end}}});
  ForwardContext context;
  context.stream_interval = stream_interval;
  const Activation sent = first.run_units({0, cut}, input, {}, context);
  const Activation leaves{received(sent.global), received(sent.local), received(sent.hidden)};
  const Activation last = second.run_units({cut, all.end}, input, leaves, context);
  const ModelLoss loss = second.loss_of(last.hidden, input, context);
  loss.loss_sum.backward();
  send_back(sent, leaves);
  UnitsResult out{loss.loss_sum.value().item(), {}};
  collect(first, out);
  collect(second, out);
  return out;
}

void expect_same(const UnitsResult& got, const UnitsResult& want, const std::string& where) {
  EXPECT_EQ(got.loss, want.loss) << where;
  ASSERT_EQ(got.gradients.size(), want.gradients.size()) << where;
  for (const auto& [name, gradient] : want.gradients)
    EXPECT_TRUE(same_bits(got.gradients.at(name), gradient)) << where << ": " << name;
}

TEST(Units, EveryCutGivesTheBitsOfTheWhole) {
  for (const ResidualKind kind : {ResidualKind::plain, ResidualKind::mhc})
    for (const std::int64_t tiles : {0, 2}) {
      const Ocr2Config config = config_of(kind);
      const ModelInput input = labelled_input(config, tiles);
      const UnitsResult want = whole(config, input);
      for (std::int64_t cut = 1; cut < config.unit_count(); ++cut)
        expect_same(
            cut_at(config, input, cut), want,
            fmt::format("{} {} tiles, cut before {}", name_of(kind), tiles, config.unit_name(cut)));
    }
}

TEST(Units, StreamSegmentsEndAtACut) {
  const Ocr2Config config = config_of(ResidualKind::mhc);
  const ModelInput input = labelled_input(config, 1);
  const UnitsResult want = whole(config, input);
  for (std::int64_t cut = 1; cut < config.unit_count(); ++cut)
    expect_same(cut_at(config, input, cut, -1), want, config.unit_name(cut));
}

TEST(Units, EveryParameterHasOne) {
  for (const ResidualKind kind : {ResidualKind::plain, ResidualKind::hc, ResidualKind::mhc}) {
    const Ocr2Config config = config_of(kind);
    const Ocr2Model model(config, 3);
    std::set<std::int64_t> seen;
    for (const Parameter& parameter : model.store().parameters()) {
      const std::int64_t unit = config.unit_of_parameter(parameter.name);
      seen.insert(unit);
      for (const ParameterPart& part : parameter.parts)
        EXPECT_EQ(config.unit_of_parameter(part.name), unit) << part.name;
    }
    EXPECT_EQ(static_cast<std::int64_t>(seen.size()), config.unit_count());
  }
  EXPECT_TRUE(testing::throws_with(
      [] { testing::tiny_ocr2_config().unit_of_parameter("model.other.weight"); },
      {"model.other.weight", "belongs to no unit"}));
}

/// Freezing knows names that another process has, and still refuses what nobody has.
TEST(Units, FreezesByNamesOfOtherPieces) {
  const Ocr2Config config = testing::tiny_ocr2_config();
  Ocr2Model head(config, 3, DType::f32, ParameterValues::initialised,
                 ModelPlacement{.units = {{config.unit_count() - 1, config.unit_count()}}});
  head.store().freeze({"model.sam_model."});
  EXPECT_EQ(head.store().trainable().size(), head.store().parameters().size());
  EXPECT_THROW(head.store().freeze({"model.nobody."}), ConfigError);
}

TEST(Units, PartsAreFrozenByName) {
  const Ocr2Config config = config_of(ResidualKind::plain);
  Ocr2Model model(config, 3);
  const auto frozen = [&](const std::vector<std::string>& parts) {
    model.store().freeze(config.prefixes_of(parts));
    std::set<std::string> out;
    for (const Parameter& parameter : model.store().parameters())
      if (!parameter.variable.requires_grad()) out.insert(parameter.name);
    return out;
  };
  EXPECT_EQ(frozen({"router"}), (std::set<std::string>{"model.layers.1.mlp.gate.weight"}));
  EXPECT_EQ(frozen({"experts"}),
            (std::set<std::string>{"model.layers.1.mlp.experts.down_proj",
                                   "model.layers.1.mlp.experts.gate_up_proj"}));
  EXPECT_EQ(frozen({"head", "model.norm."}),
            (std::set<std::string>{"lm_head.weight", "model.norm.weight"}));
  EXPECT_EQ(frozen({"encoder", "decoder"}).size(), model.store().parameters().size());
  // A unit of which only the experts are frozen still trains.
  const std::vector<bool> trained =
      config.trained_units(config.prefixes_of({"encoder", "experts"}));
  for (std::int64_t unit = 0; unit < config.unit_count(); ++unit)
    EXPECT_EQ(trained[static_cast<std::size_t>(unit)], unit >= config.first_decoder_unit()) << unit;
}

}  // namespace
}  // namespace lectern
