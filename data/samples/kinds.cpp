#include "data/samples/kinds.h"

#include "core/error.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "data/samples/pairs.h"
#include "data/samples/text.h"

namespace lectern {
namespace {

template <typename Settings>
std::unique_ptr<SourceSettings> make() {
  return std::make_unique<Settings>();
}

struct Kind {
  std::string_view name;
  std::unique_ptr<SourceSettings> (*make)();
};

/// A new kind is one line here.
constexpr Kind kKinds[] = {
    {"shards", make<CutSettings>},
    {"synthetic", make<DrawnSettings>},
    {"pairs", make<PairSettings>},
    {"text", make<TextSettings>},
};

}  // namespace

std::shared_ptr<const ShardSet> OpenShards::open(const std::string& folder) {
  auto& found = open_[folder];
  if (!found) found = std::make_shared<const ShardSet>(folder);
  return found;
}

std::vector<std::string> source_kinds() {
  std::vector<std::string> out;
  for (const Kind& kind : kKinds) out.emplace_back(kind.name);
  return out;
}

std::unique_ptr<SourceSettings> make_source_settings(std::string_view kind) {
  for (const Kind& each : kKinds)
    if (each.name == kind) return each.make();
  fail<ConfigError>(fmt::format("samples: there is no kind of source \"{}\"", kind));
}

void SourceSettings::describe_ascii_only(FieldVisitor& f, bool& value,
                                         const SourceDefaults& defaults) {
  value = defaults.ascii_only;
  f.boolean("ascii_only", value,
            {.meaning = "leave out pieces with any other character", .otherwise = "from `[data]`"});
}

void SourceSettings::describe_max_text_tokens(FieldVisitor& f, std::int64_t& value,
                                              const SourceDefaults& defaults) {
  value = defaults.max_text_tokens;
  f.integer("max_text_tokens", value, within(1, 1 << 20),
            {"tokens", "longer answers are left out", "from `[data]`"});
}

void SourceSettings::describe_shards(FieldVisitor& f, std::string& folder) {
  f.text("shards", folder,
         {.unit = "folder",
          .meaning = "of all but drawn sources: made by `lectern data shards` or `data pairs`",
          .required = true});
}

}  // namespace lectern
