// Records of settings: one description, read from and written to JSON, checked, and as text.
#include "core/io/record.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "tests/testing.h"

#include <nlohmann/json.hpp>

namespace lectern {
namespace {

using nlohmann::json;
using testing::throws_with;

struct Settings {
  std::int64_t steps = 3;
  double rate = 0.5;
  bool on = true;
  std::string name = "x", kind = "a";
  std::vector<std::int64_t> sizes = {1, 2};
  std::array<double, 2> span = {1, 2.5};
};

void describe(Settings& r, FieldVisitor& f) {
  f.integer("steps", r.steps, within(1, 10), {.required = true});
  f.number("rate", r.rate, positive());
  f.boolean("on", r.on);
  f.text("name", r.name);
  f.choice("kind", r.kind, {"a", "b"});
  f.integers("sizes", r.sizes, at_least(1));
  f.span("span", r.span, between(0, 9));
}

Settings read(const json& object) { return read_record<Settings>(Fields(object, "s.json")); }
auto reading(const char* text) {
  return [=] { read(json::parse(text)); };
}

TEST(Record, GoesThroughJsonAndText) {
  Settings settings;
  FieldValues values;
  describe(settings, values);
  EXPECT_EQ(values.text(), "3 0.5 true x a 1 2 1 2.5");
  FieldKeys keys;
  describe(settings, keys);
  EXPECT_EQ(keys.keys(),
            (std::vector<std::string>{"steps", "rate", "on", "name", "kind", "sizes", "span"}));
  settings.steps = 7;
  settings.sizes = {4};
  settings.span = {3, 4};
  json object;
  WriteFields write(object);
  describe(settings, write);
  const Settings again = read(object);
  EXPECT_EQ(again.steps, 7);
  EXPECT_EQ(again.sizes, settings.sizes);
  EXPECT_EQ(again.span, settings.span);
  EXPECT_EQ(read(json::parse(R"({"steps": 2, "rate": null})")).rate, 0.5);
}

TEST(Record, WhatDoesNotFitIsNamed) {
  EXPECT_TRUE(throws_with(reading("{}"), {"s.json.steps: is required"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 11})"),
                          {"s.json.steps: must be an integer from 1 to 10, got 11"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "rate": 0})"),
                          {"s.json: rate must be a number above 0, got 0"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "rate": "fast"})"), {"s.json.rate", "fast"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "kind": "c"})"), {"s.json.kind", "got \"c\""}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "sizes": ["x"]})"),
                          {"s.json.sizes: must be a list", "x"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "sizes": [0]})"),
                          {"sizes must be a list, each an integer of at least 1, got 0"}));
  EXPECT_TRUE(throws_with(reading(R"({"steps": 1, "span": [3, 2]})"),
                          {"span must be two numbers, the smaller first", "got 3 2"}));
  EXPECT_TRUE(throws_with(reading("[]"), {"s.json: must be an object, got array"}));
  Settings settings;
  settings.kind = "z";
  FieldCheck check("settings");
  EXPECT_TRUE(throws_with([&] { describe(settings, check); },
                          {"settings: kind must be one of a, b, got z"}));
}

TEST(Record, ListsOfObjectsAndTexts) {
  const json root = json::parse(R"({"list": [{"steps": 1}, {"steps": 99}], "words": ["a", "b"],
                                    "odd": [1], "one": 3})");
  const Fields in(root, "f.json");
  ASSERT_EQ(in.objects("list").size(), 2u);
  EXPECT_TRUE(in.objects("none").empty());
  EXPECT_TRUE(throws_with([&] { read_record<Settings>(in.objects("list")[1]); },
                          {"f.json.list[1].steps: must be an integer from 1 to 10, got 99"}));
  EXPECT_TRUE(throws_with([&] { in.objects("one"); }, {"f.json.one: must be a list of objects"}));
  EXPECT_EQ(in.texts("words"), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(throws_with([&] { in.texts("odd"); }, {"f.json.odd: must be a list of strings"}));
  EXPECT_THROW(read_data_file([&] { in.required("gone"); }), IoError);
}

}  // namespace
}  // namespace lectern
