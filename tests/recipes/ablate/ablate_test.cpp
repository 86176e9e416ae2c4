// lectern ablate: which jobs there are, what one leaves behind, going on where it was, and the
// arithmetic of the tables.
#include "recipes/ablate/ablate.h"

#include "core/io/file.h"
#include "recipes/ablate/report.h"
#include "recipes/log/metrics.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace lectern {
namespace {

using nlohmann::json;
using testing::throws_with;

/// A text ablation of a few milliseconds a job.
class Ablate : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 400; ++i) text += fmt::format("line {} of the text; ", i * 7 % 31);
    std::filesystem::create_directories(folder_.path() / "text");
    write_file(folder_.path() / "text" / "a.txt", text);
    write_file(file(), fmt::format(R"(out = "{0}/out"
diagnostics_every = 2
[text]
folder = "{0}/text"
depths = [1, 2]
variants = ["plain", "hc", "mhc"]
seeds = [1, 2]
width = 16
heads = 2
sequence = 16
batch = 2
steps = 5
warmup_steps = 1
validation_sequences = 4
[ocr]
enabled = false
)",
                                   folder_.path().string()));
  }
  std::filesystem::path file() const { return folder_.path() / "ablate.toml"; }
  AblationRecipe recipe(const std::vector<std::string>& overrides = {}) const {
    return load_ablation(file(), overrides);
  }

  testing::TemporaryFolder folder_;
};

TEST_F(Ablate, JobsComeSeedBySeed) {
  const auto jobs = ablation_jobs(recipe());
  ASSERT_EQ(jobs.size(), 12u);
  EXPECT_EQ(jobs[0].id, "text-d1-plain-s1");
  EXPECT_EQ(jobs[5].id, "text-d2-mhc-s1");
  EXPECT_EQ(jobs[6].id, "text-d1-plain-s2");
}

TEST_F(Ablate, AJobLeavesCurvesAndAResult) {
  const AblationRecipe r = recipe();
  for (const AblationJob& job : ablation_jobs(r)) {
    if (job.depth != 2 || job.seed != 1) continue;
    run_ablation_job(r, job);
    const auto folder = r.out / "jobs" / job.id;
    const json result = json::parse(read_file(folder / "result.json"));
    EXPECT_EQ(result["settings"], job_settings(r, job));
    EXPECT_EQ(result["steps"], 5);
    EXPECT_EQ(result["diverged"], false);
    // Bytes of a small alphabet: below the entropy of 260 tokens, above nothing.
    EXPECT_GT(result["loss"].get<double>(), 0.5);
    EXPECT_LT(result["loss"].get<double>(), std::log(260.0) + 0.5);
    EXPECT_GT(result["peak_bytes"].get<double>(), 0);
    EXPECT_EQ(result.contains("gain_forward"), job.variant != "plain");
    const auto records = read_metrics(folder / "metrics.jsonl");
    ASSERT_EQ(records.size(), 5u);
    EXPECT_EQ(records[1].contains("gain_backward"), job.variant != "plain");
    EXPECT_TRUE(records[1].contains("grad_norm_decoder_01"));
  }
}

/// The same batches and the same weights where variants have them in common: the first loss is
/// nearly the same, and the same job twice gives the same numbers.
TEST_F(Ablate, VariantsDifferInTheirResidualOnly) {
  const AblationRecipe r = recipe();
  std::vector<double> first;
  for (int round = 0; round < 2; ++round)
    for (const AblationJob& job : ablation_jobs(r)) {
      if (job.depth != 2 || job.seed != 1) continue;
      run_ablation_job(r, job);
      first.push_back(
          read_metrics(r.out / "jobs" / job.id / "metrics.jsonl")[0]["loss"].get<double>());
    }
  ASSERT_EQ(first.size(), 6u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(first[i], first[0], 0.01);
    EXPECT_EQ(first[i], first[i + 3]);
  }
}

TEST_F(Ablate, TheCommandGoesOnWhereItWas) {
  const std::vector<std::string> arguments = {"ablate", file().string(), "--json"};
  const auto run = testing::run_lectern(arguments);
  ASSERT_EQ(run.status, 0) << run.errors;
  const json summary = json::parse(run.out);
  EXPECT_EQ(summary["jobs"], 12);
  EXPECT_EQ(summary["failed"], 0);
  const auto out = folder_.path() / "out";
  EXPECT_NE(read_file(out / "table.md").find("text, 2 layers"), std::string::npos);
  const std::string page = read_file(out / "report.html");
  for (const char* part : {"What was reproduced", "<svg", "Table 1", "-0.022", "3000", "54.3"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  EXPECT_EQ(page.find("src=\"http"), std::string::npos);

  // One result gone, one of other settings: two jobs run again.
  std::filesystem::remove(out / "jobs" / "text-d1-hc-s2" / "result.json");
  const auto other = out / "jobs" / "text-d2-mhc-s1" / "result.json";
  json changed = json::parse(read_file(other));
  changed["settings"] = "others";
  write_file(other, changed.dump());
  const auto again = testing::run_lectern(arguments);
  ASSERT_EQ(again.status, 0) << again.errors;
  EXPECT_NE(again.errors.find("2 of 12 jobs to run"), std::string::npos) << again.errors;
}

// `fetch` is a command line: with words of its own, and the folder after them.
TEST_F(Ablate, ResultsAreOfTheTextThatTheyWereMadeWith) {
  const AblationRecipe r = recipe();
  const AblationJob job = ablation_jobs(r)[0];
  const std::string before = job_settings(r, job);
  EXPECT_EQ(job_settings(r, job), before);
  write_file(folder_.path() / "text" / "a.txt",
             read_file(folder_.path() / "text" / "a.txt") + " one more word");
  const std::string changed = job_settings(r, job);
  EXPECT_NE(changed, before);
  write_file(folder_.path() / "text" / "b.txt", "another file");
  EXPECT_NE(job_settings(r, job), changed);
}

TEST_F(Ablate, FetchesWhatIsMissing) {
  const auto fresh = folder_.path() / "fresh";
  const auto run = testing::run_lectern(
      {"ablate", file().string(), "--set", "text.folder=" + fresh.string(), "--set",
       "text.fetch=cp -r " + (folder_.path() / "text").string(), "--set", "text.depths=[1]",
       "--set", "text.seeds=[1]", "--set", "text.variants=[\"plain\"]"});
  EXPECT_EQ(run.status, 0) << run.errors;
  EXPECT_TRUE(std::filesystem::exists(fresh / "a.txt"));
}

TEST_F(Ablate, TablesByHand) {
  const AblationRecipe r = recipe({"text.depths=[1]"});
  std::vector<json> results;
  const auto add = [&](const char* variant, int seed, double loss, double gain, double seconds) {
    for (const AblationJob& job : ablation_jobs(r))
      if (job.variant == variant && job.seed == seed)
        results.push_back({{"id", job.id},
                           {"settings", job_settings(r, job)},
                           {"loss", loss},
                           {"gain_forward", gain},
                           {"gain_backward", 1.0},
                           {"deviation", 0.1},
                           {"grad_norm_median", 2.0},
                           {"grad_norm_max", 6.0},
                           {"seconds_per_step", seconds},
                           {"peak_bytes", 100.0 * seconds},
                           {"diverged", false}});
  };
  add("plain", 1, 2.0, 1, 1.0);
  add("plain", 2, 2.4, 1, 1.0);
  add("mhc", 1, 1.9, 1.2, 1.5);
  add("mhc", 2, 2.2, 1.4, 1.3);
  results.push_back({{"id", "text-d1-hc-s1"}, {"settings", "others"}, {"loss", 0.0}});
  const auto tables = ablation_tables(r, results);
  ASSERT_EQ(tables.size(), 1u);
  ASSERT_EQ(tables[0].rows.size(), 2u);  // hc has no result of these settings
  const AblationRow& mhc = tables[0].rows[1];
  EXPECT_EQ(mhc.variant, "mhc");
  EXPECT_NEAR(mhc.loss.mean, 2.05, 1e-12);
  EXPECT_NEAR(mhc.loss.error, 0.15, 1e-12);  // sd 0.2121 over root 2
  EXPECT_NEAR(mhc.loss_gap.mean, -0.15, 1e-12);
  EXPECT_NEAR(mhc.loss_gap.error, 0.05, 1e-12);
  EXPECT_NEAR(mhc.gain_forward.mean, 1.3, 1e-12);
  EXPECT_NEAR(mhc.time_overhead.mean, 0.4, 1e-12);
  EXPECT_NEAR(mhc.grad_norm_ratio.mean, 3, 1e-12);
  const auto findings = ablation_findings(tables);
  ASSERT_EQ(findings.size(), 1u);  // only mHC against plain can be judged
  EXPECT_NE(findings[0].find("Reproduced. mHC"), std::string::npos) << findings[0];
}

/// A training ablation of a few steps a run: queries against visual tokens, or stages left out.
class AblateTraining : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& variants) const {
    const auto path = data_.folder() / "ablate.toml";
    write_file(path, fmt::format(R"(out = "{0}/out"
parallel = 2
[training]
title = "A title <of ours>"
about = "What is compared."
recipe = "{1}"
set = ["data.validation={2}"]
seeds = [1, 2]
steps = 3
curve_every = 2
curve_samples = 3
evaluation_samples = 6
{3})",
                                 data_.folder().string(), data_.recipe_file("run").string(),
                                 data_.shards().string(), variants));
    return path;
  }
  std::filesystem::path queries() const {
    return file(R"(baseline = "four"
[[training.variants]]
name = "raster"
label = "visual tokens"
set = ["model.decoder_reads=visual"]
[[training.variants]]
name = "four"
set = ["model.queries=4"]
[[training.variants]]
name = "one"
set = ["model.queries=1"]
)");
  }
  std::filesystem::path stages() const {
    return file(R"([[training.then]]
steps = 2
set = ["optimizer.learning_rate=1e-4"]
[[training.then]]
steps = 1
[[training.variants]]
name = "all"
label = "stages 1, 2, 3"
stages = [2, 3]
[[training.variants]]
name = "first"
label = "stage 1"
stages = [1, 1]
)");
  }
  json result(const std::string& id) const {
    return json::parse(read_file(data_.folder() / "out" / "jobs" / id / "result.json"));
  }

  testing::TinyData data_;
};

TEST_F(AblateTraining, QueriesAgainstVisualTokens) {
  const auto run = testing::run_lectern({"ablate", queries().string(), "--json"});
  ASSERT_EQ(run.status, 0) << run.errors;
  EXPECT_EQ(json::parse(run.out)["jobs"], 6);
  // A view of 32 pixels has 8 x 8 patches and so 2 x 2 visual tokens.
  EXPECT_EQ(result("raster-s1")["visual_tokens"], 4);
  EXPECT_EQ(result("raster-s1")["decoder_tokens"], 4);
  EXPECT_EQ(result("four-s1")["decoder_tokens"], 4);
  EXPECT_EQ(result("one-s2")["decoder_tokens"], 1);
  // Two query tables of 24 channels.
  EXPECT_EQ(
      result("four-s1")["parameters"].get<int>() - result("raster-s1")["parameters"].get<int>(),
      2 * 4 * 24);
  for (const char* id : {"raster-s1", "four-s2", "one-s1"}) {
    const json one = result(id);
    EXPECT_EQ(one["steps"], 3);
    EXPECT_EQ(one["held_out_samples"], 6);
    EXPECT_GT(one["loss"].get<double>(), 0);
    EXPECT_LT(one["loss"].get<double>(), std::log(288.0) + 0.5);
    EXPECT_GT(one["cer"].get<double>(), 0);
    double samples = 0;
    for (const json& group : one["lengths"]) samples += group["samples"].get<double>();
    EXPECT_EQ(samples, 6);
  }
  const auto out = data_.folder() / "out";
  const std::string table = read_file(out / "table.md"), page = read_file(out / "report.html");
  for (const char* part : {"# A title <of ours>", "| visual tokens | 2 | 4 | 1× |",
                           "| one | 2 | 1 | 4× |", "one against four: character error rate"})
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  for (const char* part : {"A title &lt;of ours&gt;", "by compression", "2510.18234", "over time"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  EXPECT_EQ(page.find("H_res"), std::string::npos);
  // Nothing is left to do, and no model lies about.
  const auto again = testing::run_lectern({"ablate", queries().string(), "--json"});
  EXPECT_NE(again.errors.find("0 of 6 jobs to run"), std::string::npos) << again.errors;
  EXPECT_FALSE(std::filesystem::exists(out / "jobs" / "one-s1" / "run0"));
  // Another model is another ablation.
  json config = testing::tiny_config();
  config["text_config"]["intermediate_size"] = 40;
  write_file(data_.config(), config.dump());
  const AblationRecipe changed = load_ablation(queries());
  EXPECT_NE(job_settings(changed, ablation_jobs(changed)[0]), result("raster-s1")["settings"]);
}

TEST_F(AblateTraining, StagesShareTheirFirstRun) {
  const AblationRecipe recipe = load_ablation(stages());
  const auto jobs = ablation_jobs(recipe);
  ASSERT_EQ(jobs.size(), 6u);
  EXPECT_EQ(jobs[0].id, "start-s1");
  EXPECT_EQ(jobs[1].id, "start-s2");
  EXPECT_EQ(jobs[2].id, "all-s1");
  // A variant that comes first makes the shared run, and the next one takes it as it is.
  run_ablation_job(recipe, jobs[2]);
  const auto start = data_.folder() / "out" / "starts" / "s1" / "metrics.jsonl";
  const auto made = std::filesystem::last_write_time(start);
  run_ablation_job(recipe, jobs[3]);
  EXPECT_EQ(std::filesystem::last_write_time(start), made);
  const auto metrics = [&](const char* id) {
    return read_metrics(data_.folder() / "out" / "jobs" / id / "metrics.jsonl");
  };
  std::vector<std::vector<double>> losses;
  for (const char* id : {"all-s1", "first-s1"}) {
    losses.emplace_back();
    double seconds = 0;
    for (const MetricFields& record : metrics(id)) {
      EXPECT_GE(record["train_seconds"].get<double>(), seconds);
      seconds = record["train_seconds"].get<double>();
      if (!record.contains("loss")) continue;
      losses.back().push_back(record["loss"].get<double>());
      EXPECT_EQ(record["step"], losses.back().size());
    }
    EXPECT_EQ(losses.back().size(), 6u);
    EXPECT_EQ(result(id)["steps"], 6);
    EXPECT_DOUBLE_EQ(result(id)["train_seconds"].get<double>(), seconds);
  }
  // Equal up to the first step of the second run, which is made with the same weights.
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(losses[0][i], losses[1][i]) << i;
  EXPECT_NE(losses[0][5], losses[1][5]);
  // With other settings the shared run is made anew.
  run_ablation_job(load_ablation(stages(), {"training.steps=4"}), jobs[0]);
  EXPECT_NE(std::filesystem::last_write_time(start), made);
}

TEST_F(AblateTraining, Errors) {
  const auto refused = [&](const std::string& variants,
                           std::initializer_list<std::string_view> parts) {
    return throws_with([&] { load_ablation(file(variants)); }, parts);
  };
  const std::string one = "[[training.variants]]\nname = \"a\"\n";
  EXPECT_TRUE(refused("", {"variants", "must have at least one, got none"}));
  EXPECT_TRUE(refused(one + one, {"must be unique, got \"a\" twice"}));
  EXPECT_TRUE(refused("baseline = \"b\"\n" + one, {"baseline", "must be the name of a variant"}));
  EXPECT_TRUE(refused("[[training.variants]]\nname = \"a/b\"\n", {"name", "got \"a/b\""}));
  EXPECT_TRUE(refused("[[training.then]]\nsteps = 1\n" + one,
                      {"stages", "one for each of the 1 runs", "got 0"}));
  EXPECT_TRUE(refused(one + "[text]\nsteps = 1\n", {"text", "must be left out with [training]"}));
}

TEST(AblateRecipe, TheRecipesOfTheRepository) {
  const auto folder = testing::source_folder() / "recipes";
  const AblationRecipe real = load_ablation(folder / "configs/ablations/residual.toml");
  EXPECT_EQ(real.text.depths, (std::vector<std::int64_t>{12, 24, 48}));
  EXPECT_GE(real.text.seeds.size(), 3u);
  EXPECT_EQ(ablation_jobs(load_ablation(folder / "configs/ablations/residual-smoke.toml")).size(),
            28u);
  // Every run's settings are those of a recipe that loads.
  const std::filesystem::path here = std::filesystem::current_path();
  std::filesystem::current_path(testing::source_folder());
  for (const auto& [name, count] : {std::pair{"queries", 12u}, {"stages", 15u}})
    for (const char* size : {"", "-smoke"}) {
      const AblationRecipe recipe =
          load_ablation(folder / fmt::format("configs/ablations/{}{}.toml", name, size));
      const auto jobs = ablation_jobs(recipe);
      if (*size == '\0') {
        EXPECT_EQ(jobs.size(), count);
        EXPECT_EQ(recipe.training.seeds.size(), 3u);
      }
      for (const AblationJob& job : jobs) EXPECT_NO_THROW(job_settings(recipe, job)) << job.id;
    }
  std::filesystem::current_path(here);
}

TEST(AblateRecipe, Errors) {
  const testing::TemporaryFolder folder;
  const auto refused = [&](const std::string& text, std::initializer_list<std::string_view> parts) {
    write_file(folder.path() / "a.toml", text);
    return throws_with([&] { load_ablation(folder.path() / "a.toml"); }, parts);
  };
  EXPECT_TRUE(refused("[text]\nsteps = 1\n[ocr]\nsteps = 1", {"out"}));
  EXPECT_TRUE(refused("out = \"o\"\n[text]\nsteps = 1\nvariants = [\"mhx\"]\n[ocr]\nsteps = 1",
                      {"unknown variant \"mhx\""}));
  EXPECT_TRUE(refused("out = \"o\"\n[text]\nsteps = 1\nheads = 3\n[ocr]\nsteps = 1",
                      {"must divide width = 64, got 3"}));
  EXPECT_TRUE(refused("out = \"o\"\n[text]\nenabled = false\nsteps = 1\n[ocr]\nenabled = false",
                      {"text.enabled or ocr.enabled must be true"}));
}

}  // namespace
}  // namespace lectern
