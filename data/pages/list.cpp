#include "data/pages/list.h"

#include "core/error.h"
#include "core/io/fields.h"
#include "core/io/file.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace lectern {
namespace {

using nlohmann::json;

constexpr int kListVersion = 1;

constexpr FieldNote kMust{.required = true};
constexpr Range<std::int64_t> kCount{.min = 0, .max = std::int64_t{1} << 40};

void describe(DroppedPage& r, FieldVisitor& f) {
  f.integer("number", r.number, kCount, kMust);
  f.text("reason", r.reason, kMust);
}

void describe(PageNote& r, FieldVisitor& f) {
  f.integer("number", r.number, kCount, kMust);
  f.text("note", r.note, kMust);
}

/// All but the lists of pages.
void describe(DocumentEntry& r, FieldVisitor& f) {
  f.text("id", r.id, kMust);
  f.text("source", r.source, kMust);
  f.text("path", r.path, kMust);
  f.text("sha256", r.sha256, kMust);
  f.text("licence", r.licence, kMust);
  f.text("poppler", r.poppler, kMust);
  f.text("options", r.options, kMust);
  f.integer("pdf_pages", r.pdf_pages, kCount, kMust);
  f.integer("first", r.first, kCount, kMust);
  f.integer("last", r.last, kCount, kMust);
  f.number("dots_per_inch", r.dots_per_inch, {}, kMust);
}

void describe(PageEntry& r, FieldVisitor& f) {
  f.text("stem", r.stem, kMust);
  f.text("document", r.document, kMust);
  f.integer("number", r.number, kCount, kMust);
  f.integer("width", r.width, kCount, kMust);
  f.integer("height", r.height, kCount, kMust);
  f.integer("characters", r.characters, kCount, kMust);
}

void describe(SkippedDocument& r, FieldVisitor& f) {
  f.text("source", r.source, kMust);
  f.text("path", r.path, kMust);
  f.text("reason", r.reason, kMust);
}

template <typename Record>
json to_json(Record record) {
  json out = json::object();
  WriteFields write(out);
  describe(record, write);
  return out;
}

template <typename Record>
json to_json(const std::vector<Record>& records) {
  json out = json::array();
  for (const Record& record : records) out.push_back(to_json(record));
  return out;
}

template <typename Record>
Record read(const Fields& in) {
  Record out;
  ReadFields fields(in);
  describe(out, fields);
  return out;
}

template <typename Record>
std::vector<Record> read_all(const Fields& in, const char* key) {
  in.required(key);
  std::vector<Record> out;
  for (const Fields& each : in.objects(key)) out.push_back(read<Record>(each));
  return out;
}

PageList read_list(const json& root, const std::string& name) {
  const Fields in(root, name);
  for (const char* key : {"format", "version"}) in.required(key);
  in.only("format", "lectern-pages");
  in.only("version", kListVersion);
  PageList list;
  in.required("documents");
  for (const Fields& each : in.objects("documents")) {
    list.documents.push_back(read<DocumentEntry>(each));
    list.documents.back().dropped = read_all<DroppedPage>(each, "dropped");
    // Folders of before have none.
    for (const Fields& note : each.objects("notes"))
      list.documents.back().notes.push_back(read<PageNote>(note));
  }
  list.pages = read_all<PageEntry>(in, "pages");
  // Stems become file names that a rebuild deletes: they must not lead out of the folder.
  for (const PageEntry& page : list.pages)
    if (page.stem.empty() || page.stem.find('/') != std::string::npos || page.stem.starts_with('.'))
      fail<IoError>(fmt::format("{}: stem must be a plain file name, got {}", name, page.stem));
  list.skipped = read_all<SkippedDocument>(in, "skipped");
  return list;
}

}  // namespace

const DocumentEntry* PageList::find(const std::string& id) const {
  const auto found = std::find_if(documents.begin(), documents.end(),
                                  [&](const DocumentEntry& entry) { return entry.id == id; });
  return found == documents.end() ? nullptr : &*found;
}

std::string to_json_text(const PageList& list) {
  json documents = json::array();
  for (const DocumentEntry& document : list.documents) {
    json entry = to_json(document);
    entry["dropped"] = to_json(document.dropped);
    entry["notes"] = to_json(document.notes);
    documents.push_back(std::move(entry));
  }
  const json root = {{"format", "lectern-pages"},
                     {"version", kListVersion},
                     {"documents", std::move(documents)},
                     {"pages", to_json(list.pages)},
                     {"skipped", to_json(list.skipped)}};
  // File names need not be UTF-8.
  return root.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

PageList load_page_list(const std::filesystem::path& folder) {
  const std::string name = (folder / "pages.json").string();
  const json root = parse_json(read_file(name, std::size_t{1} << 30), name);
  return read_data_file([&] { return read_list(root, name); });
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
