#include "recipes/report/report.h"

#include "core/error.h"
#include "core/io/file.h"
#include "recipes/report/plot.h"
#include "recipes/report/sections.h"
#include "recipes/report/template.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

#include <cmath>
#include <limits>

namespace lectern {
namespace {

namespace fs = std::filesystem;
using testing::throws_with;

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

const std::string kPng("\x89PNG\r\n\x1a\nrest");

TEST(Plot, TicksAreRoundAndInside) {
  EXPECT_EQ(ticks(0, 10, 5), (std::vector<double>{0, 2, 4, 6, 8, 10}));
  const auto fine = ticks(0.012, 0.019, 5);
  EXPECT_GE(fine.size(), 3u);
  for (const double tick : fine) EXPECT_TRUE(tick >= 0.012 && tick <= 0.0191);
  EXPECT_TRUE(ticks(1, 1, 5).empty());
  EXPECT_TRUE(ticks(0, std::numeric_limits<double>::infinity(), 5).empty());
}

TEST(Plot, RunningMeanStartsWithoutBias) {
  const auto flat = running_mean({3, 3, 3}, 2);
  for (const double value : flat) EXPECT_DOUBLE_EQ(value, 3);
  // Half-life 1: weights 1, 1/2 -> (4 + 1) / 1.5.
  EXPECT_DOUBLE_EQ(running_mean({2, 4}, 1)[1], 5.0 / 1.5);
}

TEST(Plot, PointsStandWhereTheyBelong) {
  PlotArgs args;
  args.y_min = 0;
  args.y_max = 1;
  args.series = {{"", {0, 1}, {0, 1}, 0, false, false}};
  EXPECT_TRUE(contains(line_plot(args), "points=\"46.0,204.0 350.0,38.0\""));
}

TEST(Plot, BadNumbersAreLeftOut) {
  PlotArgs args;
  args.title = "<&\">";
  args.log_y = true;
  args.series = {{"a", {1, 2, 3, 4}, {1, std::nan(""), -1, HUGE_VAL}, 0, true, false}};
  const std::string svg = line_plot(args);
  EXPECT_FALSE(contains(svg, "nan"));
  EXPECT_FALSE(contains(svg, "inf"));
  EXPECT_TRUE(contains(svg, "&lt;&amp;&quot;&gt;"));
  args.series = {};
  EXPECT_TRUE(contains(line_plot(args), "no data"));
}

TEST(Plot, LongSeriesKeepTheirSpikes) {
  PlotArgs args;
  args.y_min = 0;
  args.y_max = 10;
  PlotSeries series;
  for (int i = 0; i < 100000; ++i) {
    series.x.push_back(i);
    series.y.push_back(i == 54321 ? 10 : 1);
  }
  args.series = {series};
  const std::string svg = line_plot(args);
  EXPECT_LT(svg.size(), 10000u);
  EXPECT_TRUE(contains(svg, ",38.0 "));  // the top of the plot
}

TEST(Report, DifferencesAreMarked) {
  const auto [truth, read] = report::marked_difference("kitten", "sitting");
  EXPECT_EQ(truth, "<mark>k</mark>itt<mark>e</mark>n");
  EXPECT_EQ(read,
            "<mark class=\"bad\">s</mark>itt<mark class=\"bad\">i</mark>n"
            "<mark class=\"bad\">g</mark>");
  EXPECT_EQ(report::marked_difference("<a>", "<a>").second, "&lt;a&gt;");
  EXPECT_EQ(report::marked_difference("", "x").second, "<mark class=\"bad\">x</mark>");
}

TEST(Report, PicturesBecomeBase64) {
  testing::TemporaryFolder folder;
  write_file(folder.path() / "a.png", std::string("\x89PNG\r\n\x1a\n", 8));
  EXPECT_EQ(report::image_data(folder.path() / "a.png"), "data:image/png;base64,iVBORw0KGgo=");
  write_file(folder.path() / "b.png", "\xff\xd8\xff\xe0zz");
  EXPECT_EQ(report::image_data(folder.path() / "b.png"), "data:image/jpeg;base64,/9j/4Hp6");
  write_file(folder.path() / "c.png", "GIF89a");
  EXPECT_TRUE(throws_with([&] { report::image_data(folder.path() / "c.png"); },
                          {"c.png: must be a PNG or JPEG"}));
}

/// A folder as quickstart leaves it.
void make_run(const fs::path& folder) {
  for (int stage = 1; stage <= 3; ++stage) {
    const fs::path run = folder / fmt::format("stage{}", stage);
    fs::create_directories(run);
    std::string lines;
    for (int step = 1; step <= 40; ++step)
      lines += fmt::format(
          R"({{"step":{},"loss":{},"grad_norm":1.5,"lr":1e-3,"samples":32,"tokens":320,"seconds":0.5}})"
          "\n",
          step, 8.0 / step / stage);
    write_file(run / "metrics.jsonl", lines);
    write_file(folder / fmt::format("eval{}.json", stage),
               fmt::format(R"({{"pages":10,"edit_distance":0.5,"cer":{},"f1":0.25,)"
                           R"("repetition_rate":0.1,"exact":4}})",
                           0.8 / stage));
  }
  write_file(folder / "crop.png", kPng);
}

TEST(Report, AssemblesFromItsFolder) {
  testing::TemporaryFolder folder;
  make_run(folder.path());
  EXPECT_EQ(load_report(folder.path()).stages.size(), 3u);  // without report.json
  EXPECT_EQ(load_report(folder.path() / "stage2").stages.size(), 1u);
  write_file(folder.path() / "report.json", R"({
    "title": "quick & small", "summary": "A test.", "facts": [["parameters", "3.9 M"]],
    "stages": [{"stage": 1, "run": "stage1", "heldout": "eval1.json"},
               {"stage": 3, "run": "stage3", "heldout": "eval3.json", "name": "own name"}],
    "samples": [{"image": "crop.png", "truth": "a<b", "read": "a<c", "note": "doc 1"},
                {"image": "crop.png", "truth": "page text", "read": "page", "page": true}],
    "token_budget": [{"name": "page", "width": 1240, "height": 1754, "tiles": 6, "vision_tokens": 1121,
                      "text_tokens": 2242}],
    "exports": [{"format": "hf", "path": "out/hf", "check": "equal", "bytes": 15600000}],
    "next": [["longer", "lectern train x.toml"]], "limits": ["It is small."]})");
  const ReportData data = load_report(folder.path());
  ASSERT_EQ(data.stages.size(), 2u);
  EXPECT_EQ(data.stages[0].steps, 40);
  EXPECT_DOUBLE_EQ(data.stages[0].seconds, 20);
  EXPECT_DOUBLE_EQ(data.stages[0].samples, 1280);
  EXPECT_DOUBLE_EQ(data.stages[0].samples_per_second.value[3], 64);
  EXPECT_DOUBLE_EQ(data.stages[0].heldout->cer, 0.8);
  EXPECT_EQ(data.stages[0].name, "encoder");
  EXPECT_EQ(data.stages[1].name, "own name");
  EXPECT_EQ(data.token_budget[0].vision_tokens, 6 * 144 + 257);

  const std::string html = render_report(data);
  for (const char* part :
       {"<h1>quick &amp; small</h1>", "3.9 M", "Stage 1: encoder", "26.7 %", "4 of 10", "0:40",
        "a&lt;<mark class=\"bad\">c</mark>", "data:image/png;base64,", "1121", "2.00 &times;",
        "15.6MB", "lectern train x.toml", "It is small.", "prefers-color-scheme: dark",
        "@media print", "name=\"viewport\""})
    EXPECT_TRUE(contains(html, part)) << part;
  // Self-contained: nothing is fetched.
  for (const char* part : {"http", "<link", "<script", "url(", "@import"})
    EXPECT_FALSE(contains(html, part)) << part;
  EXPECT_EQ(html, render_report(data));
}

TEST(Report, TemplatesEscapeAndRefuse) {
  const nlohmann::json values = {{"head", {"<a>", ""}},
                                 {"rows", {{{"cells", {"1 & 2"}}, {"is_total", true}}}}};
  EXPECT_EQ(report::render_template("table.html", values),
            "<table>\n<tr><th>&lt;a&gt;</th><th></th></tr>\n"
            "<tr class=\"best\"><td>1 &amp; 2</td></tr>\n</table>\n");
  EXPECT_TRUE(throws_with([] { report::render_template("none.html", {}); },
                          {"there is no template none.html"}));
  EXPECT_EQ(report::with_heading(nlohmann::json::array()), false);
}

TEST(Report, WhatARunBeganWithIsDrawn) {
  ReportData data;
  EXPECT_FALSE(contains(render_report(data), "From nothing"));
  data.history = ReportHistory{"From nothing <at all>", "On 3 samples.", {}};
  data.history->curves = {{"words", {{100, 200, 300}, {0.9, 0.5, 0.4}}},
                          {"lines", {{200, 300}, {1.0, 0.8}}}};
  const std::string html = render_report(data);
  for (const char* part : {"From nothing &lt;at all&gt;", "On 3 samples.", ">words<", ">lines<",
                           "samples", "<polyline"})
    EXPECT_TRUE(contains(html, part)) << part;
}

TEST(Report, SparseLogsStandForAllSteps) {
  testing::TemporaryFolder folder;
  write_file(folder.path() / "metrics.jsonl",
             "{\"step\":10,\"loss\":2.0,\"samples\":4,\"seconds\":0.5}\n"
             "{\"step\":10,\"eval_cer\":0.75}\n"
             "{\"step\":20,\"loss\":null,\"samples\":4,\"seconds\":0.5}\n");
  const ReportStage stage = read_stage(folder.path());
  EXPECT_EQ(stage.steps, 20);
  EXPECT_DOUBLE_EQ(stage.samples, 80);
  EXPECT_DOUBLE_EQ(stage.seconds, 10);
  EXPECT_EQ(stage.heldout_cer.value, std::vector<double>{0.75});
  EXPECT_EQ(stage.loss.value, std::vector<double>{2.0});
}

TEST(Report, EmptyDataStillMakesAPage) {
  const std::string html = render_report({});
  EXPECT_TRUE(contains(html, "</html>"));
  ReportData one;
  one.stages.resize(1);
  EXPECT_TRUE(contains(render_report(one), "no data"));
}

TEST(Report, BadInputNamesFileAndField) {
  testing::TemporaryFolder folder;
  EXPECT_TRUE(throws_with([&] { load_report(folder.path()); }, {"must have a report.json"}));
  const auto with = [&](const std::string& json) {
    return [&folder, json] {
      write_file(folder.path() / "report.json", json);
      render_report(load_report(folder.path()));
    };
  };
  EXPECT_TRUE(throws_with(with("{"), {"report.json: not valid JSON"}));
  EXPECT_TRUE(throws_with(with("[]"), {"report.json: must be an object, got array"}));
  EXPECT_TRUE(throws_with(with(R"({"title": 3})"), {"report.json.title: must be a string, got 3"}));
  EXPECT_TRUE(throws_with(with(R"({"stages": [{"stage": "x"}]})"),
                          {"report.json.stages[0].stage: must be an integer"}));
  EXPECT_TRUE(throws_with(with(R"({"stages": [{"run": "none"}]})"), {"none/metrics.jsonl"}));
  EXPECT_TRUE(
      throws_with(with(R"({"facts": {"a": "b"}})"), {"facts: must be a list of [text, text]"}));
  EXPECT_TRUE(throws_with(with(R"({"samples": [{"image": "no.png"}]})"), {"no.png: cannot open"}));
  EXPECT_TRUE(throws_with(with(std::string(100000, '[')), {"report.json"}));
}

}  // namespace
}  // namespace lectern
