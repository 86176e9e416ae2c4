#include "recipes/read/input_files.h"

#include "core/error.h"
#include "data/images/file_kind.h"
#include "data/pages/pdf.h"
#include "recipes/read/piece_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <new>

namespace lectern {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPagesAtOnce = 8;  // of a PDF, so that a book does not fill the memory

std::string lower_suffix(const fs::path& path) {
  std::string out = path.extension().string();
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

/// The first bytes of a regular file; nothing of what cannot be read.
std::vector<std::uint8_t> beginning_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return {};
  std::vector<std::uint8_t> out(kFileKindBytes);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
  out.resize(static_cast<std::size_t>(std::max<std::streamsize>(0, file.gcount())));
  return out;
}

bool is_wanted(const fs::path& path) {
  for (const char* suffix : {".png", ".jpg", ".jpeg", ".pdf"})
    if (lower_suffix(path) == suffix) return true;
  return file_kind(beginning_of(path)) != FileKind::other;
}

bool is_hidden(const fs::path& path) { return path.filename().string().starts_with("."); }

}  // namespace

std::vector<std::string> expand_folders(const std::vector<std::string>& arguments,
                                        const std::function<void(const std::string&)>& say) {
  std::vector<std::string> out;
  for (const std::string& argument : arguments) {
    std::error_code error;
    if (!fs::is_directory(argument, error)) {
      out.push_back(argument);
      continue;
    }
    std::vector<std::string> files;
    std::size_t others = 0, folders = 0;
    for (fs::directory_iterator at(argument, error), end; !error && at != end;
         at.increment(error)) {
      std::error_code ignored;
      if (is_hidden(at->path())) continue;
      if (at->is_directory(ignored))
        ++folders;
      else if (at->is_regular_file(ignored) && is_wanted(at->path()))
        files.push_back(at->path().string());
      else
        ++others;
    }
    if (files.empty()) {
      out.push_back(argument);
      continue;
    }
    std::sort(files.begin(), files.end());
    say(fmt::format("{}: {} pictures and PDFs; {} other files and {} folders in it are left out",
                    argument, files.size(), others, folders));
    out.insert(out.end(), files.begin(), files.end());
  }
  return out;
}

bool FileOfPages::is_done() const {
  return is_drawn && pages_done() == static_cast<std::int64_t>(pages.size());
}

std::int64_t FileOfPages::pages_done() const {
  return std::find_if(pages.begin(), pages.end(),
                      [](const PageOfFile& page) { return !page.is_done; }) -
         pages.begin();
}

std::optional<Image> PagesOfFiles::next() {
  for (;;) {
    if (settings_.stop && settings_.stop()) return std::nullopt;
    if (!drawn_.empty()) {
      handed_out_.push_back({files_.size() - 1, drawn_.front().first});
      Image page = std::move(drawn_.front().second);
      drawn_.pop_front();
      return page;
    }
    if (!files_.empty() && !files_.back().is_drawn) {
      guarded([&] { draw_more(); });
      continue;
    }
    if (files_.size() == names_.size()) return std::nullopt;
    const std::string& name = names_[files_.size()];
    files_.emplace_back();
    files_.back().name = name;
    guarded([&] { open(); });
  }
}

const FileOfPages& PagesOfFiles::add(std::string text) {
  FileOfPages& file = files_[handed_out_.front().file];
  PageOfFile& page = file.pages[handed_out_.front().page];
  handed_out_.pop_front();
  page.text = std::move(text);
  page.is_done = true;
  return file;
}

const FileOfPages* PagesOfFiles::next_done() {
  if (given_ == files_.size() || !files_[given_].is_done()) return nullptr;
  return &files_[given_++];
}

std::vector<FileOfPages> PagesOfFiles::unfinished() const {
  std::vector<FileOfPages> out(files_.begin() + static_cast<std::ptrdiff_t>(given_), files_.end());
  for (std::size_t i = files_.size(); i < names_.size(); ++i) {
    out.emplace_back();
    out.back().name = names_[i];
  }
  return out;
}

/// Opening and drawing: what a damaged file makes them throw is that file's error. A signal that
/// asks to stop may end the child process that draws, which is no fault of the file.
void PagesOfFiles::guarded(const std::function<void()>& work) {
  const auto failed = [&](const std::string& what) {
    if (settings_.stop && settings_.stop()) return;
    files_.back().error = what;
    files_.back().is_drawn = true;
  };
  try {
    work();
  } catch (const std::bad_alloc&) {
    failed(fmt::format("{}: there is not enough memory for it", files_.back().name));
  } catch (const std::exception& error) {
    failed(error.what());
  }
}

void PagesOfFiles::open() {
  FileOfPages& file = files_.back();
  const fs::path path = file.name;
  if (settings_.admit && !settings_.admit(file.name)) {
    file.is_skipped = file.is_drawn = true;
    return;
  }
  std::error_code error;
  if (fs::is_directory(path, error))
    fail<IoError>(
        fmt::format("{}: must be a PNG, JPEG or PDF, or a folder that has some, got a "
                    "folder that has none or cannot be listed",
                    file.name));
  const std::vector<std::uint8_t> beginning = beginning_of(path);
  const FileKind kind = file_kind(beginning);
  // Behind a damaged header poppler may still find the rest.
  const bool may_be_pdf =
      kind == FileKind::other && lower_suffix(path) == ".pdf" && !beginning.empty();
  if (kind == FileKind::pdf || may_be_pdf) {
    const PdfInfo info = read_pdf_info(path);
    file.page_count = info.pages;
    file.note = info.note;
    return;
  }
  if (kind == FileKind::other && fs::is_regular_file(path, error) &&
      (!beginning.empty() || fs::file_size(path, error) == 0))
    fail<IoError>(fmt::format("{}: must be a PNG, JPEG or PDF, got {}", file.name,
                              describe_file_kind(beginning)));
  Image picture = read_image(path);
  if (settings_.picture_dpi > 0 && settings_.wanted_dpi > 0)
    picture = rescaled(std::move(picture), settings_.picture_dpi, settings_.wanted_dpi);
  file.page_count = 1;
  file.pages.emplace_back();
  drawn_.emplace_back(0, std::move(picture));
  file.is_drawn = true;
}

void PagesOfFiles::draw_more() {
  FileOfPages& file = files_.back();
  const auto drawn = static_cast<std::int64_t>(file.pages.size());
  const std::int64_t last = std::min(file.page_count, drawn + kPagesAtOnce);
  for (PdfPicture& picture :
       render_pdf_pages(file.name, drawn + 1, last, settings_.dots_per_inch)) {
    PageOfFile page;
    page.error = std::move(picture.error);
    page.note = std::move(picture.note);
    page.is_done = !page.error.empty();
    if (!page.is_done) drawn_.emplace_back(file.pages.size(), std::move(picture.image));
    file.pages.push_back(std::move(page));
  }
  if (static_cast<std::int64_t>(file.pages.size()) == drawn)
    fail<IoError>(fmt::format("{}: page {} could not be drawn", file.name, drawn + 1));
  file.is_drawn = static_cast<std::int64_t>(file.pages.size()) == file.page_count;
}

}  // namespace lectern
