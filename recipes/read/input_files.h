// Files that are to be read: pictures and PDFs, told apart by their content, and their pages in
// order. What is wrong with one page or one file is kept beside what the others gave.
#pragma once

#include "data/images/image.h"

#include <cstdint>
#include <deque>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace lectern {

/// The arguments, each folder replaced by the PNG, JPEG and PDF files in it, sorted by name;
/// folders inside it and names that begin with a dot do not count. Files with a suffix of these
/// kinds count whatever is in them, so that a damaged one is told. A folder without any stays in
/// the list, for PagesOfFiles to refuse. `say` gets a line a folder: how many there are.
std::vector<std::string> expand_folders(const std::vector<std::string>& arguments,
                                        const std::function<void(const std::string&)>& say);

struct PageOfFile {
  std::string text;
  std::string error;     ///< why it could not be drawn; `text` is then empty
  std::string note;      ///< what the program that drew it complained of: parts may be missing
  bool is_done = false;  ///< `text` or `error` is there
};

struct FileOfPages {
  std::string name;
  std::string error;              ///< why it, or what follows `pages`, could not be read
  std::string note;               ///< what the program that opened it complained of
  bool is_skipped = false;        ///< as the user wants it
  std::int64_t page_count = 0;    ///< that it has; 0 when it could not be opened
  std::vector<PageOfFile> pages;  ///< in order, from the first; those that have been drawn
  bool is_drawn = false;          ///< no more pages will come

  bool is_done() const;
  /// Pages that are done, counted from the first up to one that is not.
  std::int64_t pages_done() const;
};

struct InputSettings {
  double picture_dpi = 0, wanted_dpi = 0;  ///< pictures are resized from one to the other; 0: not
  double dots_per_inch = 144;              ///< at which PDF pages are drawn
  /// Asked before a file is opened: false skips it, an Error that it throws is the file's.
  std::function<bool(const std::string& file)> admit;
  /// Asked before each page: true ends the pages.
  std::function<bool()> stop;
};

/// The pages of all files in order, handed out as pictures; their texts come back in this order.
class PagesOfFiles {
 public:
  PagesOfFiles(const std::vector<std::string>& files, InputSettings settings)
      : names_(files), settings_(std::move(settings)) {}

  /// The next page that can be read. A file or page that cannot be is remembered with its error.
  std::optional<Image> next();
  /// The text of the next page, in the order of next(). Its file.
  const FileOfPages& add(std::string text);
  /// The next file in order of which nothing more is to come; null when there is none yet.
  const FileOfPages* next_done();
  /// All files that next_done() has not given, in order; of those that were not opened the name.
  std::vector<FileOfPages> unfinished() const;

 private:
  struct Place {
    std::size_t file = 0, page = 0;
  };

  void guarded(const std::function<void()>& work);
  void open();
  void draw_more();

  const std::vector<std::string>& names_;
  InputSettings settings_;
  std::deque<FileOfPages> files_;  // those that have been opened; references stay valid
  std::deque<std::pair<std::size_t, Image>> drawn_;  // of files_.back(), not handed out yet
  std::deque<Place> handed_out_;                     // whose texts are not there yet
  std::size_t given_ = 0;
};

}  // namespace lectern
