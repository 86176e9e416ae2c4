// Predictions for many ranks: operations, bytes and memory against numbers worked out by hand, the
// parts of a step against the schedule, and every refusal.
#include "recipes/plan/scale_plan.h"

#include "tests/nn/tiny_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <numeric>

namespace lectern {
namespace {

using testing::throws_with;
using testing::TinyData;

std::string source(const std::string& path) { return (testing::source_folder() / path).string(); }

Hardware test_hardware() {
  Hardware out;
  out.name = "test";
  out.product_rate = 1e9;
  out.memory_rate = 1e9;
  out.link_rate = 1e8;
  out.network_rate = 1e7;
  out.memory_bytes = 1e9;
  out.products = 0.5;
  out.memory = 1;
  out.link = 1;
  return out;
}

/// 10 tokens of text beside a view of 32 pixels: 4 queries and a separator.
PageShape tiny_page() { return {.text_tokens = 10}; }

ScaleInput tiny_input(const Recipe& recipe, std::int64_t nodes, std::int64_t per_node) {
  return counted_input(recipe, test_hardware(), {nodes, per_node}, tiny_page());
}

MeshRecipe mesh_of(const Recipe& recipe, std::int64_t pp, std::int64_t ep) {
  MeshRecipe mesh = recipe.mesh;
  mesh.pp = pp;
  mesh.ep = ep;
  return mesh;
}

double parameters_of(const ScaleInput& input) {
  double all = 0;
  for (const UnitWork& unit : input.costs.begin()->second.work)
    all += static_cast<double>(unit.parameters);
  return all;
}

TEST(CountUnits, KnowsTheParametersOfTheFullModel) {
  const testing::AnyConfig config =
      read_model_config(source("recipes/configs/models/" + testing::first_family() + ".json"));
  std::int64_t all = 0, experts = 0, trained = 0;
  for (const UnitWork& unit :
       count_units(config, {.crops = 6, .text_tokens = 100}, 1, {"model.sam_model."})) {
    all += unit.parameters;
    experts += unit.expert_parameters;
    trained += unit.trained_parameters;
  }
  // Counted in the reference model.
  EXPECT_EQ(all, 3389119360);
  EXPECT_EQ(experts, 2422210560);
  EXPECT_EQ(all - trained, 94979328);
}

TEST(CountUnits, OperationsAreThoseOfTheShapes) {
  const TinyData data(1);
  const testing::AnyConfig config = read_model_config(data.config());
  const PageShape page{.text_tokens = 10, .global_sizes = {32}};
  EXPECT_EQ(page.tokens(config), 15);
  const auto units = count_units(config, page, 2, {"model.sam_model."});
  ASSERT_EQ(units.size(), 6u);
  // SAM, 64 patches of a view in 2 blocks of width 16: qkv, proj, lin1, lin2, patches of 3 x 4 x 4.
  const double blocks = 2 * (4 * 16 * 16 + 2 * 16 * 32), patches = 48 * 16;
  const double neck = 16 * 8 + 9 * 8 * 8, halves = 16 * 9 * 8 * 12, quarters = 4 * 9 * 12 * 24;
  // One block attends over 64 x 64, the other in 3 x 3 windows of 9 x 9.
  const double sam_attention = 4 * 16 * (64.0 * 64 + 9 * 9 * 9);
  EXPECT_DOUBLE_EQ(units[0].forward, 2 * (2 * 64 * (blocks + patches + neck) +
                                          2 * (halves + quarters) + sam_attention));
  EXPECT_FALSE(units[0].has_backward);
  EXPECT_EQ(units[0].backward, 0);
  EXPECT_EQ(units[0].output_bytes, 2 * 4 * 4 * 24);
  // Encoder block: 4 image tokens and 4 queries; the images see 4, query i sees 4 + i + 1.
  const double encoder_weights = 24 * (24 + 12 + 12) + 24 * 24 + 3 * 24 * 40;
  const double encoder_attention = 4 * 24 * (4 * 4 + 4 * 4 + 10);
  EXPECT_DOUBLE_EQ(units[1].forward, 2 * (2 * 8 * encoder_weights + encoder_attention));
  EXPECT_DOUBLE_EQ(units[1].backward, 2 * (2 * 2 * 8 * encoder_weights + 2 * encoder_attention));
  // The last one has the projector, for queries alone.
  EXPECT_DOUBLE_EQ(units[2].forward, units[1].forward + 2 * 2 * 4 * 24 * 32);
  EXPECT_EQ(units[2].output_bytes, 2 * 4 * 4 * 32);
  // Decoder: 15 rows a page, causal.
  const double attention = 4 * 32 * (15 * 16 / 2), projections = 4 * 32 * 32;
  EXPECT_DOUBLE_EQ(units[3].forward, 2 * (2 * 15 * (projections + 3 * 32 * 48) + attention));
  // Sparse: router of 4, 2 of 4 experts of 16, one shared.
  EXPECT_DOUBLE_EQ(units[4].forward,
                   2 * (2 * 15 * (projections + 4 * 32 + (2 + 1) * 3 * 32 * 16) + attention));
  EXPECT_EQ(units[4].routed_rows, 2 * 15 * 2);
  EXPECT_DOUBLE_EQ(units[4].shared, 2 * 30 * 3 * 32 * 16);
  // Only rows with a label go through the head.
  EXPECT_DOUBLE_EQ(units[5].forward, 2 * 20 * 288 * 32);
  EXPECT_DOUBLE_EQ(units[5].backward, 2 * units[5].forward);
}

TEST(CountUnits, TextAloneLeavesTheEncoderIdle) {
  const TinyData data(1);
  const testing::AnyConfig config = read_model_config(data.config());
  const auto units = count_units(config, {.text_tokens = 10, .has_image = false}, 1, {});
  for (std::size_t u = 0; u < 3; ++u) EXPECT_EQ(units[u].forward, 0) << u;
  EXPECT_GT(units[3].forward, 0);
}

TEST(LinkLoads, OfCollectives) {
  const Cluster cluster{2, 2};
  LinkCount ring(cluster);
  ring.collective({0, 1, 2, 3}, 400, false);  // 1 -> 2 and 3 -> 0 leave their nodes
  EXPECT_EQ(ring.load().sent, 300);
  EXPECT_EQ(ring.load().in_node, 300);
  EXPECT_EQ(ring.load().leaving, 300);
  EXPECT_EQ(ring.load().total, 1200);
  LinkCount direct(cluster);
  direct.collective({0, 1, 2, 3}, 400, true);
  EXPECT_EQ(direct.load().sent, 300);
  EXPECT_EQ(direct.load().in_node, 100);
  EXPECT_EQ(direct.load().leaving, 2 * 200);
  EXPECT_EQ(direct.load().total, 1200);
  LinkCount alone(cluster);
  alone.collective({1}, 400, false);
  EXPECT_EQ(alone.load().total, 0);
}

TEST(LinkLoads, OfExpertsAndStages) {
  // 2 stages of 4 replicas, 4 ranks a node: a stage is a node.
  const MeshShape mesh{2, 4, 2};
  EXPECT_EQ(expert_groups(mesh, 1), (std::vector<std::vector<std::int64_t>>{{4, 5}, {6, 7}}));
  EXPECT_EQ(replica_groups(mesh, 1), (std::vector<std::vector<std::int64_t>>{{4, 6}, {5, 7}}));
  const LinkLoad experts = expert_load({2, 4}, mesh);
  EXPECT_EQ(experts.sent, 0.5);
  EXPECT_EQ(experts.in_node, 0.5);
  EXPECT_EQ(experts.leaving, 0);
  EXPECT_EQ(experts.total, 4);
  EXPECT_EQ(expert_load({8, 1}, mesh).leaving, 0.5);
  const LinkLoad stages = pipeline_load({2, 4}, mesh);
  EXPECT_EQ(stages.in_node, 0);
  EXPECT_EQ(stages.leaving, 4);
  EXPECT_EQ(pipeline_load({1, 8}, mesh).in_node, 1);
  // The slower of in-node and network decides.
  EXPECT_DOUBLE_EQ((LinkLoad{0, 1e8, 2e6, 0}.seconds(test_hardware())), 1);
  EXPECT_DOUBLE_EQ((LinkLoad{0, 1e8, 3e7, 0}.seconds(test_hardware())), 3);
}

TEST(PlanScale, BytesOfATinyMesh) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  const ScaleInput input = tiny_input(recipe, 1, 2);
  const double all = parameters_of(input), experts = 4 * 3 * 32 * 16;
  const ScalePlan plain = plan_scale(input, recipe, recipe.mesh, 2);
  EXPECT_EQ(plain.gradient_load.sent, 4 * all / 2);
  EXPECT_EQ(plain.gradient_load.total, 4 * all);
  EXPECT_EQ(plain.parameter_load.total, 4 * all);
  EXPECT_EQ(plain.expert_load.total, 0);
  EXPECT_EQ(plain.activation_load.total, 0);
  MeshRecipe mesh = recipe.mesh;
  mesh.zero = false;
  const ScalePlan whole = plan_scale(input, recipe, mesh, 2);
  EXPECT_EQ(whole.gradient_load.total, 8 * all);
  EXPECT_EQ(whole.parameter_load.total, 0);

  // Half of the experts each: nobody else has them. One micro-batch of 2 pages a rank.
  const ScalePlan spread = plan_scale(input, recipe, mesh_of(recipe, 1, 2), 2);
  EXPECT_EQ(spread.gradient_load.total, 4 * (all - experts));
  const double pairs = 2 * 15 * 2, row = 4 * 32;
  const double there = row + 8, back = row, gradients = 2 * row + 4;
  EXPECT_EQ(spread.expert_load.sent, pairs / 2 * (there + back + gradients));
  EXPECT_EQ(spread.expert_load.total, 2 * spread.expert_load.sent);
  EXPECT_EQ(spread.memory.weights, 4 * (all - experts / 2));

  // Two stages, 2 micro-batches of 2 pages, cut behind the encoder: 4 rows of 32 f32 a page.
  mesh = mesh_of(recipe, 2, 1);
  mesh.split = {3, 6};
  const ScalePlan stages = plan_scale(input, recipe, mesh, 2);
  EXPECT_EQ(stages.pipeline.micro_batches, 2);
  EXPECT_EQ(stages.activation_load.sent, 2 * 2 * 4 * 32 * 4);
  EXPECT_EQ(stages.activation_load.total, 2 * stages.activation_load.sent);
  EXPECT_EQ(stages.gradient_load.total, 0);
}

TEST(PlanScale, MemoryOfKnownParameters) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run", {"dtype=bf16", "batch.global_size=8"});
  const ScaleInput input = tiny_input(recipe, 1, 4);
  const double all = parameters_of(input);
  const PredictedMemory memory = plan_scale(input, recipe, recipe.mesh, 2).memory;
  EXPECT_EQ(memory.weights, 4 * all);
  EXPECT_EQ(memory.copies, 2 * all);
  EXPECT_EQ(memory.gradients, 4 * all);
  EXPECT_EQ(memory.moments, 8 * all / 4);
  EXPECT_EQ(memory.buckets, 4 * all + all);
  EXPECT_GT(memory.activations, 0);
  // Recomputation keeps inputs of blocks only: of the encoder's, 8 rows of 24; of the decoder's, 15
  // of 32, and of the head twice; of SAM's, 64 patches of 16.
  const Recipe again = data.recipe("run", {"recompute=true", "batch.global_size=8"});
  const PredictedMemory less = plan_scale(tiny_input(again, 1, 4), again, again.mesh, 2).memory;
  EXPECT_EQ(less.activations, 2 * 4 * (2 * 64 * 16 + 2 * 8 * 24 + 2 * 15 * 32 + 2 * 15 * 32));
  EXPECT_LT(less.activations, memory.activations);
  EXPECT_EQ(less.copies, 0);
  // Frozen parameters have weights alone.
  const Recipe frozen = data.recipe("run", {"stage=3", "batch.global_size=8"});
  const PredictedMemory decoder = plan_scale(tiny_input(frozen, 1, 4), frozen, frozen.mesh, 2).memory;
  EXPECT_EQ(decoder.weights, 4 * all);
  EXPECT_LT(decoder.gradients, memory.gradients);
}

TEST(PlanScale, SaysWhenAMeshDoesNotFit) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  ScaleInput input = tiny_input(recipe, 1, 2);
  const ScalePlan plan = plan_scale(input, recipe, recipe.mesh, 2);
  EXPECT_TRUE(plan.fits);
  input.hardware.memory_bytes = plan.memory.total() + 100;
  EXPECT_TRUE(plan_scale(input, recipe, recipe.mesh, 2).fits);
  input.hardware.reserve_bytes = 101;
  EXPECT_FALSE(plan_scale(input, recipe, recipe.mesh, 2).fits);
  const auto plans = plan_scales(input, recipe);
  EXPECT_NE(scale_report(input, recipe, {plan_scale(input, recipe, recipe.mesh, 2)})
                .find("**It does not fit** the memory of test"),
            std::string::npos);
  for (std::size_t i = 1; i < plans.size(); ++i) EXPECT_GE(plans[i - 1].fits, plans[i].fits);
}

TEST(PlanScale, AStepIsItsParts) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  const ScaleInput one = tiny_input(recipe, 1, 1);
  const auto& work = one.costs.at(2).work;
  double operations = 0;
  for (const UnitWork& unit : work) operations += unit.forward + unit.backward;
  const double update = 32 * parameters_of(one) / 1e9;
  const ScalePlan alone = plan_scale(one, recipe, recipe.mesh, 2);
  EXPECT_NEAR(alone.seconds, 2 * operations / 0.5e9 + update, 1e-12);
  EXPECT_NEAR(alone.utilisation, 0.5 * (alone.seconds - update) / alone.seconds, 1e-9);
  EXPECT_NEAR(alone.pages_a_day, 4 / alone.seconds * 86400, 1e-3);
  EXPECT_NEAR(alone.tokens_a_day, 15 * alone.pages_a_day, 1e-2);

  // Two ranks: half the passes; the gradients leave while the last backward goes on, but for the
  // last bucket, which here is all there is.
  const ScaleInput two = tiny_input(recipe, 1, 2);
  const ScalePlan pair = plan_scale(two, recipe, recipe.mesh, 2);
  EXPECT_NEAR(pair.pipeline.seconds, operations / 0.5e9, 1e-12);
  EXPECT_NEAR(pair.gradients, 4 * parameters_of(one) / 2 / 1e8, 1e-12);
  EXPECT_EQ(pair.gradients_exposed, pair.gradients);
  MeshRecipe small = recipe.mesh;
  small.bucket_bytes = 1;
  EXPECT_LT(plan_scale(two, recipe, small, 2).gradients_exposed, pair.gradients / 100);
  // On a CPU nothing is hidden, and two ranks on one core take turns.
  ScaleInput cpu = two;
  cpu.hardware.overlaps = false;
  EXPECT_EQ(plan_scale(cpu, recipe, small, 2).gradients_exposed, pair.gradients);
  cpu.cores = 1;
  cpu.load_seconds = 0.25;
  const ScalePlan shared = plan_scale(cpu, recipe, small, 2);
  EXPECT_NEAR(shared.seconds,
              2 * (shared.pipeline.seconds + shared.gradients + shared.update + shared.parameters +
                   2 * 0.25),
              1e-9);
}

TEST(PlanScale, PipelinesAreThoseOfTheSchedule) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run", {"batch.global_size=8"});
  ScaleInput input = tiny_input(recipe, 1, 2);
  input.hardware.link_rate = input.hardware.network_rate = 1e30;
  const MeshRecipe mesh = mesh_of(recipe, 2, 1);
  const ScalePlan plan = plan_scale(input, recipe, mesh, 2);
  const MeshPlan schedule = plan_mesh(input.costs.at(2).seconds, 2, 1, 4);
  EXPECT_NEAR(plan.pipeline.seconds, schedule.seconds, 1e-9);
  EXPECT_EQ(plan.pipeline.ends, schedule.ends);
  // A slow link is waited for.
  input.hardware.link_rate = 1e4;
  EXPECT_GT(plan_scale(input, recipe, mesh, 2).pipeline.seconds, 1.1 * schedule.seconds);
}

TEST(PlanScale, MoreIsNeverSlower) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run", {"batch.global_size=16"});
  double before = 1e30;
  for (const std::int64_t nodes : {1, 2, 4}) {
    const double seconds =
        plan_scale(tiny_input(recipe, nodes, 2), recipe, recipe.mesh, 2).pipeline.seconds;
    EXPECT_LT(seconds, before);
    before = seconds;
  }
  const auto step = [&](const std::function<void(Hardware&)>& change) {
    Hardware hardware = test_hardware();
    change(hardware);
    const ScaleInput input = counted_input(recipe, hardware, {2, 2}, tiny_page());
    return plan_scale(input, recipe, mesh_of(recipe, 1, 2), 2).seconds;
  };
  const double base = step([](Hardware&) {});
  EXPECT_LT(step([](Hardware& h) { h.products = 1; }), base);
  EXPECT_LT(step([](Hardware& h) { h.network_rate *= 2; }), base);
  EXPECT_LT(step([](Hardware& h) { h.memory_rate *= 2; }), base);
  EXPECT_GT(step([](Hardware& h) { h.link = 0.5; }), base);
  const ScaleInput longer = counted_input(recipe, test_hardware(), {2, 2}, {.text_tokens = 20});
  EXPECT_GT(plan_scale(longer, recipe, mesh_of(recipe, 1, 2), 2).seconds, base);
}

TEST(PlanScale, AnEncoderCacheSavesTheEncoder) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run", {"stage=3"});
  ScaleInput input = tiny_input(recipe, 1, 1);
  EXPECT_TRUE(input.encoder_cached);  // stage 3's default
  const double cached = plan_scale(input, recipe, recipe.mesh, 2).pipeline.seconds;
  input.encoder_cached = false;
  double encoder = 0;
  for (std::size_t u = 0; u < 3; ++u) encoder += input.costs.at(2).seconds[u].forward;
  EXPECT_NEAR(plan_scale(input, recipe, recipe.mesh, 2).pipeline.seconds, cached + 2 * encoder,
              1e-12);
}

TEST(PlanScale, TellsTheShareThatAReportImplies) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  ScaleInput input = tiny_input(recipe, 1, 2);
  const ScalePlan plan = plan_scale(input, recipe, recipe.mesh, 2);
  const auto share = implied_share(input, recipe, plan, plan.tokens_a_day);
  ASSERT_TRUE(share.has_value());
  EXPECT_NEAR(*share, 0.5, 1e-6);
  EXPECT_FALSE(implied_share(input, recipe, plan, 1e18).has_value());
}

TEST(PlanScale, RefusesWhatFitsNoMesh) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  const ScaleInput input = tiny_input(recipe, 1, 3);
  EXPECT_TRUE(throws_with([&] { plan_scale(input, recipe, mesh_of(recipe, 2, 1), 2); },
                          {"mesh.pp must divide the number of ranks = 3, got 2"}));
  EXPECT_TRUE(throws_with([&] { plan_scale(input, recipe, mesh_of(recipe, 1, 3), 2); },
                          {"batch.global_size must be a multiple of"}));
  const Recipe six = data.recipe("run", {"batch.global_size=6"});
  EXPECT_TRUE(throws_with([&] { plan_scale(input, six, mesh_of(six, 1, 3), 2); },
                          {"mesh.ep must divide the 4 routed experts of a layer, got 3"}));
  const ScaleInput seven = tiny_input(recipe, 1, 7);
  EXPECT_TRUE(throws_with([&] { plan_scales(seven, recipe); }, {"plan: 7 ranks fit no mesh"}));
  const Recipe packed = data.recipe("run", {"data.pack_tokens=30"});
  EXPECT_EQ(tiny_input(packed, 1, 1).pages, 2);
  EXPECT_TRUE(throws_with(
      [&] {
        counted_input(packed, test_hardware(), {1, 1}, {.text_tokens = 40});
      },
      {"a page of 45 tokens does not fit into data.pack_tokens = 30"}));
}

TEST(Hardware, ReadsTheFiguresFile) {
  const std::string figures = source("recipes/configs/machines/gpus.toml");
  for (const char* name : {"a100-40g", "a100-80g", "h100", "h200"}) {
    const Hardware hardware = load_hardware(figures, name, "bf16");
    EXPECT_EQ(hardware.name, name);
    EXPECT_EQ(hardware.products_from, "assumption");
    EXPECT_GT(hardware.product_rate, load_hardware(figures, name, "fp32").product_rate);
  }
  EXPECT_EQ(load_hardware(figures, "a100-40g", "bf16").product_rate, 312e12);
  EXPECT_TRUE(throws_with(
      [&] { load_hardware(figures, "v100", "bf16"); },
      {"plan: --gpu must be cpu or one of a100-40g, a100-80g, h100, h200", "got v100"}));
  const TinyData data(1);
  const auto file = data.folder() / "gpus.toml";
  write_file(file, "[assumptions]\nproducts = 2\n");
  EXPECT_TRUE(
      throws_with([&] { load_hardware(file, "x", "bf16"); }, {"assumptions.products must be"}));
}

TEST(Hardware, TakesTheShareThatACardReached) {
  const TinyData data(1);
  const Recipe recipe = data.recipe("run");
  Hardware hardware = test_hardware();
  hardware.product_rate = 1e14;
  const auto file = data.folder() / "step.json";
  const auto line = [&](const std::string& field, const nlohmann::json& value) {
    nlohmann::json out = {{"device", "cuda"},
                          {"variant", "fp32"},
                          {"stage", 1},
                          {"batch", 2},
                          {"crops", 0},
                          {"text", 100},
                          {"parameters", parameters_of(tiny_input(recipe, 1, 1))},
                          {"seconds_min", 1.0}};
    out[field] = value;
    write_file(file, out.dump() + "\n");
    return measured_share(file, recipe, hardware);
  };
  double operations = 0, trained = 0;
  for (const UnitWork& unit : count_units(testing::AnyConfig(read_model_config(data.config())),
                                          {.text_tokens = 101}, 2, {})) {
    operations += unit.forward + unit.backward;
    trained += static_cast<double>(unit.trained_parameters);
  }
  EXPECT_NEAR(line("batch", 2), operations / (1 - 32 * trained / 1e9) / 1e14, 1e-9);
  EXPECT_NEAR(line("seconds_min", 2.0), operations / (2 - 32 * trained / 1e9) / 1e14, 1e-9);
  EXPECT_TRUE(
      throws_with([&] { line("device", "cpu"); }, {"device must be \"cuda\", got \"cpu\""}));
  EXPECT_TRUE(throws_with([&] { line("variant", "bf16"); }, {"variant must be \"fp32\""}));
  EXPECT_TRUE(throws_with([&] { line("parameters", 7); }, {"parameters must be", "got 7"}));
  EXPECT_TRUE(throws_with([&] { line("seconds_min", 1e-9); }, {"seconds_min must be"}));
  write_file(file, "nothing");
  EXPECT_TRUE(throws_with([&] { measured_share(file, recipe, hardware); },
                          {"must be a line of `lectern bench step`"}));
}

TEST(TimedInput, PredictsThisMachine) {
  const TinyData data(6);
  const Recipe recipe = data.recipe("run", {"batch.global_size=8"});
  const ScaleInput input = timed_input(recipe, {1, 2});
  EXPECT_EQ(input.threads, 1);
  EXPECT_GE(input.cores, 1);
  EXPECT_GT(input.update_seconds, 0);
  EXPECT_GT(input.load_seconds, 0);
  EXPECT_GT(input.page_tokens, 5);
  for (const std::int64_t pp : {1, 2}) {
    const ScalePlan plan = plan_scale(input, recipe, mesh_of(recipe, pp, 1), 2);
    EXPECT_GT(plan.seconds, 0);
    EXPECT_TRUE(plan.fits);
    EXPECT_EQ(plan.utilisation, 0);
  }
  const nlohmann::ordered_json json = scale_json(input, recipe, plan_scales(input, recipe));
  EXPECT_GE(json["meshes"].size(), 3u);  // dp, dp with experts spread, pp
  EXPECT_FALSE(json["assumptions"].empty());
}

TEST(PlanCommand, PredictsThePapersRun) {
  const std::vector<std::string> run = {
      "plan",
      source("recipes/configs/" + testing::first_family() + "/stage2.toml"),
      "--gpus",
      "8",
      "--figures",
      source("recipes/configs/machines/gpus.toml"),
      "--set",
      "model.config=" + source("recipes/configs/models/" + testing::first_family() + ".json")};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = run;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  testing::Child paper(with({"--nodes", "20", "--gpu", "a100-40g", "--set", "mesh.pp=4", "--set",
                             "mesh.split=[1,25,31,38]", "--observed", "70e9", "--json"}));
  ASSERT_EQ(paper.wait(), 0) << paper.errors();
  const auto json = nlohmann::json::parse(paper.out());
  EXPECT_EQ(json["meshes"][0]["dp"], 40);
  EXPECT_TRUE(json["meshes"][0]["fits"]);
  EXPECT_GT(json["implied_products_share"].get<double>(), 0);
  bool any_misfit = false;
  for (const auto& mesh : json["meshes"]) any_misfit |= !mesh["fits"].get<bool>();
  EXPECT_TRUE(any_misfit);
  testing::Child unknown(with({"--gpu", "v100"}));
  EXPECT_EQ(unknown.wait(), 1);
  EXPECT_NE(unknown.errors().find("--gpu must be cpu or one of"), std::string::npos)
      << unknown.errors();
  testing::Child neither(
      {"plan", source("recipes/configs/" + testing::first_family() + "/stage2.toml")});
  EXPECT_EQ(neither.wait(), 2);
}

}  // namespace
}  // namespace lectern
