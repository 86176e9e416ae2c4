#include "data/pages/list.h"

#include "core/error.h"
#include "core/io/file.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;

json to_json(const DocumentEntry& document) {
  json dropped = json::array();
  for (const DroppedPage& page : document.dropped)
    dropped.push_back({{"number", page.number}, {"reason", page.reason}});
  return {{"id", document.id},
          {"source", document.source},
          {"path", document.path},
          {"sha256", document.sha256},
          {"licence", document.licence},
          {"poppler", document.poppler},
          {"options", document.options},
          {"pdf_pages", document.pdf_pages},
          {"first", document.first},
          {"last", document.last},
          {"dots_per_inch", document.dots_per_inch},
          {"dropped", std::move(dropped)}};
}

/// Typed access to the fields of one object; complaints name the file.
class Fields {
 public:
  Fields(const json& object, const std::string& name) : object_(object), name_(name) {
    if (!object.is_object()) fail<IoError>(fmt::format("{}: entries must be objects", name));
  }
  const json& value(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail<IoError>(fmt::format("{}: {} is missing", name_, key));
    return *found;
  }
  std::string text(const char* key) const {
    const json& found = value(key);
    if (!found.is_string())
      fail<IoError>(fmt::format("{}: {} must be a string, got {}", name_, key, found.type_name()));
    return found.get<std::string>();
  }
  std::int64_t integer(const char* key) const {
    const json& found = value(key);
    if (!found.is_number_integer() || found < 0 || found > std::int64_t{1} << 40)
      fail<IoError>(fmt::format("{}: {} must be a whole number >= 0", name_, key));
    return found.get<std::int64_t>();
  }
  double number(const char* key) const {
    const json& found = value(key);
    if (!found.is_number()) fail<IoError>(fmt::format("{}: {} must be a number", name_, key));
    return found.get<double>();
  }
  const json& array(const char* key) const {
    const json& found = value(key);
    if (!found.is_array()) fail<IoError>(fmt::format("{}: {} must be an array", name_, key));
    return found;
  }

 private:
  const json& object_;
  const std::string& name_;
};

DocumentEntry read_document(const json& item, const std::string& name) {
  const Fields fields(item, name);
  DocumentEntry out{fields.text("id"),      fields.text("source"),          fields.text("path"),
                    fields.text("sha256"),  fields.text("licence"),         fields.text("poppler"),
                    fields.text("options"), fields.integer("pdf_pages"),    fields.integer("first"),
                    fields.integer("last"), fields.number("dots_per_inch"), {}};
  for (const json& page : fields.array("dropped")) {
    const Fields dropped(page, name);
    out.dropped.push_back({dropped.integer("number"), dropped.text("reason")});
  }
  return out;
}

PageEntry read_page_entry(const json& item, const std::string& name) {
  const Fields fields(item, name);
  PageEntry out{fields.text("stem"),     fields.text("document"),  fields.integer("number"),
                fields.integer("width"), fields.integer("height"), fields.integer("characters")};
  // Stems become file names that a rebuild deletes: they must not lead out of the folder.
  if (out.stem.empty() || out.stem.find('/') != std::string::npos || out.stem.starts_with('.'))
    fail<IoError>(fmt::format("{}: stem must be a plain file name, got {}", name, out.stem));
  return out;
}

}  // namespace

const DocumentEntry* PageList::find(const std::string& id) const {
  const auto found = std::find_if(documents.begin(), documents.end(),
                                  [&](const DocumentEntry& entry) { return entry.id == id; });
  return found == documents.end() ? nullptr : &*found;
}

std::string to_json_text(const PageList& list) {
  json documents = json::array(), pages = json::array(), skipped = json::array();
  for (const DocumentEntry& document : list.documents) documents.push_back(to_json(document));
  for (const PageEntry& page : list.pages)
    pages.push_back({{"stem", page.stem},
                     {"document", page.document},
                     {"number", page.number},
                     {"width", page.width},
                     {"height", page.height},
                     {"characters", page.characters}});
  for (const SkippedDocument& entry : list.skipped)
    skipped.push_back({{"source", entry.source}, {"path", entry.path}, {"reason", entry.reason}});
  const json root = {{"format", "lectern-pages"},
                     {"version", kVersion},
                     {"documents", std::move(documents)},
                     {"pages", std::move(pages)},
                     {"skipped", std::move(skipped)}};
  // File names need not be UTF-8.
  return root.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

PageList load_page_list(const std::filesystem::path& folder) {
  const std::string name = (folder / "pages.json").string();
  const json root = parse_json(read_file(name, std::size_t{1} << 30), name);
  const Fields fields(root, name);
  if (fields.text("format") != "lectern-pages" || fields.value("version") != kVersion)
    fail<IoError>(fmt::format("{}: format must be lectern-pages, version {}", name, kVersion));
  PageList list;
  for (const json& item : fields.array("documents"))
    list.documents.push_back(read_document(item, name));
  for (const json& item : fields.array("pages")) list.pages.push_back(read_page_entry(item, name));
  for (const json& item : fields.array("skipped")) {
    const Fields entry(item, name);
    list.skipped.push_back({entry.text("source"), entry.text("path"), entry.text("reason")});
  }
  return list;
}

std::optional<PageList> find_page_list(const std::filesystem::path& folder) {
  std::error_code ignored;
  if (!std::filesystem::exists(folder / "pages.json", ignored)) return std::nullopt;
  return load_page_list(folder);
}

void save_page_list(const PageList& list, const std::filesystem::path& folder) {
  write_file(folder / "pages.json", to_json_text(list));
}

}  // namespace lectern
