#include "recipes/read/page_reader.h"

#include <deque>
#include <utility>

namespace lectern {
namespace {

/// A page that has not been given out.
struct OpenPage {
  std::vector<PagePiece> pieces;  ///< empty: nothing was found, or the page is read as a whole
  std::vector<std::string> texts;
  std::size_t unread = 0;
};

/// Hands out views of page after page and gathers their texts.
class PageQueue {
 public:
  PageQueue(const ViewOptions& views, const ReadingSettings& settings, const PageSource& next,
            const OnPage& on_page)
      : views_(views), settings_(settings), next_(next), on_page_(on_page) {}

  std::optional<ImageViews> next_view() {
    while (waiting_.empty()) {
      std::optional<Image> page = next_();
      if (!page) return std::nullopt;
      open_page(std::move(*page));
    }
    ImageViews out = std::move(waiting_.front());
    waiting_.pop_front();
    return out;
  }

  /// Of view number `number`, counted from the first.
  void add(std::size_t number, std::string text) {
    // Few pages are open at once: those whose views are in the batch or in line for it.
    for (std::size_t first = first_view_, i = 0; i < open_.size(); ++i) {
      OpenPage& page = open_[i];
      if (number - first < page.texts.size()) {
        page.texts[number - first] = std::move(text);
        --page.unread;
        break;
      }
      first += page.texts.size();
    }
    give_out();
  }

  /// Pages whose texts are all there, from the first on.
  void give_out() {
    while (!open_.empty() && open_.front().unread == 0) {
      const OpenPage page = std::move(open_.front());
      open_.pop_front();
      first_view_ += page.texts.size();
      const bool is_whole = !settings_.by_pieces;
      on_page_(is_whole ? page.texts[0] : join_pieces(page.pieces, page.texts));
    }
  }

 private:
  void open_page(Image page) {
    std::vector<PagePiece> pieces;
    std::vector<ImageViews> views;
    if (settings_.by_pieces) {
      const FoundText found = find_dark_or_light_text(std::move(page));
      pieces = cut_pieces(found.segments, settings_.piece_width);
      if (!pieces.empty())
        views = piece_views(level_page(found.page, found.segments.slope), pieces, settings_);
    } else {
      views = {make_views(page, views_)};
    }
    open_.push_back({std::move(pieces), std::vector<std::string>(views.size()), views.size()});
    waiting_.insert(waiting_.end(), std::make_move_iterator(views.begin()),
                    std::make_move_iterator(views.end()));
    give_out();
  }

  const ViewOptions& views_;
  const ReadingSettings& settings_;
  const PageSource& next_;
  const OnPage& on_page_;
  std::deque<ImageViews> waiting_;
  std::deque<OpenPage> open_;
  std::size_t first_view_ = 0;  ///< number of the first view of open_[0]
};

}  // namespace

void read_pages(Reader& reader, const ReadingSettings& settings, const PageSource& next,
                const OnPage& on_page) {
  PageQueue pages(reader.views(), settings, next, on_page);
  reader.read_stream(
      [&] { return pages.next_view(); },
      [&](std::size_t number, std::string text) { pages.add(number, std::move(text)); });
}

}  // namespace lectern
