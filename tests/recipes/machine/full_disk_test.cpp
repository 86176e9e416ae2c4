// A disk that is full at any point of what each command writes: the command says which file and
// why, what was there before is there still, and nothing stands half-written under its final name.
#include "data/images/image.h"
#include "recipes/checkpoint/folder.h"
#include "recipes/checkpoint/model_folder.h"
#include "recipes/log/metrics.h"
#include "tests/data/test_pdf.h"
#include "tests/distributed/mpirun.h"
#include "tests/nn/tiny_model.h"
#include "tests/recipes/machine/small_disk.h"
#include "tests/recipes/tiny_run.h"

#include <functional>
#include <set>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::Child;
using testing::Finished;
using testing::first_difference;
using testing::set;
using testing::SmallDisk;
using testing::tensors_of;
using testing::TinyData;
using testing::told;

using Words = std::vector<std::string>;
using Files = std::map<std::string, std::string>;

constexpr std::string_view kNoSpace = "No space left on device";

class FullDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!disk_.why_not().empty()) GTEST_SKIP() << disk_.why_not();
  }

  std::string at(const std::string& name) const { return (disk_.path() / name).string(); }
  std::string input(const std::string& name) const { return (data_.folder() / name).string(); }

  Finished run(const Words& words, const Words& launcher = {}) const {
    Child child(words, "", launcher);
    const int status = child.wait();
    return {status, child.out(), child.errors()};
  }
  void succeed(const Words& words) const {
    const Finished done = run(words);
    ASSERT_EQ(done.status, 0) << done.errors;
  }

  /// Bytes to leave on the disk, from none to more than `need`, in so many steps (each page of 4096
  /// bytes in the long form).
  static std::vector<std::size_t> amounts(std::size_t need, std::size_t steps = 7) {
    constexpr std::size_t kPage = 4096;
    const std::size_t pages = need / kPage + 2;
    const std::size_t stride = testing::is_long() ? 1 : std::max<std::size_t>(1, pages / steps);
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i <= pages; i += stride) out.push_back(i * kPage);
    return out;
  }

  /// Runs `words` on a disk with ever more room, each time from what `before` leaves there, until
  /// it succeeds. When it fails, every file must be as before or, with `one_by_one`, as it is after
  /// a success.
  void sweep(const Words& words, const std::function<void()>& before, bool one_by_one = false) {
    before();
    const Files old = disk_.files();
    const std::size_t room = disk_.free_bytes();
    succeed(words);
    const Files done = disk_.files();
    ASSERT_NE(old, done);
    const std::size_t need = room - std::min(room, disk_.free_bytes());
    std::size_t failures = 0;
    bool is_done = false;
    for (const std::size_t bytes : amounts(2 * need + (std::size_t{64} << 10))) {
      disk_.clear();
      before();
      disk_.leave(bytes);
      const Finished full = run(words);
      disk_.give_back();
      if (full.status == 0) {
        EXPECT_EQ(changed(disk_.files(), done, {}), "") << words[0] << ", " << bytes << " bytes";
        is_done = true;
        break;
      }
      ++failures;
      EXPECT_TRUE(told(full, kNoSpace)) << words[0] << ", " << bytes << " bytes";
      EXPECT_NE(full.errors.find(disk_.path().string()), std::string::npos) << full.errors;
      EXPECT_EQ(changed(disk_.files(), old, one_by_one ? done : Files{}), "")
          << words[0] << ", " << bytes << " bytes";
    }
    EXPECT_GT(failures, 0u) << words[0];
    EXPECT_TRUE(is_done) << words[0];
  }

  /// The first file that is neither as in `old` nor as in `also`, or that is missing; "" if none.
  static std::string changed(const Files& now, const Files& old, const Files& also) {
    for (const auto& [name, bytes] : now) {
      const auto was = old.find(name), other = also.find(name);
      if ((was == old.end() || was->second != bytes) &&
          (other == also.end() || other->second != bytes))
        return fmt::format("{} ({} bytes)", name, bytes.size());
    }
    for (const auto& [name, bytes] : old)
      if (!now.contains(name)) return name + " is missing";
    return "";
  }

  fs::path model() const {
    const auto folder = data_.folder() / "model";
    fs::create_directories(folder);
    save_model(
        *testing::make_model(parse_model_config(testing::tiny_config(144, 256), "config"), 1),
        folder);
    testing::tiny_tokenizer().save(folder / "tokenizer.json");
    return folder;
  }
  std::string pdf(const std::string& name) const {
    return testing::write_bytes(data_.folder() / name,
                                testing::make_pdf({{testing::pdf_paragraph(name, 12)},
                                                   {testing::pdf_paragraph("more", 20)}}))
        .string();
  }

  TinyData data_;
  SmallDisk disk_;
};

TEST_F(FullDisk, PagesOfDocuments) {
  const std::string first = pdf("a.pdf"), second = pdf("b.pdf"), out = at("pages");
  const Words words = {"data", "pages", "--dpi", "40", "--jobs", "1", "--out", out, "--pdf"};
  const auto with = [&](const std::string& file) {
    Words all = words;
    all.push_back(file);
    return all;
  };
  sweep(
      with(second), [&] { succeed(with(first)); }, true);
}

TEST_F(FullDisk, ShardsOfPages) {
  succeed({"data", "pages", "--dpi", "40", "--out", input("pages"), "--pdf", pdf("a.pdf")});
  const auto words = [&](const char* seed) {
    return Words{"data",        "shards",
                 "--pages",     input("pages"),
                 "--tokenizer", data_.tokenizer(),
                 "--out",       at("shards"),
                 "--seed",      seed};
  };
  sweep(words("1"), [] {});
  disk_.clear();
  sweep(words("2"), [&] { succeed(words("1")); });
}

TEST_F(FullDisk, TokenizersScoresAndDrawnSamples) {
  write_file(input("words.txt"), "low lower lowest new newer newest wide wider widest\n");
  sweep(
      {"tokenizer", "train", "--text", input("words.txt"), "--vocab", "290", "--out", at("t.json")},
      [&] { write_file(at("t.json"), "{}"); });
  disk_.clear();
  sweep(
      {"data", "synthetic", "--text", input("words.txt"), "--count", "6", "--out", at("drawn"),
       "--contact-sheet", at("sheet.png")},
      [&] { write_file(at("sheet.png"), "before"); }, true);
  disk_.clear();
  fs::create_directories(input("texts"));
  for (int i = 0; i < 200; ++i) write_file(input(fmt::format("texts/{}.txt", i)), "some words");
  sweep({"score", "--pred", input("texts"), "--gt", input("texts"), "--out", at("scores.json")},
        [&] { write_file(at("scores.json"), "{}"); });
}

TEST_F(FullDisk, Evaluations) {
  const Words words = {"eval",    "--checkpoint", model(),     "--shards",   data_.shards(),
                       "--level", "word",         "--samples", "6",          "--max-tokens",
                       "2",       "--out",        at("eval"),  "--overwrite"};
  // Scores hold times, so that two successes differ: the folder is there as a whole or as before.
  const auto names = [&] {
    std::set<std::string> out;
    for (const auto& [name, bytes] : disk_.files()) out.insert(name);
    return out;
  };
  succeed(words);
  const auto whole = names();
  std::size_t failures = 0;
  for (const bool again : {false, true})
    for (const std::size_t bytes : amounts(std::size_t{160} << 10)) {
      disk_.clear();
      if (again) succeed(words);
      const Files old = disk_.files();
      disk_.leave(bytes);
      const Finished full = run(words);
      disk_.give_back();
      if (full.status == 0) {
        EXPECT_EQ(names(), whole);
        continue;
      }
      ++failures;
      EXPECT_TRUE(told(full, kNoSpace)) << bytes;
      EXPECT_EQ(changed(disk_.files(), old, {}), "") << bytes;
    }
  EXPECT_GT(failures, 6u);
}

TEST_F(FullDisk, ExportedModels) {
  const std::string from = model();
  for (const char* format : {"hf", "original", "lectern"}) {
    disk_.clear();
    sweep({"export", "--checkpoint", from, "--format", format, "--out", at(format)}, [] {});
  }
}

TEST_F(FullDisk, TextThatWasReadGoesToStdout) {
  const auto image = testing::synthetic_page("doc", 1, 1, 2).image;
  Words words = {"ocr", "--checkpoint", model(), "--max-tokens", "2", "--out", at("out")};
  for (const char* name : {"a.png", "b.png"}) {
    write_png(image, input(name));
    words.push_back(input(name));
  }
  disk_.leave(0);
  const Finished full = run(words);
  EXPECT_EQ(full.status, 1);
  EXPECT_NE(full.errors.find(std::string(kNoSpace)), std::string::npos) << full.errors;
  disk_.give_back();
  for (const auto& [name, bytes] : disk_.files()) EXPECT_EQ(bytes, "") << name;
  fs::create_directories(at("out"));
  disk_.leave(4096);  // a text, or the names of both
  const Finished tight = run(words);
  EXPECT_EQ(tight.status, 1);
  disk_.give_back();
  for (const auto& [name, bytes] : disk_.files())
    EXPECT_TRUE(name == "out/a.md" || name == "out/b.md") << name;
}

TEST_F(FullDisk, ATemporaryFolderForUnpackedDocuments) {
  const std::string name = pdf("a.pdf");
  ASSERT_EQ(std::system(fmt::format("gzip -kf {}", name).c_str()), 0);
  // Another document can be read: the first would be left out, and the status would say success.
  const Words words = {"data",         "pages", "--dpi",      "40",    "--out",
                       input("pages"), "--pdf", name + ".gz", "--pdf", pdf("b.pdf")};
  disk_.leave(0);
  const Finished full = run(words, {"env", "TMPDIR=" + disk_.path().string()});
  EXPECT_TRUE(told(full, kNoSpace));
  EXPECT_TRUE(told(full, disk_.path().string()));
}

/// Training whose run folder is on the disk.
class FullDiskTraining : public FullDisk {
 protected:
  Words train(const std::string& run_dir, const Words& more) const {
    Words out = {"train", data_.recipe_file("run").string(), "--set", set("run_dir", run_dir)};
    for (const std::string& text : more) {
      out.emplace_back("--set");
      out.push_back(text);
    }
    return out;
  }
  static Words resuming(Words words) {
    words.emplace_back("--resume");
    return words;
  }

  /// Everything in the run folder can be read, and no temporary name is left.
  void expect_whole(const fs::path& run_dir) {
    for (const auto& entry : fs::recursive_directory_iterator(run_dir)) {
      const std::string name = entry.path().filename().string();
      EXPECT_FALSE(name.starts_with(".") || name.ends_with(".tmp")) << entry.path();
    }
    for (const auto& entry : fs::directory_iterator(run_dir / "checkpoints"))
      EXPECT_EQ(find_damage(entry.path(), CheckedFiles::all), "") << entry.path();
  }
};

TEST_F(FullDiskTraining, ARunGoesOnOnceThereIsRoom) {
  const Words settings = {"checkpoint.every=2", "log.tensorboard=true", "evaluation.every=2",
                          "evaluation.samples=2"};
  succeed(train(at("whole"), settings));
  const std::string metrics = read_file(at("whole") + "/metrics.jsonl");
  const auto weights = tensors_of(at("whole") + "/checkpoints/" + checkpoint_name(4));
  std::size_t need = 0;
  for (const auto& [name, bytes] : disk_.files()) need += (bytes.size() + 4095) / 4096 * 4096;
  std::size_t failures = 0;
  for (const bool asynchronous : {true, false}) {
    Words words = train(at("run"), settings);
    words.insert(words.end(), {"--set", fmt::format("checkpoint.asynchronous={}", asynchronous)});
    for (const std::size_t bytes : amounts(need, 12)) {
      disk_.clear();
      disk_.leave(bytes);
      const Finished full = run(words);
      disk_.give_back();
      if (full.status != 0) {
        ++failures;
        EXPECT_TRUE(told(full, kNoSpace)) << bytes;
        EXPECT_NE(full.errors.find(at("run")), std::string::npos) << full.errors;
        expect_whole(at("run"));
        const Finished rest = run(resuming(words));
        ASSERT_EQ(rest.status, 0) << bytes << ": " << full.errors << rest.errors;
      }
      EXPECT_EQ(read_file(at("run") + "/metrics.jsonl"), metrics) << bytes;
      EXPECT_EQ(
          first_difference(tensors_of(at("run") + "/checkpoints/" + checkpoint_name(4)), weights),
          "")
          << bytes;
    }
  }
  EXPECT_GT(failures, 12u);
}

TEST_F(FullDiskTraining, AnEncoderCacheThatDoesNotFitChangesNothing) {
  const auto words = [&](const std::string& run, const Words& more) {
    Words all = more;
    all.insert(all.end(),
               {"stage=3", "steps=8", "data.level=page", "view.crop=true", "batch.micro_batch=4"});
    return train(input(run), all);
  };
  succeed(words("off", {"encoder_cache.enabled=false"}));
  const std::string metrics = read_file(input("off") + "/metrics.jsonl");
  std::set<std::string> said;
  for (int pages = 0; pages <= 6; ++pages) {
    disk_.clear();
    fs::create_directories(at("cache"));
    disk_.leave(static_cast<std::size_t>(pages) * 4096);
    for (const char* time : {"first", "again"}) {
      const std::string name = fmt::format("{}-{}", pages, time);
      const Words all = words(name, {set("encoder_cache.dir", at("cache"))});
      const Finished full = run(all);
      if (full.status != 0) {
        EXPECT_TRUE(told(full, kNoSpace)) << pages;
        EXPECT_TRUE(told(full, "cache")) << pages;
        said.insert("refused");
        continue;
      }
      EXPECT_EQ(read_file(input(name) + "/metrics.jsonl"), metrics) << name;
      if (full.errors.find(std::string(kNoSpace)) != std::string::npos)
        said.insert("warned");
      else
        said.insert("kept");
      disk_.give_back();  // there is room, the second time
    }
  }
  EXPECT_TRUE(said.contains("warned"));
  EXPECT_TRUE(said.contains("kept"));
}

TEST_F(FullDiskTraining, ATraceThatDoesNotFit) {
  Words words = train(at("run"), {"steps=8", "checkpoint.every=0"});
  words.emplace_back("--profile");
  disk_.leave(40 * 4096);
  const Finished full = run(words);
  if (full.status != 0) {
    EXPECT_TRUE(told(full, kNoSpace));
  }
  disk_.give_back();
  if (fs::exists(at("run") + "/trace.json"))
    parse_json(read_file(at("run") + "/trace.json"), "trace.json");
}

}  // namespace
}  // namespace lectern
