#include "recipes/recipe/recipe.h"

#include "core/io/file.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "nn/families.h"
#include "nn/model.h"
#include "recipes/config/find.h"
#include "recipes/train/training_data.h"
#include "tests/nn/tiny_model.h"
#include "tests/testing.h"

#include <algorithm>
#include <cmath>

namespace lectern {
namespace {

using testing::throws_with;

constexpr const char* kSmall = R"(stage = 2
steps = 100
run_dir = "runs/x"
[model]
config = "m.json"
[data]
shards = ["a", "b"]
tokenizer = "t.json"
[optimizer]
learning_rate = 1e-3
[batch]
global_size = 8
)";

const CutSettings& cut_settings(const SourceRecipe& source) {
  return dynamic_cast<const CutSettings&>(*source.settings);
}
const DrawnSettings& drawn_settings(const SourceRecipe& source) {
  return dynamic_cast<const DrawnSettings&>(*source.settings);
}

Recipe small(const std::vector<std::string>& overrides = {}) {
  return parse_recipe(ConfigDocument::parse(kSmall, "r.toml", overrides));
}
auto with(const std::vector<std::string>& overrides) {
  return [=] { small(overrides); };
}

TEST(Recipe, DefaultsFollowTheStage) {
  EXPECT_EQ(small().freeze, std::vector<std::string>{"tokenizer"});
  EXPECT_TRUE(small({"stage=1"}).freeze.empty());
  EXPECT_EQ(small({"stage=3"}).freeze, std::vector<std::string>{"encoder"});
  EXPECT_FALSE(small().encoder_cache.enabled);
  EXPECT_TRUE(small({"stage=3"}).encoder_cache.enabled);
  EXPECT_FALSE(small({"stage=3", "encoder_cache.enabled=false"}).encoder_cache.enabled);
  EXPECT_FALSE(small({"stage=3", "freeze=[]"}).encoder_cache.enabled);
  EXPECT_EQ(small().evaluation.max_new_tokens, small().data.max_text_tokens);
  EXPECT_EQ(small().data.page_share, 1.0);
  EXPECT_EQ(small().moe.balance_loss, 0.0);
}

TEST(Recipe, SaysWhatTheDecoderReads) {
  const auto config = families().front().released();
  config->apply(model_settings(small().model));
  EXPECT_EQ(config->decoder_tokens(1024), 256);
  config->apply(model_settings(small({"model.queries=9"}).model));
  EXPECT_EQ(config->decoder_tokens(1024), 9);
  EXPECT_EQ(config->decoder_tokens(32), 9);
  config->apply(model_settings(small({"model.decoder_reads=visual"}).model));
  EXPECT_TRUE(throws_with(with({"model.decoder_reads=visual", "model.queries=4"}),
                          {"model.queries", "must be left out"}));
  EXPECT_TRUE(throws_with(with({"model.decoder_reads=raster"}), {"decoder_reads", "raster"}));
}

TEST(Recipe, SaysHowItsModelReads) {
  EXPECT_FALSE(reading_settings(small()).by_pieces);
  const ReadingSettings settings = reading_settings(
      small({"view.read_by=pieces", "view.piece_width=90", "view.piece_dpi=120", "data.margin=6",
             "data.text_height=20", "data.text_at=top", "view.global_size=64"}));
  EXPECT_TRUE(settings.by_pieces);
  EXPECT_EQ(settings.piece_width, 90);
  EXPECT_EQ(settings.piece_dpi, 120);
  EXPECT_EQ(settings.piece_margin, 6);
  EXPECT_EQ(settings.piece_text_height, 20);
  EXPECT_TRUE(settings.piece_at_top);
  EXPECT_EQ(settings.global_size, 64);
}

TEST(Recipe, ResolvedRecipeIsTheSameRecipe) {
  const Recipe first = small({"optimizer.betas=[0.9, 0.999]", "seed=7"});
  const Recipe again = parse_recipe(ConfigDocument::parse(first.resolved, "config.toml"));
  EXPECT_EQ(first.resolved, again.resolved);
  EXPECT_EQ(again.seed, 7);
  EXPECT_EQ(again.optimizer.beta2, 0.999);
}

TEST(Recipe, RefusesWhatCannotBe) {
  EXPECT_TRUE(throws_with(with({"steps=0"}), {"steps must be an integer from 1"}));
  EXPECT_TRUE(throws_with(with({"stage=4"}), {"stage must be an integer from 1 to 3, got 4"}));
  EXPECT_TRUE(throws_with(with({"dtype=fp16"}), {"dtype must be one of \"fp32\", \"bf16\""}));
  EXPECT_TRUE(throws_with(with({"batch.micro_batch=3"}),
                          {"batch.micro_batch must divide batch.global_size = 8, got 3"}));
  EXPECT_TRUE(throws_with(with({"optimizer.min_learning_rate=1"}),
                          {"min_learning_rate must be at most learning_rate = 0.001, got 1"}));
  EXPECT_TRUE(throws_with(with({"optimizer.warmup_steps=101"}), {"warmup_steps must be at most"}));
  EXPECT_TRUE(throws_with(with({"optimizer.schedule=step"}), {"needs step_milestones"}));
  EXPECT_TRUE(throws_with(with({"optimizer.step_milestones=[5, 5]"}), {"must rise"}));
  EXPECT_TRUE(throws_with(with({"optimizer.betas=[0.9]"}), {"betas must be two numbers, got 1"}));
  EXPECT_TRUE(throws_with(with({"data.shard_weights=[1]"}), {"each of the 2 shards, got 1"}));
  EXPECT_TRUE(throws_with(with({"data.shard_weights=[0, 0]"}), {"must not all be 0"}));
  EXPECT_TRUE(throws_with(with({"data.level=mixed"}), {"needs page_share, line_share"}));
  EXPECT_TRUE(throws_with(with({"data.prompt=read"}), {"prompt must have <image> exactly once"}));
  EXPECT_TRUE(throws_with(with({"data.pack_tokens=100"}), {"above data.max_text_tokens"}));
  EXPECT_TRUE(throws_with(with({"view.resolutions=[768]"}), {"must be empty with view.crop"}));
  EXPECT_TRUE(throws_with(with({"view.read_by=lines"}), {"view.read_by must be one of"}));
  EXPECT_TRUE(throws_with(with({"view.piece_dpi=5"}), {"piece_dpi must be a number from 18"}));
  EXPECT_TRUE(throws_with(with({"freeze=[]", "encoder_cache.enabled=true"}),
                          {"needs \"encoder\" in `freeze`"}));
  EXPECT_TRUE(throws_with(with({"freeze=[\"\"]"}), {"would freeze everything"}));
  EXPECT_TRUE(throws_with(with({"checkpoint.keep=0"}), {"keep must be an integer from 1"}));
  EXPECT_TRUE(throws_with(with({"optimizer.learning_rat=1"}), {"did you mean `learning_rate`?"}));
}

TEST(Recipe, MeshMustFitTheRanks) {
  EXPECT_NO_THROW(check_mesh(small(), 1));
  EXPECT_NO_THROW(check_mesh(small(), 4));
  EXPECT_TRUE(throws_with([] { check_mesh(small({"mesh.pp=2"}), 3); },
                          {"mesh.pp must divide the number of ranks = 3, got 2"}));
  EXPECT_TRUE(throws_with([] { check_mesh(small({"mesh.ep=2"}), 1); },
                          {"mesh.ep must divide the data-parallel ranks = 1"}));
  EXPECT_NO_THROW(check_mesh(small({"mesh.pp=2"}), 2));
  EXPECT_NO_THROW(check_mesh(small({"mesh.pp=2", "mesh.ep=2", "mesh.chunks=2"}), 4));
  EXPECT_TRUE(throws_with([] { check_mesh(small({"mesh.chunks=2"}), 2); },
                          {"mesh.chunks must be 1 without a pipeline, got 2"}));
  EXPECT_NO_THROW(check_mesh(small({"mesh.pp=2", "moe.bias_balancing_rate=0.1"}), 2));
  EXPECT_TRUE(throws_with(
      [] { check_mesh(small({"batch.micro_batch=4"}), 4); },
      {"batch.global_size must be a multiple", "= 16, got 8", "try 16, or batch.micro_batch = 2"}));
  EXPECT_TRUE(throws_with([] { small({"mesh.bucket_bytes=0"}); }, {"bucket_bytes"}));
  EXPECT_TRUE(throws_with([] { small({"mesh.wait_seconds=-1"}); }, {"wait_seconds"}));
  EXPECT_TRUE(small().mesh.zero);
}

TEST(Recipe, ResidualSettings) {
  EXPECT_FALSE(small().model.residual.has_value());
  EXPECT_TRUE(small({"model.residual=plain"}).model.residual->is_plain());
  const Recipe recipe =
      small({"model.residual=mhc", "model.streams=3", "model.exact_h_res=true", "model.merge=mean",
             "model.h_pre=false", "model.residual_in=decoder"});
  const ResidualConfig want{.kind = ResidualKind::mhc,
                            .streams = 3,
                            .exact = true,
                            .merge = StreamMerge::mean,
                            .h_pre = false,
                            .in_encoder = false};
  EXPECT_EQ(*recipe.model.residual, want);
  EXPECT_EQ(recipe.log.diagnostics_every, 10);
  EXPECT_EQ(small().log.diagnostics_every, 0);
  EXPECT_EQ(small({"recompute=true"}).recompute_streams, -1);
  EXPECT_EQ(*parse_recipe(ConfigDocument::parse(recipe.resolved, "config.toml")).model.residual,
            want);
}

// The schedules of the paper (arXiv 2601.20552, section on training).
TEST(Recipe, FullSizeRecipesFollowThePaper) {
  struct Expected {
    std::int64_t stage, steps, batch;
    double rate, floor;
  };
  for (const Expected& expected :
       {Expected{1, 40000, 640, 1e-4, 1e-6}, Expected{2, 15000, 1280, 5e-5, 1e-6},
        Expected{3, 20000, 1280, 1e-6, 5e-8}}) {
    const Recipe recipe = load_recipe(
        testing::source_folder() / "recipes" /
        fmt::format("configs/{}/stage{}.toml", testing::first_family(), expected.stage));
    EXPECT_EQ(recipe.stage, expected.stage);
    EXPECT_EQ(recipe.steps, expected.steps);
    EXPECT_EQ(recipe.batch.global_size, expected.batch);
    EXPECT_EQ(recipe.optimizer.learning_rate, expected.rate);
    EXPECT_EQ(recipe.optimizer.min_learning_rate, expected.floor);
    EXPECT_EQ(recipe.optimizer.schedule, "cosine");
    EXPECT_EQ(recipe.view.crop, expected.stage != 1);
    EXPECT_EQ(recipe.freeze, frozen_parts(expected.stage));
    EXPECT_EQ(recipe.encoder_cache.enabled, expected.stage == 3);
    EXPECT_NE(recipe.resolved.find("\nconfig = \"recipes/configs/models/"), std::string::npos);
    EXPECT_TRUE(std::filesystem::exists(recipe.model.config));
    if (expected.stage == 1) {
      EXPECT_EQ(recipe.data.pack_tokens, 8192);
      EXPECT_EQ(recipe.view.resolutions, (std::vector<std::int64_t>{768, 1024}));
    }
  }
}

TEST(Recipe, QuickstartRecipesAreWellFormed) {
  for (int stage = 1; stage <= 3; ++stage) {
    const Recipe recipe = load_recipe(testing::source_folder() / "recipes" /
                                      fmt::format("configs/quickstart/stage{}.toml", stage));
    EXPECT_EQ(recipe.stage, stage);
    EXPECT_TRUE(std::filesystem::exists(recipe.model.config));
  }
}

TEST(Recipe, QuickstartGoesOnFromNano) {
  std::string previous = find_shipped("recipes/nano");
  for (int stage = 1; stage <= 3; ++stage) {
    const Recipe recipe = load_recipe(testing::source_folder() / "recipes" /
                                      fmt::format("configs/quickstart-nano/stage{}.toml", stage));
    EXPECT_EQ(recipe.stage, stage);
    EXPECT_EQ(recipe.model.config, find_shipped("recipes/nano"));
    EXPECT_EQ(recipe.model.init, previous);
    EXPECT_EQ(recipe.run_dir, fmt::format("out/quickstart/stage{}", stage));
    EXPECT_EQ(recipe.encoder_cache.enabled, stage == 3);
    // The pieces that nano has learned to read.
    const Recipe nano =
        load_recipe(testing::source_folder() / "recipes/configs/nano/pretrain.toml");
    EXPECT_EQ(recipe.view.global_size, nano.view.global_size);
    EXPECT_EQ(recipe.view.piece_width, nano.view.piece_width);
    EXPECT_EQ(recipe.data.prompt, nano.data.prompt);
    EXPECT_EQ(recipe.data.text_at, nano.data.text_at);
    EXPECT_EQ(recipe.view.piece_dpi, nano.view.piece_dpi);
    EXPECT_EQ(cut_settings(recipe.data.sources[1]).options.cut_width, nano.view.piece_width);
    previous = recipe.run_dir.string();
  }
}

TEST(Recipe, AFileMayListStages) {
  const auto folder = testing::source_folder() / "recipes";
  EXPECT_EQ(recipe_stages(folder / "configs/quickstart/stage1.toml").size(), 1u);
  const auto stages = recipe_stages(folder / "configs/quickstart-mhc/all.toml");
  ASSERT_EQ(stages.size(), 3u);
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const Recipe recipe = load_recipe(stages[i]);
    EXPECT_EQ(recipe.stage, static_cast<std::int64_t>(i) + 1);
    ASSERT_TRUE(recipe.model.residual.has_value());
    EXPECT_EQ(recipe.model.residual->kind, ResidualKind::mhc);
    if (i > 0) {
      EXPECT_EQ(recipe.model.init, load_recipe(stages[i - 1]).run_dir);
    }
  }
  const testing::TemporaryFolder temporary;
  write_file(temporary.path() / "a.toml", "stages = []");
  EXPECT_TRUE(throws_with([&] { recipe_stages(temporary.path() / "a.toml"); },
                          {"stages must name at least one recipe"}));
  write_file(temporary.path() / "b.toml", "stages = [\"a\"]\nsteps = 3");
  EXPECT_TRUE(throws_with([&] { recipe_stages(temporary.path() / "b.toml"); }, {"unknown key"}));
}

/// No source may draw or cut from what the figures are measured on.
void expect_held_out(const Recipe& recipe) {
  for (const SourceRecipe& source : recipe.data.sources) {
    if (source.kind == "shards") {
      EXPECT_EQ(cut_settings(source).folder, "out/nano/shards/train");
      continue;
    }
    const std::vector<std::string>& exclude = drawn_settings(source).text.exclude;
    for (const char* document : {"jags_user_manual", "bridgesampling_paper"})
      EXPECT_NE(std::find(exclude.begin(), exclude.end(), document), exclude.end()) << source.name;
  }
}

TEST(Recipe, NanosLaterStagesGoOnWithItsLastLevel) {
  const auto folder = testing::source_folder() / "recipes";
  const Recipe first = load_recipe(folder / "configs/nano/pretrain.toml");
  const CurriculumRecipe& last = first.curriculum.back();
  std::filesystem::path previous = first.run_dir;
  for (const std::int64_t stage : {2, 3}) {
    const Recipe recipe = load_recipe(folder / fmt::format("configs/nano/stage{}.toml", stage));
    expect_held_out(recipe);
    EXPECT_EQ(recipe.stage, stage);
    EXPECT_EQ(recipe.freeze, frozen_parts(stage));
    EXPECT_EQ(recipe.model.init, previous);
    EXPECT_EQ(recipe.model.config, previous);
    EXPECT_EQ(recipe.data.jitter_pixels, last.jitter_pixels);
    EXPECT_FALSE(recipe.encoder_cache.enabled);
    EXPECT_EQ(recipe.data.text_at, first.data.text_at);
    ASSERT_EQ(recipe.data.sources.size(), last.sources.size());
    for (std::size_t i = 0; i < last.sources.size(); ++i) {
      const SourceRecipe& source = recipe.data.sources[i];
      EXPECT_EQ(source.name, first.data.sources[i].name);
      EXPECT_EQ(source.kind, first.data.sources[i].kind);
      if (source.kind == "shards") {
        const CutOptions& cut = cut_settings(source).options;
        EXPECT_EQ(cut.cut_width, cut_settings(first.data.sources[i]).options.cut_width);
        EXPECT_EQ(cut.region_lines, cut_settings(first.data.sources[i]).options.region_lines);
      } else {
        EXPECT_EQ(drawn_settings(source).look.region_lines,
                  drawn_settings(first.data.sources[i]).look.region_lines);
      }
      const auto named = std::find(last.sources.begin(), last.sources.end(), source.name);
      ASSERT_NE(named, last.sources.end()) << source.name;
      EXPECT_EQ(source.weight, last.weights[static_cast<std::size_t>(named - last.sources.begin())])
          << source.name;
    }
    EXPECT_EQ(recipe.view.piece_width, first.view.piece_width);
    previous = recipe.run_dir;
  }
}

TEST(Recipe, NanoRecipeIsWellFormedAndLeavesOutWhatIsHeldOut) {
  const Recipe recipe =
      load_recipe(testing::source_folder() / "recipes/configs/nano/pretrain.toml");
  EXPECT_EQ(recipe.stage, 1);
  EXPECT_GE(recipe.curriculum.size(), 2u);
  expect_held_out(recipe);
  // 12 MB in bf16.
  const testing::AnyConfig config = read_model_config(recipe.model.config);
  EXPECT_LE(2 * testing::make_model(config, 1)->store().parameter_count(), 12'000'000);
}

}  // namespace
}  // namespace lectern
