#include "data/pairs/folder_reader.h"

#include "core/error.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

namespace lectern::detail {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPictures[] = {".jpeg", ".jpg", ".pdf", ".png"};
constexpr std::string_view kTexts[] = {".md", ".txt"};  // the first that is there counts

std::string lower_suffix_of(const fs::path& path) {
  std::string out = path.extension().string();
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// The files of one name in a folder.
struct NamedFiles {
  std::vector<fs::path> pictures, texts;
};

class FolderReader final : public ItemReader {
 public:
  FolderReader(fs::path path, const FormOptions& options) : root_(std::move(path)) {
    if (!options.group_key.empty())
      fail<ConfigError>(fmt::format("{}: a folder has no key \"{}\" to group by", root_.string(),
                                    options.group_key));
    open_.push_back(root_);
  }

  std::string describe() const override { return "a folder"; }

  bool next(PairItem& item) override {
    item = {};
    while (files_.empty()) {
      if (open_.empty()) return false;
      const fs::path folder = open_.back();
      open_.pop_back();
      list(folder);
    }
    auto named = files_.extract(files_.begin());
    item.form = "files";
    fill(named.mapped(), item);
    return true;
  }

 private:
  void list(const fs::path& folder) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
      const fs::path& path = at->path();
      if (path.filename().string().starts_with(".")) continue;
      if (at->is_directory()) {
        folders.push_back(path);
        continue;
      }
      const std::string suffix = lower_suffix_of(path), stem = path.stem().string();
      if (std::find(std::begin(kPictures), std::end(kPictures), suffix) != std::end(kPictures))
        files_[stem].pictures.push_back(path);
      if (std::find(std::begin(kTexts), std::end(kTexts), suffix) != std::end(kTexts))
        files_[stem].texts.push_back(path);
    }
    if (error)
      fail<IoError>(fmt::format("{}: cannot be listed: {}", folder.string(), error.message()));
    std::sort(folders.rbegin(), folders.rend());  // the last is opened first
    open_.insert(open_.end(), folders.begin(), folders.end());
  }

  void fill(NamedFiles& files, PairItem& item) const {
    std::sort(files.pictures.begin(), files.pictures.end());
    std::sort(files.texts.begin(), files.texts.end());
    const fs::path& first = files.pictures.empty() ? files.texts.front() : files.pictures.front();
    item.name = first.lexically_relative(root_).generic_string();
    if (files.pictures.empty()) {
      item.unusable = {"no picture", "no .png, .jpg or .pdf of its name lies beside it"};
    } else if (files.pictures.size() > 1) {
      item.unusable = {"several pictures",
                       fmt::format("{} lies beside it, too: one of a name must remain",
                                   files.pictures[1].filename().string())};
    } else if (files.texts.empty()) {
      item.unusable = {"no answer", "no .md or .txt of its name lies beside it"};
    } else {
      item.picture = first;
      item.text_file = files.texts.front();  // .md before .txt
    }
  }

  fs::path root_;
  std::vector<fs::path> open_;  // folders still to be listed, the next one last
  std::map<std::string, NamedFiles>
      files_;  // of the folder that was listed last, still to be given
};

}  // namespace

std::unique_ptr<ItemReader> open_folder(const fs::path& path, const FormOptions& options) {
  return std::make_unique<FolderReader>(path, options);
}

}  // namespace lectern::detail
