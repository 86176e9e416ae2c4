// `lectern data pairs`, and what it leaves on its way through train, eval and ocr.
#include "data/shards/shard_set.h"
#include "tests/recipes/spawn.h"
#include "tests/recipes/tiny_run.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Finished;
using testing::run_lectern;
using testing::TinyData;

/// Ten pictures with answers, in two forms, one of them with its own prompt, and a text.
fs::path write_own_pairs(const TinyData& data) {
  std::string text = "{\"text\": \"w1w2\"}\n";
  for (int i = 0; i < 10; ++i) {
    const std::string name = fmt::format("page{}.png", i);
    write_png(testing::synthetic_page("mine", i + 1, 1, 2).image, data.folder() / name);
    text += i % 2 == 0 ? fmt::format("{{\"image\": \"{}\", \"text\": \"w{}w{}\"}}\n", name, i, i)
                       : fmt::format(
                             "{{\"messages\": [{{\"role\": \"user\", \"content\": \"<image>p\"}}, "
                             "{{\"role\": \"assistant\", \"content\": \"w{}\"}}], \"images\": "
                             "[\"{}\"]}}\n",
                             i, name);
  }
  write_file(data.folder() / "mine.jsonl", text);
  return data.folder() / "mine.jsonl";
}

std::vector<std::string> pair_arguments(const TinyData& data, const fs::path& input,
                                        const std::vector<std::string>& more = {}) {
  std::vector<std::string> out = {"data",
                                  "pairs",
                                  input.string(),
                                  "--out",
                                  (data.folder() / "pairs").string(),
                                  "--checkpoint",
                                  data.folder().string()};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

TEST(DataPairsCommand, WhatItLeavesIsTrainedReadAndScored) {
  const TinyData data;
  const fs::path input = write_own_pairs(data), sheet = data.folder() / "sheet.png";
  const Finished made = run_lectern(
      pair_arguments(data, input, {"--split", "0.7", "--contact-sheet", sheet.string()}));
  ASSERT_EQ(made.status, 0) << made.errors;
  for (const char* part :
       {"JSON lines of 11 records (5 messages with a picture, 1 text alone, 5 text with a picture)",
        "11 kept", "split       by 10 documents"})
    EXPECT_NE(made.out.find(part), std::string::npos) << part << "\n" << made.out;
  EXPECT_GT(read_image(sheet).width, 100);
  const std::string shards = (data.folder() / "pairs").string();
  std::string init = data.config().string();
  for (const int stage : {2, 3}) {
    const std::string run = fmt::format("stage{}", stage);
    const Finished trained = run_lectern(
        {"train", data.recipe_file(run).string(), "--set", fmt::format("stage={}", stage), "--set",
         "steps=2", "--set", fmt::format("data.shards=[\"{}/train\"]", shards), "--set",
         fmt::format("data.validation=\"{}/validation\"", shards), "--set", "evaluation.samples=2",
         "--set", "evaluation.max_new_tokens=4"});
    ASSERT_EQ(trained.status, 0) << trained.errors;
    EXPECT_NE(testing::metrics_text(data, run).find("eval_cer"), std::string::npos);
    const std::string checkpoint = (data.folder() / run).string();
    const Finished scored = run_lectern({"eval", "--checkpoint", checkpoint, "--shards",
                                         shards + "/validation", "--max-tokens", "4", "--json"});
    ASSERT_EQ(scored.status, 0) << scored.errors;
    const json scores = json::parse(scored.out);
    EXPECT_EQ(scores["level"], "pair");
    EXPECT_TRUE(scores["cer"].is_number());
    const ShardSet held_out(shards + "/validation");
    std::int64_t pictures = 0;
    for (std::int64_t i = 0; i < held_out.pages(); ++i) pictures += held_out.size(i)[0] > 0;
    EXPECT_EQ(scores["pages"], pictures);
    const Finished read = run_lectern({"ocr", "--checkpoint", checkpoint, "--max-tokens", "4",
                                       (data.folder() / "page0.png").string()});
    EXPECT_EQ(read.status, 0) << read.errors;
  }
  const Finished words = run_lectern({"eval", "--checkpoint", (data.folder() / "stage2").string(),
                                      "--shards", shards + "/validation", "--level", "word"});
  EXPECT_EQ(words.status, 1);
  EXPECT_NE(words.errors.find("--level: must be left out"), std::string::npos) << words.errors;
}

TEST(DataPairsCommand, KilledItGoesOnAndGivesTheSameBytes) {
  const TinyData data;
  std::string text;
  for (int i = 0; i < 4000; ++i) text += fmt::format("{{\"text\": \"w{} w{}\"}}\n", i, i % 7);
  write_file(data.folder() / "in.jsonl", text);
  const auto arguments = pair_arguments(data, data.folder() / "in.jsonl",
                                        {"--records-per-shard", "64", "--split", "0.9"});
  const auto bytes = [&] {
    std::map<std::string, std::string> out;
    for (const auto& entry : fs::recursive_directory_iterator(data.folder() / "pairs"))
      if (entry.is_regular_file()) out[entry.path().string()] = read_file(entry.path());
    return out;
  };
  ASSERT_EQ(run_lectern(arguments).status, 0);
  const auto expected = bytes();
  fs::remove_all(data.folder() / "pairs");
  const fs::path partial = data.folder() / "pairs.partial";
  {
    testing::Child child(arguments);
    ASSERT_TRUE(testing::wait_until(
        child, [&] { return fs::exists(partial / "new/train/shard-00003.h5"); }));
    child.send(SIGKILL);
    EXPECT_EQ(child.wait(), -SIGKILL);
  }
  EXPECT_FALSE(fs::exists(data.folder() / "pairs"));
  const Finished resumed = run_lectern(arguments);
  ASSERT_EQ(resumed.status, 0) << resumed.errors;
  EXPECT_NE(resumed.out.find("went on after"), std::string::npos) << resumed.out;
  EXPECT_EQ(bytes(), expected);
  EXPECT_FALSE(fs::exists(partial));
}

TEST(DataPairsCommand, WhatIsMissingIsSaidInOneLine) {
  const TinyData data;
  const fs::path input = data.folder() / "in.jsonl";
  write_file(input, "{\"image\": \"page.png\", \"txt\": \"a\"}\n");
  const auto error = [&](const std::vector<std::string>& arguments) {
    const Finished done = run_lectern(arguments);
    EXPECT_EQ(done.status, 1);
    EXPECT_EQ(std::count(done.errors.begin(), done.errors.end(), '\n'), 1) << done.errors;
    return done.errors;
  };
  EXPECT_NE(error(pair_arguments(data, input)).find("unknown key \"txt\"; did you mean \"text\"?"),
            std::string::npos);
  EXPECT_NE(error({"data", "pairs", input.string(), "--out", (data.folder() / "p").string()})
                .find("needs --checkpoint"),
            std::string::npos);
}

}  // namespace
}  // namespace lectern
