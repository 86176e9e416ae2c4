// The program as its users meet it: exit statuses, one line on stderr, JSON on stdout.
#include "data/images/image.h"
#include "recipes/checkpoint/model_folder.h"
#include "tests/data/text_sample.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;
using testing::Finished;
using testing::run_lectern;
using testing::TinyData;

/// Exit status 1 and one line on stderr that has all of `parts`.
::testing::AssertionResult failed(const Finished& run, std::initializer_list<std::string> parts) {
  if (run.status != 1)
    return ::testing::AssertionFailure() << "status " << run.status << ": " << run.errors;
  if (std::count(run.errors.begin(), run.errors.end(), '\n') != 1 || run.errors.back() != '\n')
    return ::testing::AssertionFailure() << "not one line: " << run.errors;
  if (!run.errors.starts_with("lectern: "))
    return ::testing::AssertionFailure() << "no program name: " << run.errors;
  for (const std::string& part : parts)
    if (run.errors.find(part) == std::string::npos)
      return ::testing::AssertionFailure() << run.errors << "lacks " << part;
  return ::testing::AssertionSuccess();
}

json parsed(const Finished& run) {
  EXPECT_EQ(run.status, 0) << run.errors;
  const json out = json::parse(run.out, nullptr, false);
  EXPECT_FALSE(out.is_discarded()) << run.out;
  return out;
}

/// A model folder with random weights; words that it reads are nonsense.
std::filesystem::path tiny_checkpoint(const TinyData& data) {
  const auto folder = data.folder() / "model";
  std::filesystem::create_directories(folder);
  save_model(*testing::make_model(parse_model_config(testing::tiny_config(), "config"), 1), folder);
  testing::tiny_tokenizer().save(folder / "tokenizer.json");
  return folder;
}

std::filesystem::path picture(const TinyData& data) {
  const auto path = data.folder() / "page.png";
  write_png(testing::synthetic_page("doc", 1, 1, 2).image, path);
  return path;
}

TEST(Command, HelpSucceedsEverywhere) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"--help"},
                                             {"data", "pages", "--help"},
                                             {"data", "shards", "--help"},
                                             {"data", "synthetic", "--help"},
                                             {"tokenizer", "train", "--help"},
                                             {"tokenizer", "encode", "--help"},
                                             {"tokenizer", "decode", "--help"},
                                             {"train", "--help"},
                                             {"eval", "--help"},
                                             {"score", "--help"},
                                             {"ocr", "--help"},
                                             {"export", "--help"},
                                             {"parity", "--help"},
                                             {"bench", "step", "--help"},
                                             {"bench", "checkpoint", "--help"},
                                             {"bench", "generate", "--help"},
                                             {"bench", "write-weights", "--help"},
                                             {"bench", "bandwidth", "--help"},
                                             {"report", "--help"},
                                             {"info", "--help"}}) {
    const Finished run = run_lectern(words);
    EXPECT_EQ(run.status, 0) << words[0];
    EXPECT_NE(run.out.find("Usage"), std::string::npos) << run.out;
    EXPECT_EQ(run.errors, "");
  }
}

TEST(Command, BadUsageIsStatusTwo) {
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {},
           {"nonsense"},
           {"train"},
           {"info", "--colour"},
           {"export", "--checkpoint", "x", "--format", "gif", "--out", "y"},
           {"bench", "step", "--config", "x", "--stage", "4"},
           {"bench", "generate", "--config", "x", "--dtype", "fp8"},
           {"bench", "write-weights", "--config", "x"},
           {"ocr", "--checkpoint", "x", "--dtype", "int8", "y.png"},
           {"ocr", "--checkpoint", "x", "--dpi", "1", "y.png"}}) {
    const Finished run = run_lectern(words);
    EXPECT_EQ(run.status, 2) << run.errors;
    EXPECT_FALSE(run.errors.empty());
    EXPECT_EQ(run.out, "");
  }
}

TEST(Command, FailureIsOneLine) {
  const TinyData data;
  const std::string model = tiny_checkpoint(data).string(), page = picture(data).string();
  EXPECT_TRUE(failed(run_lectern({"train", "/nowhere/r.toml"}), {"/nowhere/r.toml"}));
  EXPECT_TRUE(failed(run_lectern({"train", data.recipe_file("r").string(), "--set", "stepps=3"}),
                     {"stepps", "did you mean `steps`?"}));
  EXPECT_TRUE(failed(run_lectern({"parity", "/nowhere"}), {"/nowhere/case.json"}));
  EXPECT_TRUE(failed(run_lectern({"ocr", "--checkpoint", "/nowhere", page}), {"/nowhere"}));
  EXPECT_TRUE(
      failed(run_lectern({"ocr", "--checkpoint", model, "/nowhere.png"}), {"/nowhere.png"}));
  EXPECT_TRUE(failed(run_lectern({"ocr", "--checkpoint", model, "--prompt", "two\nlines", page}),
                     {"prompt: must begin with its only <image>"}));
  EXPECT_TRUE(
      failed(run_lectern({"eval", "--checkpoint", model, "--shards", "/nowhere"}), {"/nowhere"}));
  EXPECT_TRUE(failed(run_lectern({"export", "--checkpoint", model, "--format", "hf", "--out",
                                  (data.folder() / "out").string()}),
                     {"query tables of 144 and 256 rows only"}));
  EXPECT_TRUE(
      failed(run_lectern({"bench", "step", "--config", "/nowhere.json"}), {"/nowhere.json"}));
  EXPECT_TRUE(
      failed(run_lectern({"score", "--pred", "/nowhere", "--gt", "/nowhere"}), {"/nowhere"}));
  EXPECT_TRUE(failed(run_lectern({"report", "--quickstart", "/nowhere", "--out",
                                  (data.folder() / "r.html").string()}),
                     {"/nowhere"}));
}

TEST(Command, DamagedFilesAreOneLineToo) {
  const TinyData data;
  const auto model = tiny_checkpoint(data);
  const std::string page = picture(data).string();
  const auto damaged = [&](const std::filesystem::path& file, const std::string& text) {
    const std::string whole = read_file(file);
    write_file(file, text);
    const Finished run = run_lectern({"ocr", "--checkpoint", model.string(), page});
    write_file(file, whole);
    return run;
  };
  const std::string png = read_file(page);
  EXPECT_TRUE(failed(damaged(page, png.substr(0, png.size() / 2)), {"page.png"}));
  EXPECT_TRUE(failed(damaged(page, "not a picture"), {"page.png"}));
  EXPECT_TRUE(failed(damaged(model / "config.json", "{"), {"config.json", "not valid JSON"}));
  EXPECT_TRUE(failed(damaged(model / "tokenizer.json", "{}"), {"tokenizer.json"}));
  const auto weights = model / "model-00001-of-00001.safetensors";
  const std::string bytes = read_file(weights);
  EXPECT_TRUE(failed(damaged(weights, bytes.substr(0, bytes.size() - 100)),
                     {"model-00001-of-00001.safetensors"}));
  EXPECT_EQ(run_lectern({"ocr", "--checkpoint", model.string(), "--max-tokens", "4", page}).status,
            0);
}

TEST(Command, LostOutputIsNoSuccess) {
  const std::string command = testing::lectern_binary() + " info > /dev/full 2>/dev/null";
  EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1);
}

TEST(Command, Info) {
  const json info = parsed(run_lectern({"info", "--json"}));
  for (const char* field :
       {"lectern", "git_revision", "devices", "ranks", "cpu", "cpu_features", "libraries"})
    EXPECT_TRUE(info.contains(field)) << field;
  EXPECT_EQ(info["devices"], json::array({"cpu"}));
  EXPECT_TRUE(info["libraries"].contains("HDF5"));
  EXPECT_NE(run_lectern({"info"}).out.find("libraries"), std::string::npos);
}

TEST(Command, DataSynthetic) {
  const TinyData data;
  const auto text = data.folder() / "text.txt", out = data.folder() / "drawn",
             sheet = data.folder() / "sheet.png";
  write_file(text, testing::kEnglish);
  const json report =
      parsed(run_lectern({"data", "synthetic", "--text", text.string(), "--level", "region",
                          "--count", "6", "--out", out.string(), "--contact-sheet", sheet.string(),
                          "--columns", "3", "--view", "96", "--json"}));
  EXPECT_EQ(report["count"], 6);
  EXPECT_GT(report["faces"], 8);
  EXPECT_EQ(report["words_dropped"], 0);
  EXPECT_EQ(read_image(out / "region-000005.png").width, 96);
  EXPECT_NE(read_file(out / "region-000005.txt").find('\n'), std::string::npos);
  EXPECT_EQ(read_image(sheet).width, 3 * (96 + 6) + 6);
  EXPECT_TRUE(
      failed(run_lectern({"data", "synthetic", "--text", text.string(), "--fonts", "No Font"}),
             {"fonts must be installed", "No Font"}));
  EXPECT_TRUE(failed(run_lectern({"data", "synthetic", "--text", "/nowhere"}), {"/nowhere"}));
  EXPECT_TRUE(failed(run_lectern({"data", "synthetic", "--text", text.string(), "--level", "leaf"}),
                     {"level must be", "\"leaf\""}));
}

TEST(Command, Parity) {
  for (const char* name : {"preprocess", "tokenizer/gpt2"}) {
    const json report = parsed(run_lectern({"parity", testing::fixture(name).string(), "--json"}));
    EXPECT_EQ(report["passed"], true);
    EXPECT_FALSE(report["rows"].empty());
    for (const char* field : {"what", "difference", "bound", "passed"})
      EXPECT_TRUE(report["rows"][0].contains(field));
  }
  const TinyData data;
  write_file(data.folder() / "case.json", R"({"kind": "other"})");
  EXPECT_TRUE(failed(run_lectern({"parity", data.folder().string()}),
                     {"case.json", "kind must be", "\"other\""}));
}

TEST(Command, TokenizerLines) {
  const TinyData data;
  const std::vector<std::string> words = {"tokenizer", "encode", "--tokenizer",
                                          data.tokenizer().string()};
  const Finished encoded = run_lectern(words, "\"p1w0\"\n\"\"\n");
  EXPECT_EQ(encoded.status, 0);
  const auto ids = testing::tiny_tokenizer().encode("p1w0");
  EXPECT_EQ(encoded.out, json(ids).dump() + "\n[]\n");
  const Finished decoded =
      run_lectern({"tokenizer", "decode", "--tokenizer", data.tokenizer().string()}, encoded.out);
  EXPECT_EQ(decoded.out, "\"p1w0\"\n\"\"\n");
}

TEST(Command, BenchStep) {
  const TinyData data;
  json config = testing::tiny_config(144, 256);
  config["vision_config"]["sam_config"].update(
      {{"patch_size", 16}, {"image_size", 1024}, {"hidden_size", 8}, {"window_size", 14}});
  write_file(data.config(), config.dump());
  for (const char* stage : {"1", "3"}) {
    const Finished run = run_lectern({"bench", "step", "--config", data.config().string(),
                                      "--batch", "1", "--crops", "0", "--text", "8", "--steps", "1",
                                      "--threads", "1", "--dtype", "fp32", "--stage", stage});
    const json line = parsed(run);
    EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 1);
    for (const char* field :
         {"peer", "variant", "stage", "threads", "batch", "crops", "text", "parameters",
          "seconds_min", "seconds_median", "peak_bytes", "loss_first", "loss_last"})
      EXPECT_TRUE(line.contains(field)) << field;
    EXPECT_EQ(line["parameters"].get<double>(),
              parse_model_config(config, "config")->parameter_count());
    EXPECT_GT(line["seconds_min"].get<double>(), 0.0);
    EXPECT_LT(line["loss_last"].get<double>(), line["loss_first"].get<double>());
  }
  // The same model in bf16, from the encoder cache, with a profile that accounts for the whole
  // step.
  const std::vector<std::string> common = {"bench",   "step", "--config",  data.config().string(),
                                           "--crops", "0",    "--text",    "8",
                                           "--steps", "1",    "--threads", "1"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    return run_lectern(more);
  };
  const Finished run = with({"--dtype", "bf16", "--stage", "3", "--encoder-cache", "--profile"});
  ASSERT_EQ(run.status, 0) << run.errors;
  EXPECT_NE(run.out.find("| forward linear |"), run.out.npos);
  EXPECT_NE(run.out.find("| linear grad_weight |"), run.out.npos);
  const json line = json::parse(run.out.substr(run.out.rfind("\n{") + 1));
  EXPECT_EQ(line["variant"], "bf16");
  EXPECT_EQ(line["encoder_cache"], true);
  double share = 0;
  for (const auto& mark : line["profile"]["marks"]) share += mark["share"].get<double>();
  EXPECT_NEAR(share, 1.0, 1e-6);
  EXPECT_TRUE(failed(with({"--stage", "1", "--encoder-cache"}),
                     {"--stage must be 3 with --encoder-cache", "got 1"}));
}

TEST(Command, BenchCheckpoint) {
  const TinyData data;
  json config = testing::tiny_config(144, 256);
  config["vision_config"]["sam_config"].update(
      {{"patch_size", 16}, {"image_size", 1024}, {"hidden_size", 8}, {"window_size", 14}});
  write_file(data.config(), config.dump());
  const json line = parsed(
      run_lectern({"bench", "checkpoint", "--config", data.config().string(), "--out",
                   data.folder().string(), "--text", "8", "--steps", "1", "--threads", "1"}));
  EXPECT_EQ(line["steps_without"].size(), 1u);
  EXPECT_GE(line["steps_meanwhile"].size(), 2u);  // one until it is written, one until it is there
  for (const char* field :
       {"step_seconds", "stalled_seconds", "stalled_share", "complete_seconds", "at_once_seconds"})
    EXPECT_GT(line[field].get<double>(), 0.0) << field;
  // Weights and two moments of each, and little else.
  const double weights = 4 * line["parameters"].get<double>();
  EXPECT_GT(line["checkpoint_bytes"].get<double>(), 3 * weights);
  for (const auto& entry : std::filesystem::directory_iterator(data.folder()))
    EXPECT_FALSE(entry.path().filename().string().starts_with("lectern-bench-"));
  EXPECT_EQ(run_lectern({"bench", "checkpoint", "--config", data.config().string()}).status, 2);
}

TEST(Command, BenchGenerateReadsTheWeightsThatItWrote) {
  const TinyData data;
  json config = testing::tiny_config(144, 256);
  config["vision_config"]["sam_config"].update(
      {{"patch_size", 16}, {"image_size", 1024}, {"hidden_size", 8}, {"window_size", 14}});
  write_file(data.config(), config.dump());
  const std::string weights = (data.folder() / "weights").string();
  const json written = parsed(run_lectern(
      {"bench", "write-weights", "--config", data.config().string(), "--out", weights}));
  const double parameters = parse_model_config(config, "config")->parameter_count();
  EXPECT_EQ(written["parameters"].get<double>(), parameters);
  EXPECT_GT(written["bytes"].get<double>(), 2 * parameters);
  for (const std::vector<std::string>& more :
       std::vector<std::vector<std::string>>{{"--checkpoint", weights, "--dtype", "bf16"},
                                             {"--checkpoint", weights, "--dtype", "fp32"},
                                             {"--batch", "2", "--crops", "1"}}) {
    std::vector<std::string> words = {"bench",    "generate", "--config",  data.config().string(),
                                      "--tokens", "2",        "--threads", "1"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished run = run_lectern(words);
    const json line = parsed(run);
    EXPECT_EQ(std::count(run.out.begin(), run.out.end(), '\n'), 1);
    for (const char* field : {"peer", "dtype", "threads", "batch", "crops", "parameters",
                              "seconds_to_first_token", "tokens_per_second", "peak_bytes"})
      EXPECT_TRUE(line.contains(field)) << field;
    EXPECT_EQ(line["parameters"].get<double>(), parameters);
    EXPECT_GT(line["tokens_per_second"].get<double>(), 0.0);
    const bool is_mapped = more[0] == "--checkpoint" && more[3] == "bf16";
    EXPECT_EQ(line["mapped_tensors"].get<int>() > 0, is_mapped) << run.out;
  }
  EXPECT_TRUE(failed(run_lectern({"bench", "generate", "--config", data.config().string(),
                                  "--checkpoint", data.folder().string()}),
                     {data.folder().string(), "must have model.safetensors", "got neither"}));
}

TEST(Command, OcrReadsPicturesAndPagesOfSeveralFiles) {
  const TinyData data;
  const std::string model = tiny_checkpoint(data).string(), page = picture(data).string();
  const std::vector<std::string> common = {"ocr", "--checkpoint", model, "--max-tokens",
                                           "6",   "--threads",    "1"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), common.begin(), common.end());
    return run_lectern(more);
  };
  const Finished text = with({page});
  EXPECT_EQ(text.status, 0) << text.errors;
  const json read = parsed(with({"--json", page, page}));
  ASSERT_EQ(read.size(), 2u);
  EXPECT_EQ(read[0]["file"], page);
  EXPECT_EQ(read[0], read[1]);
  ASSERT_EQ(read[0]["pages"].size(), 1u);
  EXPECT_EQ(text.out, read[0]["pages"][0].get<std::string>() + "\n");
  EXPECT_NE(text.errors.find("tokens/s"), std::string::npos) << text.errors;
  const json half = parsed(with({"--json", "--dtype", "bf16", page}));
  EXPECT_EQ(half[0]["pages"].size(), 1u);
  const auto out = data.folder() / "out";
  const Finished written = with({"--out", out.string(), page});
  EXPECT_EQ(written.status, 0);
  EXPECT_EQ(written.out, "");
  EXPECT_EQ(read_file(out / "page.md"), text.out);
  EXPECT_TRUE(failed(with({"--out", out.string(), page, page}), {"would both become", "page.md"}));
}

/// A file that cannot be read is reported in its place; the others are read as without it, whoever
/// shares a batch with them.
TEST(Command, OcrReadsOnPastADamagedFile) {
  const TinyData data;
  const std::string model = tiny_checkpoint(data).string();
  std::vector<std::string> files;
  for (int i = 0; i < 5; ++i) {
    files.push_back((data.folder() / fmt::format("{}.png", i)).string());
    write_png(testing::synthetic_page("d", i, 1, 2).image, files.back());
  }
  write_file(files[1], "no picture");
  write_file(files[3], read_file(files[2]).substr(0, 60));
  const auto ocr = [&](std::vector<std::string> more) {
    more.insert(more.begin(),
                {"ocr", "--checkpoint", model, "--max-tokens", "9", "--threads", "1"});
    return run_lectern(more);
  };
  std::map<std::string, json> alone;
  for (const std::string& file : {files[0], files[2], files[4]})
    alone[file] = parsed(ocr({"--json", file}))[0];
  for (const char* slots : {"1", "2", "3", "8"}) {
    std::vector<std::string> more = {"--json", "--slots", slots};
    more.insert(more.end(), files.begin(), files.end());
    const Finished run = ocr(more);
    EXPECT_EQ(run.status, 1);
    const json got = json::parse(run.out);
    ASSERT_EQ(got.size(), files.size());
    for (const std::size_t i : {0, 2, 4}) EXPECT_EQ(got[i], alone[files[i]]) << slots;
    for (const std::size_t i : {1, 3}) {
      EXPECT_EQ(got[i]["file"], files[i]);
      EXPECT_NE(got[i]["error"].get<std::string>().find(files[i]), std::string::npos) << run.out;
      EXPECT_NE(run.errors.find(files[i]), std::string::npos) << run.errors;
    }
  }
  const auto out = data.folder() / "out";
  EXPECT_EQ(ocr({"--out", out.string(), files[0], files[1], files[2]}).status, 1);
  EXPECT_EQ(read_file(out / "2.md"), alone[files[2]]["pages"][0].get<std::string>() + "\n");
  EXPECT_FALSE(std::filesystem::exists(out / "1.md"));
}

TEST(Command, TrainThenEvalThenExport) {
  const TinyData data;
  write_file(data.config(), testing::tiny_config(144, 256).dump());
  const std::string run = (data.folder() / "run").string();
  const json trained = parsed(
      run_lectern({"train", data.recipe_file("run").string(), "--set", "steps=2", "--json"}));
  for (const char* field :
       {"stage", "steps", "loss_first", "loss_last", "seconds", "samples_per_second", "checkpoint"})
    EXPECT_TRUE(trained.contains(field)) << field;
  EXPECT_EQ(trained["steps"], 2);
  const json scores =
      parsed(run_lectern({"eval", "--checkpoint", run, "--shards", data.shards().string(),
                          "--level", "word", "--samples", "3", "--max-tokens", "4", "--out",
                          (data.folder() / "eval").string(), "--json"}));
  // The run's config.toml names the shards.
  EXPECT_NE(read_file(data.folder() / "eval/report.html").find("trained on these shards"),
            std::string::npos);
  for (const char* field : {"cer", "edit_distance", "f1", "repetition_rate"})
    EXPECT_TRUE(scores.contains(field)) << field;
  // What eval wrote is what score reads.
  const json again = parsed(run_lectern({"score", "--pred", (data.folder() / "eval/pred").string(),
                                         "--gt", (data.folder() / "eval/gt").string(), "--json"}));
  EXPECT_EQ(again["cer"], scores["cer"]);
  for (const char* format : {"hf", "original"}) {
    const json report = parsed(run_lectern({"export", "--checkpoint", run, "--format", format,
                                            "--out", (data.folder() / format).string(), "--json"}));
    EXPECT_EQ(report["format"], format);
    EXPECT_GT(report["tensors"], 50);
    EXPECT_EQ(run_lectern({"ocr", "--checkpoint", (data.folder() / format).string(), "--max-tokens",
                           "2", picture(data).string()})
                  .status,
              0);
  }
}

}  // namespace
}  // namespace lectern
