#include "data/pages/batch.h"

#include "core/error.h"
#include "data/images/image.h"
#include "data/text/utf8.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace lectern::detail {
namespace {

/// Pages are packed once and unpacked in every epoch; level 3 is half as slow to write as 6 and 3%
/// larger.
constexpr int kPngLevel = 3;

class BatchBuilder {
 public:
  BatchBuilder(const PageBatch& batch, const PageBuildOptions& options)
      : batch_(batch), options_(options) {}

  PageBatchResult build() {
    read(batch_.first, batch_.last);
    std::sort(result_.dropped.begin(), result_.dropped.end(),
              [](const DroppedPage& a, const DroppedPage& b) { return a.number < b.number; });
    return std::move(result_);
  }

 private:
  void drop(std::int64_t number, std::string reason) {
    result_.dropped.push_back({number, std::move(reason)});
  }

  void drop_failed(std::int64_t number, std::string reason) {
    ++result_.failed;
    drop(number, std::move(reason));
  }

  /// A page without text may be one that poppler could not read.
  void drop(const Page& page, std::string reason, bool poppler_complained) {
    if (page.width == 0 || page.height == 0)
      return drop_failed(page.number, "poppler cannot find this page in the file");
    if (poppler_complained)
      if (const std::string note = complaint_of(page.number); !note.empty())
        reason += "; poppler: " + note;
    drop(page.number, std::move(reason));
  }

  /// What poppler says when it draws this page, as small as it can be.
  std::string complaint_of(std::int64_t number) const {
    constexpr double kSmallest = 1;  // dot per inch
    try {
      const PdfPicture picture =
          render_pdf_pages(batch_.pdf, number, number, kSmallest, options_.limits).front();
      return picture.error + picture.note;
    } catch (const IoError& error) {
      return short_reason(error, batch_.pdf);
    }
  }

  /// A range that fails is tried page by page: one bad page must not cost its neighbours.
  void read(std::int64_t first, std::int64_t last) {
    std::vector<Page> pages;
    std::string note;
    try {
      pages =
          read_pdf_text(batch_.pdf, first, last, options_.dots_per_inch, options_.limits, &note);
    } catch (const IoError& error) {
      if (first == last) return drop_failed(first, short_reason(error, batch_.pdf));
      for (std::int64_t number = first; number <= last; ++number) read(number, number);
      return;
    }
    std::vector<Page> run;  // neighbours that are kept: pictures by one call
    for (Page& page : pages) {
      std::string reason = reason_to_drop(page, options_.quality);
      if (reason.empty()) {
        run.push_back(std::move(page));
        continue;
      }
      drop(page, std::move(reason), !note.empty());
      render(std::exchange(run, {}));
    }
    render(std::move(run));
  }

  void render(std::vector<Page> pages) {
    for (std::size_t i = 0; i < pages.size();) {
      std::vector<PdfPicture> pictures;
      try {
        pictures = render_pdf_pages(batch_.pdf, pages[i].number, pages.back().number,
                                    options_.dots_per_inch, options_.limits);
      } catch (const IoError& error) {
        for (; i < pages.size(); ++i) drop_failed(pages[i].number, short_reason(error, batch_.pdf));
        return;
      }
      for (const PdfPicture& picture : pictures) finish(pages[i++], picture);
    }
  }

  void finish(Page& page, const PdfPicture& picture) {
    if (!picture.error.empty()) return drop_failed(page.number, picture.error);
    const Image& image = picture.image;
    fit_to_image(page, image.width, image.height);
    std::string reason = reason_to_drop(page, options_.quality);
    if (reason.empty()) reason = reason_to_drop(page, image, options_.quality);
    const std::int64_t hidden = reason.empty() ? keep_what_is_shown(page, image) : 0;
    if (hidden > 0) reason = reason_to_drop(page, options_.quality);  // enough may not be left
    if (!reason.empty()) return drop(page.number, std::move(reason));
    if (hidden > 0)
      result_.notes.push_back(
          {page.number,
           fmt::format("{} words that the picture does not show were left out", hidden)});
    if (!picture.note.empty()) result_.notes.push_back({page.number, "poppler: " + picture.note});
    const std::string stem = page_stem(batch_.document, page.number);
    page.source = batch_.source;
    page.document = batch_.document;
    page.image = options_.out / (stem + ".png");
    write_png(image, page.image, kPngLevel);
    write_page(page, options_.out / (stem + ".json"));
    result_.pages.push_back(
        {stem, page.document, page.number, page.width, page.height, count_characters(page.text)});
  }

  const PageBatch& batch_;
  const PageBuildOptions& options_;
  PageBatchResult result_;
};

}  // namespace

std::string short_reason(const Error& error, const std::filesystem::path& file) {
  std::string text = error.what();
  text.resize(std::min(text.rfind(" at "), text.size()));
  const std::string prefix = file.string() + ": ";
  return text.starts_with(prefix) ? text.substr(prefix.size()) : text;
}

std::string page_stem(const std::string& document, std::int64_t number) {
  return fmt::format("{}-{:04}", document, number);
}

PageBatchResult build_batch(const PageBatch& batch, const PageBuildOptions& options) {
  return BatchBuilder(batch, options).build();
}

}  // namespace lectern::detail
