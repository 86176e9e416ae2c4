// Memory that the system refuses, at any point of a command: one line and status 1, never a crash.
#include "data/images/image.h"
#include "tests/data/test_pdf.h"
#include "tests/distributed/mpirun.h"
#include "tests/recipes/machine/small_disk.h"
#include "tests/recipes/read/piece_model.h"
#include "tests/recipes/tiny_run.h"

#include <functional>

namespace lectern {
namespace {

using testing::Child;
using testing::Finished;
using testing::run_lectern;
using testing::set;
using testing::TinyData;

using Words = std::vector<std::string>;

class MemoryRefused : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers reserve address space of their own";
#endif
  }

  static Finished under(std::int64_t kib, const Words& words) {
    Child child(words, "",
                {"sh", "-c", fmt::format("ulimit -v {} && exec \"$@\"", kib), "sh", "env",
                 "OMP_NUM_THREADS=2", "OMP_STACKSIZE=512k"});
    const int status = child.wait();
    return {status, child.out(), child.errors()};
  }

  /// The least address space in which the program starts, KiB.
  static std::int64_t least() {
    static const std::int64_t found = [] {
      std::int64_t kib = 40 << 10;
      while (under(kib, {"--version"}).status != 0 && kib < (4 << 20)) kib += 2 << 10;
      return kib;
    }();
    return found;
  }

  /// Runs `words` with ever more memory until they succeed three times in a row.
  void sweep(
      const Words& words, const std::function<void()>& before = [] {}) {
    const std::int64_t step = testing::is_long() ? 1 << 10 : 11 << 10;
    int failures = 0, successes = 0;
    for (std::int64_t kib = least() + (2 << 10); successes < 3; kib += step) {
      ASSERT_LT(kib, 4 << 20) << words[0];
      before();
      const Finished run = under(kib, words);
      if (run.status == 0) {
        ++successes;
        continue;
      }
      ++failures;
      EXPECT_EQ(run.status, 1) << words[0] << " in " << kib << " KiB: " << run.errors;
      // libgomp ends the program itself when it gets no threads.
      EXPECT_TRUE(run.errors.find("lectern: ") != std::string::npos ||
                  run.errors.find("libgomp: Thread creation failed") != std::string::npos)
          << words[0] << " in " << kib << " KiB: " << run.errors;
      EXPECT_EQ(run.errors.find("std::bad_alloc"), std::string::npos) << run.errors;
    }
    EXPECT_GT(failures, 0) << words[0];
  }

  TinyData data_;
};

TEST_F(MemoryRefused, Training) {
  const auto run_dir = data_.folder() / "run";
  sweep({"train", data_.recipe_file("run").string(), "--set", "threads=2", "--set", "steps=2",
         "--set", "checkpoint.every=1"},
        [&] { std::filesystem::remove_all(run_dir); });
}

TEST_F(MemoryRefused, Reading) {
  testing::save_piece_model(data_.folder() / "model");
  write_png(testing::synthetic_page("doc", 1, 3, 3).image, data_.folder() / "page.png");
  sweep({"ocr", "--checkpoint", data_.folder() / "model", "--max-tokens", "3", "--threads", "2",
         data_.folder() / "page.png"});
}

TEST_F(MemoryRefused, PagesAndShards) {
  const auto pdf = testing::write_bytes(
      data_.folder() / "a.pdf",
      testing::make_pdf({{testing::pdf_paragraph("a", 20)}, {testing::pdf_paragraph("b", 20)}}));
  const auto pages = data_.folder() / "pages";
  sweep({"data", "pages", "--dpi", "60", "--out", pages, "--pdf", pdf},
        [&] { std::filesystem::remove_all(pages); });
  sweep({"data", "shards", "--pages", pages, "--tokenizer", data_.tokenizer(), "--out",
         data_.folder() / "made"});
}

}  // namespace
}  // namespace lectern
