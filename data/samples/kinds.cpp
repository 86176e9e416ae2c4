#include "data/samples/kinds.h"

#include "core/error.h"
#include "data/samples/cut.h"
#include "data/samples/drawn.h"
#include "data/samples/pairs.h"
#include "data/samples/text.h"

namespace lectern {
namespace {

struct Kind {
  std::string_view name;
  std::shared_ptr<const SourceSettings> (*read)(SettingsReader& table,
                                                const SourceDefaults& defaults);
};

/// A new kind is one line here.
constexpr Kind kKinds[] = {
    {"shards", read_cut_settings},
    {"synthetic", read_drawn_settings},
    {"pairs", read_pair_settings},
    {"text", read_text_settings},
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

std::shared_ptr<const SourceSettings> read_source_settings(std::string_view kind,
                                                           SettingsReader& table,
                                                           const SourceDefaults& defaults) {
  for (const Kind& each : kKinds)
    if (each.name == kind) return each.read(table, defaults);
  fail<ConfigError>(fmt::format("samples: there is no kind of source \"{}\"", kind));
}

}  // namespace lectern
