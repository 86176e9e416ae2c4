#include "recipes/log/progress.h"

#include "core/io/file.h"
#include "tests/testing.h"

#include <cmath>
#include <limits>

namespace lectern {
namespace {

TEST(Progress, Durations) {
  EXPECT_EQ(format_duration(0), "0:00");
  EXPECT_EQ(format_duration(65.4), "1:05");
  EXPECT_EQ(format_duration(59.6), "1:00");
  EXPECT_EQ(format_duration(7384), "2:03:04");
  EXPECT_EQ(format_duration(3 * 86400 + 4 * 3600 + 5 * 60), "3d 04:05");
  EXPECT_EQ(format_duration(-1), "-");
  EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "-");
}

TEST(Progress, Counts) {
  EXPECT_EQ(format_count(0), "0");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(999.6), "1.00k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(99960), "100k");
  EXPECT_EQ(format_count(4.56e6), "4.56M");
  EXPECT_EQ(format_count(std::nan("")), "-");
}

struct Screen {
  testing::TemporaryFolder folder;
  std::FILE* file = std::fopen((folder.path() / "out").c_str(), "w");
  double now = 100;
  ~Screen() { std::fclose(file); }
  std::string text() {
    std::fflush(file);
    return read_file(folder.path() / "out");
  }
  Progress::Options options(int terminal) {
    Progress::Options out;
    out.total_steps = 100;
    out.seconds_between_lines = 10;
    out.out = file;
    out.clock = [this] { return now; };
    out.terminal = terminal;
    return out;
  }
};

TEST(Progress, PlainLinesEveryFewSeconds) {
  Screen screen;
  Progress progress(screen.options(0));
  for (int step = 1; step <= 100; ++step) {
    screen.now += 0.5;
    progress.update({step, 2.0, 1e-4, 12345});
    if (step == 50) progress.say("checkpoint");
  }
  const std::string text = screen.text();
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5 + 1 + 1) << text;  // + say + the last
  EXPECT_NE(text.find("step 21/100  loss 2.0000  lr 1.00e-04  12.3k tok/s  left 0:40\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("step 100/100"), std::string::npos);
}

TEST(Progress, OneRewritingLineOnATerminal) {
  Screen screen;
  {
    Progress progress(screen.options(1));
    for (int step = 1; step <= 3; ++step) {
      screen.now += 1;
      progress.update({step, 2.0, 1e-4, 10});
    }
    progress.say("note");
  }
  const std::string text = screen.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2) << text;  // the note, and the end
  EXPECT_NE(text.find("\r\033[Knote\nstep 3/100"), std::string::npos) << text;
}

TEST(Progress, TimeLeftCountsFromTheResumedStep) {
  Screen screen;
  auto options = screen.options(0);
  options.first_step = 90;
  Progress progress(options);
  screen.now += 10;
  progress.update({95, 1.0, 1e-4, 10});
  EXPECT_NE(screen.text().find("left 0:10"), std::string::npos) << screen.text();
}

}  // namespace
}  // namespace lectern
